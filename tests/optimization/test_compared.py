"""Two bundles beside each other: an answer by every metric, never a bare number, and what differs between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.errors import InferenceFailed, InvalidConfig
from fairway.core.gate import Limit
from fairway.core.manifest import EngineSpec, FileEntry, Manifest, PassRecord
from fairway.core.metrics import Measurement
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.optimization.changes import changes
from fairway.optimization.compared import Answer, Compared, answer, compare_bundles
from fairway.sources.tables import make_table
from fairway.testing.builders import linear_bundle
from tests.conftest import Digits
from tests.monitoring.browser import open_page

GATE = {"accuracy_score": Limit(min=0.9), "latency_p50_ms": Limit(max=10, at_rps=100)}


@pytest.fixture
def good(digits_bundle: Bundle) -> Bundle:
    return digits_bundle


@pytest.fixture
def bad(digits: Digits, tmp_path: Path) -> Bundle:
    """Blind to half of the classes."""
    weights = np.array(digits.model.coef_.T)
    weights[:, 5:] = -9
    return linear_bundle(
        tmp_path / "bad.fairway",
        name="digits",
        weights=weights,
        bias=digits.model.intercept_,
        columns=digits.columns,
    )


class Served:
    """Twice as slow, twice as large in memory, at one bundle; errors at the same rate."""

    def __init__(self, slow: Bundle) -> None:
        self.slow, self.calls = slow, list[str]()

    def __call__(self, bundle: Bundle) -> list[Measurement]:
        self.calls.append(bundle.digest)
        times, noise = (2.0 if bundle.digest == self.slow.digest else 1.0), 0.01 * len(self.calls)
        return [
            Measurement("latency_p50_ms", times + noise, times, times + 1, at_rps=100.0),
            Measurement("throughput_rps", 1000 / times, 900 / times, 1100 / times),
            Measurement("error_rate", 0.01, 0.0, 0.02, at_rps=100.0),
            Measurement.exact("size_mb", 3.0),
        ]


Compare = Callable[..., Compared]


@pytest.fixture
def compare(digits: Digits) -> Compare:
    columns = dict(zip(digits.columns, digits.x_test.T, strict=True))
    table = make_table({**columns, "ink": digits.x_test.mean(axis=1), "digit": digits.y_test})

    def call(first: Bundle, second: Bundle, measure: Any = None, **changed: Any) -> Compared:
        given: dict[str, Any] = {"table": table, "label": "digit", "gate": GATE, "repeats": 5}
        given |= {"evaluation": EvaluationSettings(resamples=100), "progress": lambda *_: None}
        return compare_bundles(
            ("old", first), ("new", second), **{**given, "measure": measure or Served(second), **changed}
        )

    return call


def test_every_metric_has_an_answer_on_the_same_rows_and_in_the_same_rounds(
    compare: Compare, good: Bundle, bad: Bundle
) -> None:
    served = Served(bad)
    found = compare(good, bad, served)
    assert found.answer("accuracy_score") is Answer.WORSE
    assert found.answer("latency_p50_ms") is Answer.WORSE
    assert found.answer("throughput_rps") is Answer.WORSE
    assert found.answer("error_rate") is Answer.CANNOT_TELL
    assert found.answer("size_mb") is Answer.SAME
    assert (found.rows, found.rounds) == (450, 5)
    turns = [set(served.calls[place : place + 2]) for place in range(0, 10, 2)]
    assert turns == [{good.digest, bad.digest}] * 5  # each round measures both once


def test_the_other_way_round_the_answers_are_the_opposite(compare: Compare, good: Bundle, bad: Bundle) -> None:
    found = compare(bad, good, Served(bad))
    assert found.answer("accuracy_score") is Answer.BETTER
    assert found.answer("latency_p50_ms") is Answer.BETTER
    assert found.answer("throughput_rps") is Answer.BETTER


def test_slices_have_answers_of_their_own(compare: Compare, good: Bundle, bad: Bundle) -> None:
    found = compare(good, bad, slices=(SliceSettings("faint", "ink < 0.3"),))
    assert {row.slice for row in found.quality} == {"", "faint"}
    assert "accuracy_score in faint" in found.as_text()


def test_the_text_says_an_answer_beside_every_number(compare: Compare, good: Bundle, bad: Bundle) -> None:
    text = compare(good, bad).as_text()
    assert text.startswith("new against old: worse by ")
    rows = [line for line in text.splitlines() if line.startswith(("accuracy_score", "latency_", "size_mb", "error_"))]
    assert rows
    assert all(any(a.value in row for a in Answer) for row in rows)
    assert max(map(len, text.splitlines())) <= 140


def test_it_is_read_back_from_its_json(compare: Compare, good: Bundle, bad: Bundle) -> None:
    found = compare(good, bad)
    assert msgspec.json.decode(found.as_json(), type=Compared) == found


def test_a_bundle_is_not_compared_with_itself_nor_with_another_task(
    compare: Compare, good: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfig, match="same bundle"):
        compare(good, good)
    manifest = msgspec.structs.replace(good.manifest, task="regression")
    other = write_bundle(tmp_path / "other", manifest, {"model.onnx": good.file("model.onnx")})
    with pytest.raises(InvalidConfig, match="one task"):
        compare(good, other)


def test_a_bundle_that_cannot_be_served_is_named(compare: Compare, good: Bundle, bad: Bundle) -> None:
    def measure(bundle: Bundle) -> list[Measurement]:
        if bundle.digest == bad.digest:
            raise InferenceFailed("it broke")
        return Served(bad)(bundle)

    with pytest.raises(InferenceFailed, match="new cannot be measured: it broke"):
        compare(good, bad, measure)


ends = st.floats(-100, 100)


@given(ends, ends, st.sampled_from(["latency_p50_ms", "throughput_rps", "accuracy_score", "log_loss"]))
def test_an_answer_turns_around_with_its_difference(one: float, other: float, metric: str) -> None:
    low, high = sorted((one, other))
    opposite = {Answer.BETTER: Answer.WORSE, Answer.WORSE: Answer.BETTER}
    there = answer(Measurement(metric, (low + high) / 2, low, high))
    back = answer(Measurement(metric, -(low + high) / 2, -high, -low))
    assert back is opposite.get(there, there)
    assert (there is Answer.CANNOT_TELL) == (low <= 0 <= high)


def test_changes_name_passes_files_and_fields_one_by_one() -> None:
    first = Manifest(
        "m", "classification", (), (), {"model.onnx": FileEntry("0" * 64, 2048), "old": FileEntry("1" * 64, 1)}
    )
    second = msgspec.structs.replace(
        first,
        engine=EngineSpec("openvino", options={"precision": "bf16"}),
        recipe=(PassRecord("graph", {"level": "basic"}),),
        files={"model.onnx": FileEntry("2" * 64, 1024), "evaluation.json": FileEntry("3" * 64, 1)},
    )
    found = {change.field: (change.first, change.second) for change in changes(first, second)}
    assert found == {
        "engine.name": ("onnxruntime", "openvino"),
        "engine.options.precision": ("", "bf16"),
        "recipe.1": ("", 'graph {"level":"basic"}'),
        "files.model.onnx": ("2,048 bytes, 000000000000", "1,024 bytes, 222222222222"),
        "files.old": ("1 bytes, 111111111111", ""),
    }
    assert changes(first, first) == ()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(
    compare: Compare, good: Bundle, bad: Bundle, scheme: str, tmp_path: Path
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    path = tmp_path / "page.html"
    path.write_text(compare(good, bad).as_html(), "utf-8")
    with open_page(path, scheme=scheme, width=390) as (page, problems):
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        found = Axe().run(page)
    assert not found.response["violations"], found.generate_report()
    assert not problems
