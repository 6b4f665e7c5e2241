"""``fairway compare``: two bundles or registered versions, through the serving core."""

from __future__ import annotations

from pathlib import Path

import pytest

import fairway
from fairway.optimization.compared import Answer
from fairway.testing.builders import linear_bundle
from tests.conftest import Digits
from tests.projects import edit, run_here


@pytest.fixture
def quick(released: Path) -> Path:
    edit(released, "[serve]", "[optimize]\nrepeats = 1\n\n[serve]")
    return released


def test_two_versions_by_reference(quick: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    answer = run_here(capfd, "compare", "digits:1", "digits:2", "--json", "--html", page)
    assert answer.code == 0
    document = answer.document
    assert (document["first"]["name"], document["second"]["name"]) == ("digits:1", "digits:2")
    measured = {row["metric"] for row in document["performance"]}
    assert {"latency_p50_ms", "memory_mb", "size_mb", "load_ms", "throughput_rps"} <= measured
    assert all(row["answer"] in list(Answer) for row in (*document["quality"], *document["performance"]))
    assert {"files.model.onnx", "lineage.source"} <= {change["field"] for change in document["changes"]}
    assert "digits:2 against digits:1" in page.read_text("utf-8")


def test_paths_of_one_name_are_told_apart_by_their_folders(quick: Path, digits: Digits, tmp_path: Path) -> None:
    weights, columns = digits.model.coef_.T, digits.columns
    made = [
        linear_bundle(tmp_path / name / "m", name="digits", weights=w, bias=digits.model.intercept_, columns=columns)
        for name, w in (("a", weights), ("b", weights * 0))
    ]
    found = fairway.compare(*made, project=fairway.Project.find(quick))
    assert [found.first.name, found.second.name] == [str(bundle.path) for bundle in made]
    assert found.answer("accuracy_score") is Answer.WORSE


def test_a_reference_that_does_not_exist_is_a_mistake(quick: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_here(capfd, "compare", "digits:1", "digits:9").code == 3
