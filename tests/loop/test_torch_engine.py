"""``[model] engine = "torch"``: the whole road for an exported program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fairway
from fairway.core.errors import InvalidConfig
from tests.loop.test_distill import NETWORK
from tests.projects import edit, run_here

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


@pytest.fixture
def project(folder: Path) -> Path:
    (folder / "networks.py").write_text(NETWORK)
    edit(
        folder,
        'source = "good.onnx"',
        'source = "networks:network"\nengine = "torch"\noptions = { precision = "fp32" }',
    )
    edit(folder, 'label = "digit"', 'label = "digit"\nreference = "train.parquet"')
    with (folder / "fairway.toml").open("a") as settings:
        settings.write('\n[optimize]\ncandidates = ["cpu-eager-bf16"]\ntrials = 0\nrepeats = 1\ntune = false\n')
    return folder


def test_the_bundle_runs_on_torch_keeps_the_gate_and_is_optimized(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    packed = fairway.pack(project=fairway.Project.find(project), out="digits.fairway")
    assert packed.manifest.engine.name == "torch"
    assert packed.manifest.engine.options["precision"] == "fp32"
    assert "model.onnx" not in packed.manifest.files
    done = run_here(capfd, "optimize", "digits.fairway", "--html", "found.html")
    assert done.code == 0, done.err
    assert "cpu-eager-bf16" in done.out
    assert "cpu-eager-bf16" in (project / "found.html").read_text()


def test_a_source_that_trains_is_opened_once(project: Path) -> None:
    code = (project / "networks.py").read_text()
    counted = code.replace(
        "def network():\n", "def network():\n    with open('trained', 'a') as told:\n        told.write('once ')\n"
    )
    (project / "networks.py").write_text(counted)
    fairway.pack(project=fairway.Project.find(project), out="digits.fairway")
    assert (project / "trained").read_text() == "once "


def test_a_source_that_torch_does_not_know_says_so(project: Path) -> None:
    edit(project, 'source = "networks:network"', 'source = "good.onnx"')
    with pytest.raises(InvalidConfig, match=r"good\.onnx is no torch module"):
        fairway.pack(project=fairway.Project.find(project), out="digits.fairway")


def test_options_without_the_engine_are_refused(project: Path) -> None:
    edit(project, 'engine = "torch"\n', "")
    with pytest.raises(InvalidConfig, match=r"options\.precision is no option of ONNX Runtime"):
        fairway.Project.find(project)
