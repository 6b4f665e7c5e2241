"""Two models on the same rows: better, worse, or cannot tell, at the stated rates: seeded simulations confirm them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from fairway.evaluation.comparison import Answer, Comparison, compare, holm, rows_needed
from fairway.evaluation.difference import differences, mcnemar
from fairway.evaluation.influence import effective_units, influence, spread
from fairway.evaluation.measure import measure
from fairway.evaluation.metrics import value
from fairway.evaluation.predictions import Classified, Regressed, Scored
from fairway.evaluation.settings import EvaluationSettings
from tests.evaluation.conftest import classified, regressed

FAST = EvaluationSettings(resamples=200)
ROUNDS = 300
TOLERANCE = 2.33 * math.sqrt(0.05 * 0.95 / ROUNDS)
"""How far a true rate of 5 % shows too high in one of a hundred simulations of this size: 2.9 points."""

Pair = tuple[Scored, Scored]


def _scores(rng: np.random.Generator, truth: np.ndarray, lift: np.ndarray | float) -> Classified:
    """A binary classifier that scores the true class ``lift`` standard deviations higher."""
    scores = rng.normal(size=len(truth)) + np.where(truth == 1, 1, -1) * lift / 2
    right = 1 / (1 + np.exp(-scores))
    probabilities = np.stack([1 - right, right], axis=1)
    return Classified(truth, probabilities.argmax(axis=1), probabilities, ("no", "yes"))


def classifiers(seed: int, rows: int, *, gain: float = 0.0, size: int = 1) -> Pair:
    """Two classifiers, the first ``gain`` standard deviations better; with ``size`` > 1 in groups they find alike hard."""
    rng = np.random.default_rng([seed, 21])
    truth = rng.integers(0, 2, rows)
    groups = np.arange(rows) // size
    ease = rng.normal(size=(2, rows))[:, groups] if size > 1 else np.zeros((2, rows))
    ours, theirs = _scores(rng, truth, 1.5 + gain + ease[0]), _scores(rng, truth, 1.5 + ease[1])
    return (replace(ours, groups=groups), replace(theirs, groups=groups)) if size > 1 else (ours, theirs)


def regressors(seed: int, rows: int, *, gain: float = 0.0, size: int = 1, heavy: bool = False) -> Pair:
    """Two regressors; ``gain`` is by how many percent the first one's errors are smaller."""
    rng = np.random.default_rng([seed, 22])
    truth, groups = rng.normal(size=rows), np.arange(rows) // size
    made = []
    for scale in (0.5 * (1 - gain / 100), 0.5):
        noise = rng.standard_t(5, size=rows) if heavy else rng.normal(size=rows)
        shared = rng.normal(size=rows)[groups] if size > 1 else 0.0
        made.append(Regressed(truth, truth + scale * (noise + shared), groups if size > 1 else None))
    return made[0], made[1]


def rate(pairs: Callable[[int], Pair], name: str, settings: EvaluationSettings = FAST, rounds: int = ROUNDS) -> float:
    """How often a difference is called, at 5 %."""
    called = 0
    for seed in range(rounds):
        (found,) = differences(*pairs(seed), [name], settings, versus="c")
        called += found.p_value is not None and found.p_value <= 0.05
    return called / rounds


# equal models


@pytest.mark.parametrize(
    ("name", "test"),
    [("accuracy_score", "McNemar"), ("roc_auc_score", "DeLong"), ("log_loss", "t"), ("f1_score", "bootstrap")],
)
def test_equal_classifiers_are_called_different_at_most_as_often_as_stated(name: str, test: str) -> None:
    pairs = classifiers(0, 150)
    assert test in differences(*pairs, [name], FAST, versus="c")[0].test
    assert 0.02 <= rate(lambda seed: classifiers(seed, 150), name) <= 0.05 + TOLERANCE


@pytest.mark.parametrize("name", ["mean_absolute_error", "median_absolute_error", "r2_score"])
def test_equal_regressors_are_called_different_at_most_as_often_as_stated(name: str) -> None:
    assert 0.02 <= rate(lambda seed: regressors(seed, 150), name) <= 0.05 + TOLERANCE


def test_heavy_tails_make_no_false_alarms() -> None:
    assert rate(lambda seed: regressors(seed, 100, heavy=True), "root_mean_squared_error") <= 0.05 + TOLERANCE


@pytest.mark.parametrize("name", ["accuracy_score", "roc_auc_score", "f1_score"])
def test_equal_classifiers_on_grouped_rows_too(name: str) -> None:
    """Forty groups of five. Taken for independent rows, the same data raise false alarms."""
    assert 0.01 <= rate(lambda seed: classifiers(seed, 200, size=5), name) <= 0.05 + TOLERANCE


def test_grouped_rows_taken_for_independent_ones_raise_false_alarms() -> None:
    def independent(seed: int) -> Pair:
        ours, theirs = regressors(seed, 200, size=5)
        return replace(ours, groups=None), replace(theirs, groups=None)

    assert rate(independent, "mean_absolute_error", rounds=200) > 0.08
    assert rate(lambda seed: regressors(seed, 200, size=5), "mean_absolute_error") <= 0.05 + TOLERANCE


