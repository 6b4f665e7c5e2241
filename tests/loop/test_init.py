"""``init``: a look at a checkpoint and data becomes a ``fairway.toml`` that is read, and that ``run`` completes with."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.core.errors import InvalidConfig, UntrustedSource
from fairway.loop.init import init
from fairway.loop.project import Project
from fairway.loop.run import run
from fairway.settings import read_settings
from tests.projects import edit


@pytest.fixture(autouse=True)
def _bare(folder: Path) -> None:
    (folder / "fairway.toml").unlink()


@pytest.mark.parametrize(
    ("source", "trust", "task"),
    [
        ("good.onnx", False, "classification"),
        ("model.pkl", True, "classification"),
        ("train:fit", False, "classification"),
    ],
)
def test_what_it_writes_is_read_and_run(folder: Path, source: str, trust: bool, task: str) -> None:
    path = init(source, "test.parquet", name="digits", trust=trust)
    settings = read_settings(path, {})
    assert settings.model is not None
    assert settings.data is not None
    assert (settings.model.source, settings.model.task, settings.model.trust) == (source, task, trust)
    assert (settings.data.test, settings.data.label) == ("test.parquet", "digit")
    assert settings.gate
    edit(folder, '# features = ["*"]', 'features = ["pixel_*"]\n# as a person would, after a look: not')
    edit(folder, "at_rps = 200", "at_rps = 1000")
    edit(folder, "max = 50,", "max = 5000,")
    road = run(project=Project.find())
    assert (road.version, road.refused) == (1, "")


def test_a_pickle_is_refused_without_trust_and_nothing_is_written(folder: Path) -> None:
    with pytest.raises(UntrustedSource, match="--trust"):
        init("model.pkl", "test.parquet")
    assert not (folder / "fairway.toml").exists()


def test_looking_runs_nothing(folder: Path) -> None:
    (folder / "train.py").write_text("raise SystemExit('it was run')")
    assert init("train:fit", "test.parquet", name="digits").is_file()


def test_what_is_there_stays_unless_it_may_be_replaced(folder: Path) -> None:
    init("good.onnx", "test.parquet")
    before = (folder / "fairway.toml").read_text()
    with pytest.raises(InvalidConfig, match="--replace"):
        init("train:fit", "test.parquet")
    assert (folder / "fairway.toml").read_text() == before
    init("train:fit", "test.parquet", replace=True)
    assert "train:fit" in (folder / "fairway.toml").read_text()


def test_paths_are_written_relative_to_the_file(folder: Path) -> None:
    below = folder / "deploy"
    below.mkdir()
    init("good.onnx", folder / "test.parquet", reference="train.parquet", out=below / "fairway.toml")
    settings = read_settings(below / "fairway.toml", {})
    assert settings.model is not None
    assert settings.data is not None
    assert (settings.model.source, settings.data.test) == ("../good.onnx", "../test.parquet")
    assert settings.data.reference == "../train.parquet"


def test_the_limit_is_above_what_a_constant_answer_scores(folder: Path) -> None:
    gate = read_settings(init("good.onnx", "test.parquet"), {}).gate
    assert gate["accuracy_score"].min is not None
    assert gate["accuracy_score"].min > 0.2


@pytest.mark.parametrize(
    "name", ['a "quoted" one.parquet', "ünï cödé.parquet", "back\\slash.parquet", "#hash'.parquet"]
)
def test_awkward_file_names_survive(folder: Path, name: str) -> None:
    (folder / "test.parquet").rename(folder / name)
    settings = read_settings(init("good.onnx", name), {})
    assert settings.data is not None
    assert settings.data.test == name
