"""Checks: declared changes whose effect on the answer is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairway.core.errors import InvalidConfig
from fairway.core.gate import Limit, Outcome
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.report import Report
from fairway.evaluation.settings import ChangeSettings, CheckSettings
from fairway.model import Model
from fairway.sources.tables import Table, make_table
from fairway.testing.builders import linear_bundle


@pytest.fixture(scope="module")
def rows() -> Table:
    rng = np.random.default_rng(0)
    income, age = rng.normal(size=(2, 500)).astype(np.float32)
    return make_table(
        {"income": income, "age": age, "town": rng.choice(["a", "b"], 500), "y": (income > 0).astype(int)}
    )


@pytest.fixture(scope="module")
def credit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """The second class's probability rises with income and not with age."""
    folder: Path = tmp_path_factory.mktemp("credit")
    weights = [[-2, 2], [0, 0]]
    bundle = linear_bundle(folder / "b", weights=weights, bias=[0, 0], columns=("income", "age"), labels=("0", "1"))
    with Model(bundle) as model:
        yield model


def run(model: Model, table: Table, *checks: CheckSettings, **fields: Any) -> Report:
    return evaluate(model, table, label="y", checks=checks, **fields)


def check(kind: str, limit: float | None = None, **change: Any) -> CheckSettings:
    column = change.pop("column", "income")
    return CheckSettings(f"{kind} {column}", kind, ChangeSettings(column, **change), max_failure_rate=limit)  # type: ignore[arg-type]


def test_what_holds_by_construction_never_fails(credit: Model, rows: Table) -> None:
    report = run(
        credit, rows, check("invariant", column="age", add=3), check("increases", add=1), check("decreases", add=-1)
    )
    assert report.analyses.checks is not None
    for each in report.analyses.checks:
        assert each.failure_rate.value == 0
        assert each.failure_rate.n == 500
        assert 0 < each.failure_rate.high < 0.01
        assert each.examples == ()


def test_what_fails_is_counted_and_shown(credit: Model, rows: Table) -> None:
    report = run(credit, rows, check("decreases", add=1), check("invariant", set=5.0))
    assert report.analyses.checks is not None
    falls, stays = report.analyses.checks
    assert falls.failure_rate.value == 1
    assert stays.failure_rate.value == pytest.approx((rows.column("income") < 0).mean())
    assert stays.failure_rate.low < stays.failure_rate.value < stays.failure_rate.high
    assert all(rows.column("income")[row] < 0 for row in stays.examples)
    assert "invariant income" in report.as_text()
    assert "invariant income" in report.as_html()
    assert Report.from_json(report.as_json()) == report


@pytest.mark.parametrize(
    ("limit", "add", "outcome"),
    [(0.05, 0.0001, Outcome.PASSED), (0.05, 3.0, Outcome.FAILED), (0.0, 0.0001, Outcome.INCONCLUSIVE)],
)
def test_its_limit_is_judged_with_the_gate(
    credit: Model, rows: Table, limit: float, add: float, outcome: Outcome
) -> None:
    report = run(credit, rows, check("invariant", limit, add=add), gate={"accuracy_score": Limit(min=0.9)})
    assert report.verdict.outcome is outcome
    assert [each.metric for each in report.verdict.findings] == ["accuracy_score", "check_failure_rate"]


def test_rows_that_the_change_leaves_alone_say_nothing(credit: Model, rows: Table) -> None:
    only = CheckSettings("few", "increases", ChangeSettings("income", add=1), where="income > 1")
    none = CheckSettings("none", "invariant", ChangeSettings("income", multiply=1), max_failure_rate=0.5)
    report = run(credit, rows, only, none)
    assert report.analyses.checks is not None
    assert report.analyses.checks[0].failure_rate.n == int((rows.column("income") > 1).sum())
    assert not report.analyses.checks[1].failure_rate.known
    assert report.verdict.outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (check("invariant", column="incom", add=1), "no column"),
        (check("invariant", column="town", add=1), "holds none"),
        (check("invariant", replace={"a": "b"}), "holds numbers"),
        (CheckSettings("x", "increases", ChangeSettings("income", add=1), of="2"), "one of: 0, 1"),
        (CheckSettings("x", "invariant", ChangeSettings("income", add=1), where="nope > 1"), "check 'x'"),
    ],
)
def test_a_check_that_makes_no_sense_says_why(credit: Model, rows: Table, one: CheckSettings, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        run(credit, rows, one)


@pytest.mark.parametrize("change", [{}, {"add": 1, "multiply": 2}, {"replace": {"": "x"}}, {"replace": {}}])
def test_a_change_is_one_change(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"column": "x", **change}, ChangeSettings)


def test_a_limit_on_checks_is_theirs(credit: Model, rows: Table) -> None:
    with pytest.raises(InvalidConfig, match="max_failure_rate"):
        run(credit, rows, gate={"check_failure_rate": Limit(max=0.1)})