def test_over_many_slices_a_false_alarm_anywhere_is_as_rare() -> None:
    wrong = 0
    for seed in range(ROUNDS):
        ours, theirs = classifiers(seed, 400)
        parts = [
            (str(k), ours.select(here), theirs.select(here))
            for k in range(8)
            if (here := np.arange(400) % 8 == k).any()
        ]
        _, found = compare(ours, theirs, [], FAST, versus="c", slices=parts, slice_names=["accuracy_score"])
        wrong += any(each.answer is not Answer.CANNOT_TELL for each in found)
    assert wrong / ROUNDS <= 0.05 + TOLERANCE


def test_a_model_compared_with_itself_is_never_told_apart() -> None:
    for rows, names in (
        (classified(0, 200), ("accuracy_score", "roc_auc_score", "f1_score", "log_loss")),
        (regressed(0, 200), ("mean_absolute_error", "median_absolute_error", "r2_score", "root_mean_squared_error")),
    ):
        _, found = compare(rows, rows, names, FAST, versus="c")
        assert {each.answer for each in found} == {Answer.CANNOT_TELL}
        assert {each.more_rows for each in found} == {None}


# true differences


@pytest.mark.parametrize("name", ["accuracy_score", "roc_auc_score", "f1_score"])
def test_the_rows_said_to_tell_do_tell_at_the_stated_rate(name: str) -> None:
    """The difference and its spread are read off a large sample; as many rows as computed find it in 80 %, give or take 8."""
    (large,) = differences(*classifiers(10**6, 20_000, gain=0.5), [name], FAST, versus="c")
    needed = rows_needed(20_000, large.measurement.value, large.error, 0.05, 0.8)
    assert needed is not None
    assert 0.72 <= rate(lambda seed: classifiers(seed, needed, gain=0.5), name, rounds=200) <= 0.88


def test_the_groups_said_to_tell_do_tell_at_the_stated_rate() -> None:
    (large,) = differences(*regressors(10**6, 20_000, gain=20, size=5), ["mean_absolute_error"], FAST, versus="c")
    needed = rows_needed(20_000, large.measurement.value, large.error, 0.05, 0.8)
    assert needed is not None
    rows = 5 * math.ceil(needed / 5)
    found = rate(lambda seed: regressors(seed, rows, gain=20, size=5), "mean_absolute_error", rounds=200)
    assert 0.72 <= found <= 0.88


@pytest.mark.parametrize(("gain", "answer"), [(1.5, Answer.BETTER), (-1.5, Answer.WORSE), (0.05, Answer.CANNOT_TELL)])
def test_the_answer_knows_which_way_is_good(gain: float, answer: Answer) -> None:
    names = ("accuracy_score", "roc_auc_score", "log_loss")
    _, found = compare(*classifiers(3, 300, gain=gain), names, FAST, versus="c")
    assert [each.answer for each in found] == [answer] * 3
    assert all(
        (each.more_rows is None) == (answer is not Answer.CANNOT_TELL) or each.more_rows is None for each in found
    )
    assert all(each.detectable is not None and each.detectable > 0 for each in found)


# the tests themselves


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_exact_on_few_rows_and_never_above_exact(gained: int, lost: int) -> None:
    p_value, _ = mcnemar(gained, lost)
    exact = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert 0 <= p_value <= exact
    assert mcnemar(lost, gained)[0] == pytest.approx(p_value)
    if gained + lost < 25:
        assert p_value == exact


