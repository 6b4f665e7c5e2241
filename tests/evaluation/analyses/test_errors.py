"""The worst rows: which they are, and how they are shown."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.settings import EvaluationSettings
from fairway.model import Model
from fairway.sources.tables import Table


def test_the_worst_row_is_the_one_whose_label_got_least(model: Model, table: Table) -> None:
    report = evaluate(model, table, label="digit", analyses=("errors",))
    found = report.analyses.errors
    assert found is not None
    with np.errstate(all="ignore"):
        given = model.infer(table.feed(model.inputs, label="digit"))[model.manifest.prediction.output]  # type: ignore[union-attr]
    truth = table.column("digit")
    wrong = np.flatnonzero(given.argmax(axis=1) != truth)
    least = wrong[given[wrong, truth[wrong]].argmin()]
    assert found[0].row == least
    assert found[0].label == str(truth[least])
    assert all(each.label != each.predicted for each in found)
    assert [each.badness for each in found] == sorted((each.badness for each in found), reverse=True)


def test_they_are_in_the_text_and_on_the_page(model: Model, table: Table) -> None:
    report = evaluate(model, table, label="digit", analyses=("errors",))
    assert report.analyses.errors
    assert f"row {report.analyses.errors[0].row}:" in report.as_text()
    assert "The rows that the model gets most wrong" in report.as_html()
    assert type(report).from_json(report.as_json()) == report


def test_what_is_not_asked_for_is_not_there(model: Model, table: Table) -> None:
    report = evaluate(model, table, label="digit")
    assert report.analyses.errors is None
    assert "Worst rows" not in report.as_text()


def test_an_unknown_analysis_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="no analysis 'eras'"):
        msgspec.convert({"analyses": ["eras"]}, EvaluationSettings)
