"""Fairness: planted differences are found with an honest size, chance is not, and a gate can limit them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.core.gate import Limit, Outcome
from fairway.evaluation.analyses.base import Subject
from fairway.evaluation.analyses.fairness import Fairness, analyse, measure_fairness
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.fairness import Rates
from fairway.evaluation.predictions import Classified, Regressed
from fairway.evaluation.settings import EvaluationSettings
from fairway.model import Model
from fairway.sources.tables import Table, make_table
from tests.evaluation.analyses.subjects import of_rows

pytest.importorskip("fairlearn")


def decided(said: np.ndarray, truth: np.ndarray) -> Classified:
    shown = np.stack([1.0 - said, said * 1.0], axis=1)
    return Classified(truth, said, shown, ("no", "yes"))


def lending(seed: int, rows: int, *, gap: float = 0.0, groups: int = 3) -> tuple[Classified, Table]:
    """Loans: the last group is granted ``gap`` less often, whatever its truth."""
    rng = np.random.default_rng([seed, 41])
    group = rng.integers(0, groups, rows)
    truth = (rng.random(rows) < 0.5).astype(int)
    grants = np.where(truth == 1, 0.7, 0.3) - gap * (group == groups - 1)
    said = (rng.random(rows) < grants).astype(int)
    return decided(said, truth), make_table({"group": [f"g{g}" for g in group], "yes": truth})


def subject(rows: Classified | Regressed, table: Table, *sensitive: str, resamples: int = 400) -> Subject:
    made = of_rows(rows, sensitive=sensitive, resamples=resamples)
    return Subject(made.model, table, "yes", rows, (), made.settings)


def only(found: tuple[Fairness, ...] | None) -> Fairness:
    assert found is not None
    [one] = found
    return one


def test_values_are_those_of_fairlearn() -> None:
    from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

    rows, table = lending(1, 600, gap=0.2)
    found = only(analyse(subject(rows, table, "group")))
    gaps = {gap.metric: gap.difference for gap in found.gaps}
    groups = {"sensitive_features": table.column("group")}
    parity = demographic_parity_difference(rows.truth, rows.predicted, **groups)
    odds = equalized_odds_difference(rows.truth, rows.predicted, **groups)
    assert gaps["demographic parity"].value == pytest.approx(parity)
    assert gaps["equalized odds"].value == pytest.approx(odds)
    assert found.groups == {name: int((table.column("group") == name).sum()) for name in ("g0", "g1", "g2")}


def test_a_planted_difference_is_found_where_it_is() -> None:
    rows, table = lending(2, 1500, gap=0.25)
    found = only(analyse(subject(rows, table, "group")))
    differing = {(rate.group, rate.metric) for rate in found.rates if rate.differs}
    assert ("g2", "selection rate") in differing
    assert {gap.metric for gap in found.gaps if gap.difference.above(0)} >= {"demographic parity", "equalized odds"}


def quick(rates: Rates, members: NDArray[np.intp]) -> dict[int, float]:
    """What fairlearn gives, a hundred times faster, for simulations."""
    hits, own = rates.hits[rates.over], members[rates.over]
    return {int(one): float(hits[own == one].mean()) for one in np.unique(own)}


@pytest.mark.parametrize(("gap", "groups"), [(0.0, 2), (0.0, 5), (0.2, 5)])
def test_the_interval_of_the_largest_difference_covers_it(
    gap: float, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.evaluation.analyses.fairness.by_group", quick)
    covered, rounds = np.zeros(2), 200
    for seed in range(rounds):
        settings = EvaluationSettings(resamples=400, sensitive=("group",), seed=seed)
        rows, table = lending(seed, 500, gap=gap, groups=groups)
        parity, odds = measure_fairness(rows, table, settings)
        covered += [each.low <= gap <= each.high for each in (parity, odds)]
    assert (
        covered >= binom.ppf(0.01, rounds, 0.95)
    ).all()  # as rarely as one simulation in a hundred shows a true 95 %


def test_equal_groups_rarely_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.evaluation.analyses.fairness.by_group", quick)
    alarms = 0
    for seed in range(30):
        rows, table = lending(seed, 500, groups=4)
        rates = only(analyse(subject(rows, table, "group", resamples=200))).rates
        alarms += any(rate.differs for rate in rates if rate.metric == "selection rate")
    assert alarms <= 4


def test_a_small_group_is_inconclusive() -> None:
    rows, table = lending(3, 400)
    groups = np.where(np.arange(400) < 8, "few", table.column("group"))
    found = only(analyse(subject(rows, make_table({"group": groups}), "group")))
    assert found.small == ("few",)
    assert all(rate.p_value is None and not rate.differs for rate in found.rates if rate.group == "few")
    gap = next(gap.difference for gap in found.gaps if gap.metric == "demographic parity")
    assert (gap.high or 0) > 0.3  # eight rows bound little


def test_columns_are_also_looked_at_together() -> None:
    rows, table = lending(4, 800)
    both = make_table({"group": table.column("group"), "old": np.arange(800) % 2 == 0})
    found = analyse(subject(rows, both, "group", "old"))
    assert found is not None
    assert [each.column for each in found] == ["group", "old", "group × old"]
    assert "g0 × True" in found[2].groups


def test_a_regression_is_judged_by_its_errors() -> None:
    rng = np.random.default_rng(6)
    old = rng.random(600) < 0.4
    truth = rng.normal(size=600)
    found = only(
        analyse(
            subject(Regressed(truth, truth + rng.normal(size=600) * 0.3 + 0.3 * old), make_table({"old": old}), "old")
        )
    )
    assert {gap.metric for gap in found.gaps if gap.difference.above(0)} >= {"mean error"}
    assert any(rate.differs and rate.group == "True" for rate in found.rates)


def test_ages_one_by_one_are_no_groups() -> None:
    rows, _ = lending(1, 200)
    with pytest.raises(InvalidConfig, match="'age' in table has 200 values; groups are at most 20"):
        analyse(subject(rows, make_table({"age": np.arange(200)}), "age"))
    with pytest.raises(InvalidData, match="no column 'sex'"):
        analyse(subject(rows, make_table({"age": np.arange(200)}), "sex"))


def test_a_gate_limits_it(model: Model, table: Table) -> None:
    settings = EvaluationSettings(sensitive=("bold",), positive="3")
    bold = table.column("ink") > 0.3
    shown = make_table({**{name: table.column(name) for name in table.columns}, "bold": bold}, origin="test.parquet")
    gate = {"demographic_parity_difference": Limit(max=0.9)}
    report = evaluate(model, shown, label="digit", gate=gate, settings=settings, analyses=("fairness",))
    assert report.verdict.outcome is Outcome.PASSED
    assert "demographic parity: differs by up to" in report.as_text()
    assert "Metrics by bold" in report.as_html()
    assert type(report).from_json(report.as_json()) == report
    with pytest.raises(InvalidConfig, match="needs to know which columns to look at"):
        evaluate(model, shown, label="digit", gate=gate)


def test_nothing_is_asked_where_nothing_is_declared(model: Model, table: Table) -> None:
    assert evaluate(model, table, label="digit", analyses=("fairness",)).analyses.fairness is None
