"""The page on performance says what the benchmarks wrote, whole, and that a target is missed where it is."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.docs.test_docs import ROOT

PAGE = (ROOT / "docs" / "performance.md").read_text("utf-8")


@pytest.fixture
def hook() -> ModuleType:
    """The hook, imported as MkDocs does."""
    spec = importlib.util.spec_from_file_location("docs_benchmarks", ROOT / "docs" / "hooks" / "benchmarks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Made-up results in place of the benchmark's."""
    row = {"workload": "tiny", "wire": "json", "p50_us": {"1": 99.5}, "p99_us": {"64": 1234.5}, "cpu_us": 30.0}
    document: dict[str, Any] = {
        "machine": {"cpu": "a processor", "cores": 2, "system": "Linux"},
        "versions": {"python": "3.11.7"},
        "peers": {"mosec": "0.9.8"},
        "quick": True,
        "rows": [
            {**row, "name": "fairway", "per_s": {"1": 5000.0, "64": 40000.0}, "of_fairway": None},
            {**row, "name": "mosec", "per_s": {"1": 2500.0}, "of_fairway": 0.256},
        ],
        "figures": [
            {"name": "a ratio", "value": 0.5, "spread": 0.1, "unit": "ratio", "target": ">= 0.7", "holds": False},
            {"name": "a third", "value": 0.96, "spread": 0.1, "unit": "ratio", "target": ">= 0.95", "holds": None},
            {"name": "another", "value": 12.0, "spread": 0.1, "unit": "ratio", "target": ">= 10", "holds": True},
        ],
        "left_out": ["Triton: no such package"],
        "kept": ["tiny, mosec, JSON"],
        "kept_machine": {"cpu": "another", "cores": 4, "system": "Linux"},
    }
    (tmp_path / "serving.json").write_text(json.dumps(document))
    monkeypatch.setattr(hook, "RESULTS", tmp_path)
    return document


def test_every_marker_of_the_page_is_made_from_the_results_in_the_repository(hook: ModuleType) -> None:
    markers = re.findall(r"^<!-- benchmark: .*-->$", PAGE, re.MULTILINE)
    assert len(markers) >= 9
    made = hook.on_page_markdown(PAGE)
    assert "<!-- benchmark" not in made


@pytest.mark.usefixtures("results")
def test_a_server_has_its_row_and_an_empty_cell_where_it_was_not_measured(hook: ModuleType) -> None:
    rows = hook.servers("tiny").splitlines()[2:]
    assert rows == [
        "| fairway | JSON | 5,000 | 40,000 | 99.5 | 1,234 | 30.0 |  |",
        "| mosec | JSON | 2,500 |  | 99.5 | 1,234 | 30.0 | 0.26 |",
    ]
    assert hook.servers("text") == "Not measured in this run."


@pytest.mark.usefixtures("results")
def test_a_missed_target_and_a_quick_run_say_so(hook: ModuleType) -> None:
    missed, open_, met = hook.targets().splitlines()[2:]
    assert missed.endswith("| >= 0.7 | **no** |")
    assert open_.endswith("| >= 0.95 | cannot tell |")
    assert met.endswith("| >= 10 | yes |")
    assert "quick run" in hook.machine()
    assert "mosec 0.9.8" in hook.machine()
    assert (
        "Kept from an earlier run, of an earlier Fairway, on 4 cores of another (Linux): tiny, mosec, JSON."
        in hook.machine()
    )
    assert hook.left_out() == "- Triton: no such package"


def test_parts_of_the_profile_add_up_to_all_of_it(hook: ModuleType) -> None:
    for name in ("rest", "grpc"):
        parts = hook._read("profile_serving")["profiles"][name]
        whole = next(part["us"] for part in parts if part["name"] == "all of it")
        before = parts[: [part["name"] for part in parts].index("all of it")]
        assert sum(part["us"] for part in before if not part["within"]) == pytest.approx(whole, abs=0.01)
