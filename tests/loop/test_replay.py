"""``fairway optimize --replay``: the source is found by its digest, and the exit code says whether the digests are the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fairway
from fairway.bundle.format import Bundle, read_bundle
from fairway.loop.models import source_bundle
from fairway.loop.replay import find_parent
from fairway.optimization.build import build_candidate
from fairway.optimization.recipes import Recipe, Stage
from fairway.optimization.sampling import draw_sample
from tests.conftest import Digits
from tests.projects import edit, one_line, run_here


@pytest.fixture
def made(folder: Path) -> Bundle:
    """What a search in this project made of its source: int8 weights and activations."""
    edit(folder, 'test = "test.parquet"', 'test = "test.parquet"\nreference = "train.parquet"')
    project = fairway.Project.find(folder)
    source, reference = source_bundle(project), project.table("reference")
    described = {"rows": 32, "seed": 0, "data": reference.digest}
    weights = {"per_channel": True, "reduce_range": True}
    recipe = Recipe("int8-static", (Stage("int8-static", {**weights, "method": "minmax", **described}),))
    sample = draw_sample(source, reference, rows=32, seed=0)
    return build_candidate(source, recipe, sample, folder / "made.fairway")


def test_a_bundle_of_this_project_is_rebuilt_from_its_own_work(made: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    answer = run_here(capfd, "optimize", "--replay", made.path)
    assert answer.code == 0
    assert "the same digests after 1 pass" in answer.out


def test_other_reference_data_exits_1_and_says_why(
    folder: Path, made: Bundle, digits: Digits, capfd: pytest.CaptureFixture[str]
) -> None:
    source = find_parent(fairway.Project.find(folder), made)
    kept = shutil.copytree(source.path, folder / "source.fairway")
    rows = {name: digits.x_train[:, place] * 0.5 for place, name in enumerate(digits.columns)}
    pq.write_table(pa.table(rows), folder / "pale.parquet")
    edit(folder, 'reference = "train.parquet"', 'reference = "pale.parquet"')
    answer = run_here(capfd, "optimize", kept, "--replay", made.path, "--json")
    assert answer.code == 1
    assert answer.document["outcome"] == "differs"
    assert "other reference data" in answer.document["causes"][0]


def test_without_reference_data_a_calibrated_pass_is_broken_and_exits_4(
    folder: Path, made: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(folder, 'reference = "train.parquet"', "")
    answer = run_here(capfd, "optimize", find_parent(fairway.Project.find(folder), made).path, "--replay", made.path)
    assert answer.code == 4
    assert "name them in [data] reference" in " ".join(answer.out.split())


def test_the_source_comes_from_the_registry_once_the_work_is_gone(folder: Path, made: Bundle) -> None:
    project = fairway.Project.find(folder)
    source = find_parent(project, made)
    with project.registry() as registry:
        registry.register(source)
    shutil.rmtree(project.state / "work")
    assert find_parent(project, made).digest == source.digest
    assert fairway.replay(made, project=project).same


def test_a_source_that_nobody_has_is_a_mistake_that_names_its_digest(
    folder: Path, made: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / ".fairway")
    answer = run_here(capfd, "optimize", "--replay", made.path)
    assert answer.code == 3
    assert made.manifest.lineage.parent in answer.err


def test_a_bundle_that_was_made_from_no_other_has_nothing_to_replay(
    folder: Path, made: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    source = find_parent(fairway.Project.find(folder), made)
    answer = run_here(capfd, "optimize", "--replay", source.path)
    assert answer.code == 3
    assert "no recipe to replay" in answer.err


def test_a_damaged_bundle_among_the_work_is_passed_over(folder: Path, made: Bundle) -> None:
    project = fairway.Project.find(folder)
    source = find_parent(project, made)
    twin = source.path.parent / "a-twin"
    shutil.copytree(source.path, twin)
    (twin / "manifest.json").write_text("{")
    assert read_bundle(find_parent(project, made).path).digest == source.digest


def test_a_replay_writes_no_page(made: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    answer = run_here(capfd, "optimize", "--replay", made.path, "--html", tmp_path / "page.html")
    assert answer.code == 3
    assert one_line(answer.err)
