"""A model and a table make a report; whatever does not fit is refused with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss

from fairway.core.errors import InferenceFailed, InvalidBundle, InvalidConfig, InvalidData
from fairway.core.gate import Limit, Outcome
from fairway.core.manifest import Prediction
from fairway.core.metrics import Measurement
from fairway.core.tensors import Datatype, Tensors
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.labels import class_indices, label_forms
from fairway.evaluation.metrics import quality_metrics
from fairway.evaluation.predictions import read_classes
from fairway.evaluation.report import Report
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.model import Model
from fairway.sources.tables import Table, make_table
from fairway.testing.builders import linear_bundle
from tests.conftest import Digits
from tests.evaluation.conftest import EXTRA, GATE

FAST = EvaluationSettings(resamples=100)


class Answering:
    """Stands in for a model whose answer is known: its input column ``x`` is passed through ``answer``."""

    def __init__(self, model: Model, answer: Any, **changes: Any) -> None:
        self.manifest = msgspec.structs.replace(model.manifest, **changes)
        self.inputs, self.outputs = model.inputs, model.outputs
        self._answer = answer

    def infer(self, feed: Tensors) -> Tensors:
        assert self.manifest.prediction is not None
        return {self.manifest.prediction.output: self._answer(feed["x"])}


def answering(tmp_path: Path, answer: Any, **changes: Any) -> Any:
    bundle = linear_bundle(tmp_path / "b", weights=[[1.0, 0.0]], bias=[0.0, 0.0], columns=("x",))
    with Model(bundle) as model:
        return Answering(model, answer, **changes)


def test_the_report_has_scikit_learns_numbers(report: Report, digits: Digits) -> None:
    probabilities = digits.model.predict_proba(digits.x_test)
    accuracy, loss = report.measurement("accuracy_score"), report.measurement("log_loss")
    assert accuracy is not None
    assert loss is not None
    assert accuracy.value == accuracy_score(digits.y_test, probabilities.argmax(axis=1))
    assert loss.value == pytest.approx(log_loss(digits.y_test, probabilities), abs=1e-5)


def test_the_report_says_what_was_scored_on_what(report: Report, table: Table) -> None:
    assert (report.model, report.task, report.rows, report.data) == ("digits", "classification", 450, table.digest)
    assert report.bundle.startswith("sha256:")
    assert sum(report.label_counts.values()) == 450
    assert report.environment["python"]
    assert report.champion is not None
    assert report.champion.bundle != report.bundle


def test_every_metric_of_the_gate_and_the_task_is_there(report: Report) -> None:
    for name in (*GATE, *quality_metrics("classification")):
        assert report.measurement(name) is not None, name
    assert all(extra in report.measurements for extra in EXTRA)


def test_differences_to_the_champion_are_paired_and_judged(report: Report) -> None:
    change = report.measurement("log_loss", versus=True)
    assert change is not None
    assert (change.versus, change.n) == ("digits:1", 450)
    judged = next(f for f in report.verdict.findings if f.bound == "max_rise")
    assert judged.measurement == change
    assert judged.outcome is Outcome.PASSED


def test_slices_are_the_rows_of_their_predicates(report: Report, table: Table) -> None:
    for each in report.slices:
        found = report.measurement("accuracy_score", part=each.name)
        assert found is not None
        assert found.n == each.rows == int(table.mask(each.where).sum()) > 0


def test_an_empty_slice_is_inconclusive(model: Model, table: Table) -> None:
    gate = {"accuracy_score": Limit(slice_min=0.1)}
    report = evaluate(model, table, label="digit", gate=gate, slices=[SliceSettings("none", "ink > 9")], settings=FAST)
    assert report.slices[0].rows == 0
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert report.verdict.reasons == ("accuracy_score in slice 'none': no rows",)


def test_the_confusion_matrix_counts_every_row(report: Report, digits: Digits) -> None:
    assert report.confusion is not None
    matrix = np.array(report.confusion.matrix)
    assert matrix.sum() == 450
    np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(digits.y_test))
    worst = report.confusion.pairs[0]
    off = matrix - np.diag(np.diag(matrix))
    assert off.max() == worst.rows == matrix[int(worst.label), int(worst.predicted)]


def test_calibration_bins_hold_every_row(report: Report) -> None:
    assert sum(each.rows for each in report.calibration) == 450
    for each in report.calibration:
        assert each.start <= each.confidence <= each.stop
        assert each.low <= each.accuracy <= each.high


def test_progress_reaches_its_end(model: Model, table: Table) -> None:
    seen: list[tuple[str, int, int]] = []
    evaluate(model, table, label="digit", settings=FAST, progress=lambda *told: seen.append(told))
    assert ("scoring digits", 450, 450) in seen


@pytest.mark.parametrize("batch_size", [1, 7, 450, 1000])
def test_the_batch_size_changes_nothing(model: Model, table: Table, batch_size: int) -> None:
    first = table.select(slice(0, 60))
    reports = [
        evaluate(model, first, label="digit", settings=EvaluationSettings(resamples=100, batch_size=size))
        for size in (64, batch_size)
    ]
    values = [[m.value for m in one.measurements] for one in reports]
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_a_performance_measurement_of_the_champion_is_compared(model: Model, table: Table) -> None:
    gate = {"latency_p99_ms": Limit(max_rise=0.5)}
    ours, theirs = (Measurement("latency_p99_ms", v, v - 0.1, v + 0.1, n=99) for v in (2.0, 1.0))
    report = evaluate(
        model, table, label="digit", gate=gate, champion=model, extra=[ours], champion_extra=[theirs], settings=FAST
    )
    assert report.verdict.outcome is Outcome.FAILED


def test_without_a_gate_the_verdict_is_inconclusive_and_the_metrics_are_there(model: Model, table: Table) -> None:
    report = evaluate(model, table, label="digit", settings=FAST)
    assert not report.passed
    assert report.measurement("f1_score") is not None


# regression


def test_a_regressor_is_scored_on_its_values(tmp_path: Path) -> None:
    regressor = answering(
        tmp_path, lambda x: x + 0.5, task="regression", prediction=Prediction("y", "value"), labels=()
    )
    truth = np.random.default_rng(0).normal(size=80)
    table = make_table({"x": truth.astype(np.float32), "y": truth})
    report = evaluate(regressor, table, label="y", settings=FAST, gate={"mean_absolute_error": Limit(max=0.6)})
    error = report.measurement("mean_absolute_error")
    assert error is not None
    assert error.value == pytest.approx(0.5, abs=1e-6)
    assert report.residuals is not None
    assert report.residuals.mean == pytest.approx(0.5, abs=1e-6)
    assert sum(report.residuals.counts) == 80
    assert (report.confusion, report.calibration, report.label_counts) == (None, (), {})
    assert Report.from_json(report.as_json()) == report
    assert "Distribution of errors" in report.as_html()


# labels and answers


@given(st.lists(st.text("abcé", min_size=1), min_size=1, max_size=5, unique=True), st.data())
def test_text_and_bytes_find_their_class(labels: list[str], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(labels) - 1), min_size=1, max_size=20))
    texts = [labels[place] for place in places]
    for values in (
        np.array(texts),
        np.array(texts, object),
        np.array([t.encode() for t in texts] + [None], object)[:-1],
    ):
        assert class_indices(values, labels, "here").tolist() == places


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, 0], ("0", "1")),
        ([1.0, 0.0], ("0", "1")),
        ([1, 0], ("0.0", "1.0")),
        ([True, False], ("False", "True")),
        ([True, False], ("0", "1")),
        ([0.5, -1.5], ("-1.5", "0.5")),
    ],
)
def test_numbers_find_their_class_however_it_is_written(values: list[Any], labels: tuple[str, ...]) -> None:
    assert class_indices(np.array(values), labels, "here").tolist() == [1, 0]


def test_unknown_labels_are_listed(model: Model, table: Table) -> None:
    columns = {name: table.column(name) for name in table.columns}
    columns["digit"] = np.where(columns["digit"] == 3, 77, columns["digit"])
    with pytest.raises(InvalidData, match="'77' is no class of the model; it knows '0', '1'"):
        evaluate(model, make_table(columns), label="digit", settings=FAST)
    assert label_forms(3.0) == ("3", "3.0")


@pytest.mark.parametrize("missing", [np.nan, None])
def test_missing_labels_are_refused_with_their_place(model: Model, table: Table, missing: Any) -> None:
    columns: dict[str, Any] = {name: table.column(name) for name in table.columns}
    wanted: Any = columns["digit"].astype(float) if missing is not None else columns["digit"].astype(str).astype(object)
    wanted[5] = missing
    columns["digit"] = wanted
    with pytest.raises(InvalidData, match="missing in 1 of 450 rows, first in row 5"):
        evaluate(model, make_table(columns), label="digit", settings=FAST)


def test_the_wrong_label_column_or_no_rows_are_refused(model: Model, table: Table) -> None:
    with pytest.raises(InvalidData, match="has no column 'digits'"):
        evaluate(model, table, label="digits", settings=FAST)
    with pytest.raises(InvalidData, match="no rows"):
        evaluate(model, table.select(slice(0, 0)), label="digit", settings=FAST)


TRUTH = np.array([0, 1, 1])


def test_probabilities_logits_and_labels_mean_the_same() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, -1.0]], np.float32)
    odds = np.exp(logits)
    forms = {
        "logits": logits,
        "probabilities": odds / odds.sum(axis=1, keepdims=True),
        "label": np.array([b"a", b"b", b"a"], object),
    }
    read = {kind: read_classes(kind, raw, TRUTH, ("a", "b"), ("a", "b")) for kind, raw in forms.items()}
    assert {tuple(rows.predicted.tolist()) for rows in read.values()} == {(0, 1, 0)}
    np.testing.assert_allclose(
        np.array(read["logits"].probabilities), np.array(read["probabilities"].probabilities), atol=1e-6
    )
    assert read["label"].probabilities is None


def test_one_score_per_row_is_that_of_the_second_class() -> None:
    rows = read_classes("probabilities", np.array([[0.2], [0.9], [0.4]]), TRUTH, ("no", "yes"), ("no", "yes"))
    assert rows.predicted.tolist() == [0, 1, 0]


def test_probabilities_that_miss_one_by_rounding_are_scaled() -> None:
    rows = read_classes("probabilities", np.array([[0.49, 0.49]] * 3), TRUTH, ("a", "b"), ("a", "b"))
    np.testing.assert_allclose(np.array(rows.probabilities), 0.5)


@pytest.mark.parametrize("raw", [[[3.0, 1.0]] * 3, [[-0.5, 1.5]] * 3, [[0.0, 0.0]] * 3])
def test_what_are_no_probabilities_is_refused(raw: list[list[float]]) -> None:
    with pytest.raises(InferenceFailed, match="'logits'"):
        read_classes("probabilities", np.array(raw), TRUTH, ("a", "b"), ("a", "b"))


def test_scores_for_another_number_of_classes_are_refused() -> None:
    with pytest.raises(InvalidBundle, match="3 scores per row for 2 labels"):
        read_classes("logits", np.zeros((3, 3)), TRUTH, ("a", "b"), ("a", "b"))


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (lambda x: np.full((len(x), 2), np.nan, np.float32), InferenceFailed, "not finite in 3 of 3 rows"),
        (lambda x: np.full((len(x), 2), np.nan, Datatype.BF16.dtype), InferenceFailed, "not finite in 3 of 3 rows"),
        (lambda x: np.zeros((1, 2), np.float32), InferenceFailed, "for 3 rows"),
    ],
)
def test_an_answer_that_cannot_be_scored_names_the_fault(
    tmp_path: Path, answer: Any, error: type[Exception], says: str
) -> None:
    table = make_table({"x": np.zeros(3, np.float32), "y": [0, 1, 1]})
    with pytest.raises(error, match=says):
        evaluate(answering(tmp_path, answer), table, label="y", settings=FAST)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"task": "rankin"}, InvalidConfig, "did you mean .ranking."),
        ({"prediction": None}, InvalidBundle, "does not say which output"),
        ({"prediction": Prediction("y", "value")}, InvalidBundle, "declared as 'value'"),
    ],
)
def test_a_model_that_cannot_be_scored_is_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    table = make_table({"x": np.zeros(3, np.float32), "y": [0, 1, 1]})
    with pytest.raises(error, match=says):
        evaluate(answering(tmp_path, lambda x: x, **changes), table, label="y", settings=FAST)


def test_models_that_list_their_classes_in_another_order_are_compared_class_by_class(tmp_path: Path) -> None:
    x = np.linspace(-2, 2, 60, dtype=np.float32)
    table = make_table({"x": x, "y": np.where(x > 0, "up", "down")})
    weights, bias = np.array([[-3.0, 3.0]]), np.zeros(2)
    one = linear_bundle(tmp_path / "1", weights=weights, bias=bias, columns=("x",), labels=("down", "up"))
    two = linear_bundle(tmp_path / "2", weights=weights[:, ::-1], bias=bias, columns=("x",), labels=("up", "down"))
    with Model(one) as ours, Model(two) as theirs:
        report = evaluate(ours, table, label="y", champion=theirs, settings=FAST)
    change = report.measurement("log_loss", versus=True)
    assert change is not None
    assert change.value == pytest.approx(0, abs=1e-6)


def test_a_champion_that_does_not_know_a_class_gets_its_rows_wrong(tmp_path: Path) -> None:
    table = make_table({"x": np.array([-1, 1, 1], np.float32), "y": ["a", "b", "c"]})
    new = linear_bundle(tmp_path / "1", weights=[[-1.0, 1, 0]], bias=[0, 0, 0], columns=("x",), labels=("a", "b", "c"))
    old = linear_bundle(tmp_path / "2", weights=[[-1.0, 1]], bias=[0, 0], columns=("x",), labels=("a", "b"))
    with Model(new) as ours, Model(old) as theirs:
        report = evaluate(ours, table, label="y", champion=theirs, settings=FAST)
        assert report.champion is not None
        assert report.champion.measurements[0].value == pytest.approx(2 / 3)
        with pytest.raises(InvalidData, match="'c' is no class"):
            evaluate(theirs, table, label="y", settings=FAST)


def test_a_gate_or_slice_that_makes_no_sense_is_refused_before_any_work(model: Model, table: Table) -> None:
    with pytest.raises(InvalidConfig, match="metric of regression"):
        evaluate(model, table, label="digit", gate={"r2_score": Limit(min=0.5)})
    with pytest.raises(InvalidConfig, match="two slices are called 'a'"):
        evaluate(model, table, label="digit", slices=[SliceSettings("a", "ink > 0"), SliceSettings("a", "ink < 1")])
    with pytest.raises(InvalidConfig):
        evaluate(model, table, label="digit", slices=[SliceSettings("a", "inc > 0")])