def _brute_force_delong(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Covariance of areas from all pairs, as the paper writes it. ``scores``: (models, rows)."""
    ours, others = scores[:, truth == 1], scores[:, truth == 0]
    wins = np.sign(ours[:, :, None] - others[:, None, :]) / 2 + 0.5
    return np.asarray(np.cov(wins.mean(axis=2)) / ours.shape[1] + np.cov(wins.mean(axis=1)) / others.shape[1])


@pytest.mark.parametrize("rounded", [False, True])
def test_delongs_error_is_that_of_all_pairs_and_of_the_jackknife(rounded: bool) -> None:
    """Ties count half. The jackknife leaves one row out at a time."""
    ours, theirs = classifiers(4, 60, gain=0.5)
    assert isinstance(ours, Classified)
    assert isinstance(theirs, Classified)
    scores = np.stack([each.probabilities[:, 1] for each in (ours, theirs) if each.probabilities is not None])
    scores = np.round(scores, 1) if rounded else scores
    pair = [replace(ours, probabilities=np.stack([1 - line, line], axis=1)) for line in scores]
    error = spread(influence("roc_auc_score", pair[0]) - influence("roc_auc_score", pair[1]), None).error
    paper = _brute_force_delong(ours.truth, scores)
    assert error == pytest.approx(math.sqrt(paper[0, 0] + paper[1, 1] - 2 * paper[0, 1]), rel=1e-9)

    def area(keep: np.ndarray) -> float:
        return float(np.subtract(*(roc_auc_score(ours.truth[keep], line[keep]) for line in scores)))

    left_out = [area(np.arange(60) != row) for row in range(60)]
    assert error == pytest.approx(math.sqrt(59 * np.var(left_out)), rel=0.05)


@pytest.mark.parametrize(
    "name",
    ["accuracy_score", "log_loss", "mean_absolute_error", "root_mean_squared_error", "r2_score", "roc_auc_score"],
)
def test_influence_is_what_leaving_a_row_out_changes(name: str) -> None:
    rows: Scored = regressed(0, 400) if "error" in name or name == "r2_score" else classified(0, 400)
    whole, slopes = value(name, rows), influence(name, rows)
    left_out = [value(name, rows.select(np.arange(400) != row)) - whole for row in range(40)]
    np.testing.assert_allclose(left_out, -slopes[:40] / 399, atol=2e-4)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
def test_a_correction_never_lowers_a_p_value_nor_changes_their_order(p_values: list[float | None]) -> None:
    adjusted = holm(p_values)
    known = [(p, q) for p, q in zip(p_values, adjusted, strict=True) if p is not None and q is not None]
    assert [q is None for q in adjusted] == [p is None for p in p_values]
    assert all(p <= q <= 1 for p, q in known)
    assert all(q <= other for (p, q), (above, other) in product(known, known) if p < above)


# grouped and stratified intervals


def _coverage(
    truths: dict[str, float], sample: Callable[[int], Scored], settings: EvaluationSettings
) -> dict[str, float]:
    covered = dict.fromkeys(truths, 0)
    for seed in range(500):  # a true 95 % shows as 93 to 97 %
        for found in measure(sample(seed), tuple(truths), settings):
            covered[found.metric] += found.low <= truths[found.metric] <= found.high
    return {name: count / 500 for name, count in covered.items()}


def test_intervals_of_grouped_rows_cover() -> None:
    """Sixty groups of four, within which rows are alike."""
    large = classifiers(10**6, 200_000, size=4)[0]
    truths = {name: value(name, large) for name in ("accuracy_score", "f1_score", "roc_auc_score")}
    rates = _coverage(truths, lambda seed: classifiers(seed, 240, size=4)[0], FAST)
    assert 0.93 <= rates["accuracy_score"] <= 0.975
    assert 0.93 <= rates["f1_score"] <= 0.975
    assert 0.93 <= rates["roc_auc_score"] <= 0.99  # cautious on purpose: its lower end allows for what was not seen
    spread_ = math.sqrt(0.5)
    truths = {"mean_absolute_error": spread_ * math.sqrt(2 / math.pi)}
    rates = _coverage(truths, lambda seed: regressors(seed, 240, size=4)[0], FAST)
    assert 0.93 <= rates["mean_absolute_error"] <= 0.97


def test_stratified_intervals_cover_where_classes_were_fixed_and_are_no_wider() -> None:
    settings = EvaluationSettings(resamples=200, stratified=True)

    def fixed(seed: int) -> Classified:
        return _scores(np.random.default_rng([seed, 23]), np.repeat([0, 1], [160, 40]), 1.5)

    large = _scores(np.random.default_rng(9), np.repeat([0, 1], [240_000, 60_000]), 1.5)
    truths = {name: value(name, large) for name in ("f1_score", "roc_auc_score", "log_loss")}
    rates = _coverage(truths, fixed, settings)
    assert all(0.93 <= found <= 0.985 for found in rates.values()), rates
    kept, free = (measure(fixed(0), ["f1_score"], each)[0] for each in (settings, FAST))
    assert kept.high - kept.low < (free.high - free.low) * 1.02


def test_fewer_than_five_groups_bound_nothing_much() -> None:
    rows = replace(classified(0, 80), groups=np.arange(80) // 20)
    (found,) = measure(rows, ["accuracy_score"], FAST)
    assert (found.low, found.high) == (0, 1)
    assert "4 groups do not show" in found.method


def test_an_interval_that_few_rows_decide_is_called_approximate() -> None:
    errors = np.full(200, 0.1)
    errors[:2] = 9.0
    few, many = (Regressed(np.arange(200.0), np.arange(200.0) + e) for e in (errors, np.linspace(0.1, 1, 200)))
    assert (
        "approximate: a few rows decide it, as if there were 2"
        in measure(few, ["root_mean_squared_error"], FAST)[0].method
    )
    assert "approximate" not in measure(many, ["root_mean_squared_error"], FAST)[0].method
    assert effective_units(errors**2, None) == pytest.approx(2, abs=0.1)


def test_comparisons_without_data_or_probabilities_cannot_tell() -> None:
    rows = classified(0, 50)
    nothing = rows.select(np.zeros(50, bool))
    blind = replace(rows, probabilities=None)
    for ours, theirs in ((nothing, nothing), (blind, rows)):
        _, found = compare(ours, theirs, ["roc_auc_score"], FAST, versus="c")
        assert found == (Comparison("roc_auc_score", Answer.CANNOT_TELL, n=len(ours)),)


@pytest.fixture(autouse=True)
def _no_warnings_from_ties() -> Iterator[None]:
    with np.errstate(all="raise", under="ignore"):
        yield
