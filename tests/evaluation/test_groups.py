"""Rows that belong together, and what the report says of the comparison with the champion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.evaluation.comparison import Answer
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.groups import check_sampling, group_numbers
from fairway.evaluation.report import Report
from fairway.evaluation.settings import EvaluationSettings
from fairway.model import Model
from fairway.sources.tables import Table, make_table

GROUPED = EvaluationSettings(resamples=100, group="writer")


def _with_writers(table: Table, writers: Any) -> Table:
    return make_table(
        {**{name: table.column(name) for name in table.columns}, "writer": writers}, origin="test.parquet"
    )


@pytest.mark.parametrize(
    "values", [["b", "a", "b"], [2, 1, 2], [0.5, 0.1, 0.5], np.array(["x", 3, "x"], object).astype(str)]
)
def test_groups_are_numbered_whatever_names_them(values: Any) -> None:
    numbers = group_numbers(make_table({"g": values}), "g")
    assert sorted(set(numbers.tolist())) == [0, 1]
    assert numbers[0] == numbers[2] != numbers[1]


def test_a_report_on_groups_is_less_sure_and_says_so(model: Model, table: Table) -> None:
    """Every row stands here ten times: ten times the rows, and nothing new."""
    rows = np.tile(np.arange(150), 10)
    repeated = _with_writers(table.select(rows), rows)
    naive = evaluate(model, repeated, label="digit", settings=EvaluationSettings(resamples=100))
    found = evaluate(model, repeated, label="digit", settings=GROUPED)
    assert found.groups == 150
    for name in ("accuracy_score", "f1_score", "log_loss"):
        wide, narrow = found.measurement(name), naive.measurement(name)
        assert wide is not None
        assert narrow is not None
        assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert "over 150 groups by writer" in found.as_text()
    assert "over 150 groups by writer" in found.as_html()


def test_a_missing_group_is_refused_with_its_place(model: Model, table: Table) -> None:
    writers = np.array(["a", None] * 225, object)
    with pytest.raises(
        InvalidData, match=r"group 'writer' in test.parquet is missing in 225 of 450 rows, first in row 1"
    ):
        evaluate(model, _with_writers(table, writers), label="digit", settings=GROUPED)
    with pytest.raises(InvalidData, match="no column 'writer'"):
        evaluate(model, table, label="digit", settings=GROUPED)


def test_sampling_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="exclude each other"):
        check_sampling(EvaluationSettings(group="a", stratified=True), "classification")
    with pytest.raises(InvalidConfig, match="regression has not one class per row"):
        check_sampling(EvaluationSettings(stratified=True), "regression")
    check_sampling(EvaluationSettings(stratified=True), "classification")


def test_the_report_answers_for_every_metric_and_slice(report: Report) -> None:
    overall = [each for each in report.comparisons if not each.slice]
    assert len(overall) == 7
    for part in report.slices:
        assert report.comparison("accuracy_score", part=part.name) is not None
        assert report.measurement("accuracy_score", part=part.name, versus=True) is not None
    loss = report.comparison("log_loss")
    assert loss is not None
    assert loss.answer is Answer.BETTER
    text, page = report.as_text(), report.as_html()
    assert "Better than digits:1?" in text
    assert "▲ better" in page


def test_without_a_champion_nothing_is_compared(model: Model, table: Table) -> None:
    alone = evaluate(model, table, label="digit", settings=EvaluationSettings(resamples=100))
    assert alone.comparisons == ()
    assert "Better than" not in alone.as_text()
