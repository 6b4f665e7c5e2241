"""Metrics of one's own: found, measured with an interval, limited by the gate; what is wrong with one is said."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.core.errors import InvalidConfig
from fairway.core.gate import Limit, Outcome
from fairway.core.metrics import METRICS, declare, metric
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.measure import measure
from fairway.evaluation.own import OwnMetric, load_metrics, own_rows
from fairway.evaluation.report import Report
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.model import Model
from fairway.settings import read_settings
from fairway.sources.tables import Table
from tests.evaluation.conftest import classified, regressed
from tests.evaluation.tasks import samples

FAST = EvaluationSettings(resamples=200)
MODULE = """
import numpy as np

def right_score(truth, predicted):
    return truth == predicted

def miss_cost(truth, predicted):
    return float(np.mean(np.where(truth == predicted, 0, 1 + truth)))

def sure_score(truth, predicted, probabilities, labels):
    return probabilities[np.arange(len(truth)), truth]

def broken_score(truth, predicted):
    return truth[10**9]

def missing_loss(truth, predicted):
    return float("nan")

number_score = 3
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "my_own_metrics.py").write_text(MODULE)
    return tmp_path


def own(*names: str) -> EvaluationSettings:
    return EvaluationSettings(resamples=200, metrics=tuple(f"my_own_metrics:{name}" for name in names))


def test_own_metrics_are_measured_beside_the_others_and_judged(project: Path, model: Model, table: Table) -> None:
    gate = {"right_score": Limit(min=0.9, slice_min=0.5, max_drop=0.1), "miss_cost": Limit(max=2)}
    report = evaluate(
        model,
        table,
        label="digit",
        gate=gate,
        champion=model,
        slices=[SliceSettings("faint", "ink < 0.28")],
        settings=own("right_score", "miss_cost", "sure_score"),
        root=project,
    )
    accuracy, right = report.measurement("accuracy_score"), report.measurement("right_score")
    assert accuracy is not None
    assert right is not None
    assert right.value == accuracy.value
    assert right.high - right.low == pytest.approx(accuracy.high - accuracy.low, rel=0.15)
    cost, sure = report.measurement("miss_cost"), report.measurement("sure_score")
    assert cost is not None
    assert sure is not None
    assert "bootstrap, 200 resamples" in cost.method
    assert cost.low < cost.value < cost.high
    assert 0 < sure.low < sure.value < sure.high < 1
    assert report.measurement("right_score", part="faint") is not None
    assert report.measurement("right_score", versus=True) is not None
    assert report.comparison("miss_cost") is not None
    assert report.verdict.outcome is Outcome.PASSED
    again = Report.from_json(report.as_json())
    assert "right_score" in again.as_text()
    assert "miss_cost" in again.as_html()


def test_a_number_has_the_interval_of_its_resamples() -> None:
    """A mean, given as one number or per row, is about as uncertain either way."""
    rows = regressed(0, 300)
    metrics = [
        OwnMetric("whole_error", lambda t, p: float(np.abs(t - p).mean())),
        OwnMetric("per_row_error", lambda t, p: np.abs(t - p)),
    ]
    one, two = measure(own_rows(rows, metrics), ["whole_error", "per_row_error"], EvaluationSettings())
    assert one.value == pytest.approx(two.value)
    assert one.high - one.low == pytest.approx(two.high - two.low, rel=0.1)


@pytest.mark.parametrize("task", sorted(samples.ALL))
def test_every_task_gives_truth_and_predictions_of_every_row(task: str) -> None:
    rows = samples.ALL[task](0, 20)
    seen: list[int] = []

    def counted_score(truth: Any, predicted: Any) -> Any:
        seen.append(len(truth))
        return np.full(len(predicted), 0.5)

    (found,) = measure(own_rows(rows, [OwnMetric("counted_score", counted_score)]), ["counted_score"], FAST)
    assert (found.value, seen[0], found.n) == (0.5, len(rows), rows.units)


def test_a_slice_that_lacks_what_a_function_needs_is_unknown_there() -> None:
    def strict_score(truth: Any, predicted: Any) -> float:
        if len(set(truth.tolist())) < 2:
            raise ValueError("one class only")
        return float((truth == predicted).mean())

    rows = own_rows(classified(0, 90), [OwnMetric("strict_score", strict_score)])
    part = rows.select(np.asarray(rows.truth) == 1)
    (found,) = measure(part, ["strict_score"], FAST)
    assert not found.known
    assert "one class only" in found.method


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["broken_score"], r"metric broken_score raised IndexError: .*\(my_own_metrics.py, line 14\)"),
        (["missing_loss"], "metric missing_loss gives nan; it must be a finite number"),
        (["number_score"], "is no function, but int"),
        (["rigth_score"], r"no 'rigth_score' \(did you mean 'right_score'"),
        (["right_score", "right_score"], "names 'right_score' twice"),
        (["accuracy"], "does not say whether high is good: call it ..._score"),
        (["log_loss"], "is a metric that Fairway has"),
    ],
)
def test_what_is_wrong_with_a_metric_is_said(
    project: Path, model: Model, table: Table, names: list[str], says: str
) -> None:
    with pytest.raises(InvalidConfig, match=says):
        evaluate(model, table, label="digit", settings=own(*names), root=project)


def _shape(function: Callable[..., Any]) -> None:
    own_rows(classified(0, 20), [OwnMetric("shape_score", function)])


def test_shapes_and_parameters_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"shape_score gives shape \[3\] for 20 rows"):
        _shape(lambda truth, predicted: [1, 2, 3])
    with pytest.raises(InvalidConfig, match="asks for costs; here there are: probabilities, labels"):
        _shape(lambda truth, predicted, costs: 1)


def test_a_gate_that_limits_a_metric_that_nothing_measures_is_refused(model: Model, table: Table) -> None:
    declare("unmeasured_score")
    with pytest.raises(InvalidConfig, match="nothing measures it; name its function in metrics"):
        evaluate(model, table, label="digit", gate={"unmeasured_score": Limit(min=0.1)}, settings=FAST)


def test_the_settings_file_makes_names_known_to_its_gate(tmp_path: Path) -> None:
    file = tmp_path / "fairway.toml"
    file.write_text('[evaluate]\nmetrics = ["my_own_metrics:filed_score"]\n[gate]\nfiled_score = { min = 0.5 }\n')
    assert read_settings(file, {}).gate["filed_score"].min == 0.5
    assert metric("filed_score").higher_is_better
    file.write_text("[gate]\nflied_score = { min = 0.5 }\n")
    with pytest.raises(InvalidConfig, match="did you mean 'filed_score'"):
        read_settings(file, {})
    file.write_text('\n[evaluate]\nmetrics = ["my_own_metrics:accuracy"]\n')
    with pytest.raises(InvalidConfig, match=r"line 3: evaluate\.metrics: 'accuracy' does not say"):
        read_settings(file, {})
    assert "filed_score" not in METRICS


def test_an_entry_point_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("installed_score", "numpy:equal", "fairway.metrics")
    monkeypatch.setattr("fairway.evaluation.own.entry_points", lambda group: [point])
    (found,) = load_metrics(["installed_score"], Path())
    assert found == OwnMetric("installed_score", np.equal)
    with pytest.raises(InvalidConfig, match=r"no entry point 'installd_score'.*did you mean 'installed_score'"):
        load_metrics(["installd_score"], Path())
