"""One mechanism for all tallied rows: influence, selection, intervals, comparisons."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import beta, binom

from fairway.evaluation.certainty import interval
from fairway.evaluation.difference import differences
from fairway.evaluation.measure import measure
from fairway.evaluation.metrics import quality_metrics
from fairway.evaluation.settings import EvaluationSettings
from fairway.evaluation.tallied import Scale, Sums, Tallied, mean_of
from fairway.evaluation.tasks import detection
from tests.evaluation.tasks import samples

FAST = EvaluationSettings(resamples=200)
TASKS = sorted(samples.ALL)


def repeated(rows: Tallied, counts: np.ndarray) -> Tallied:
    """The same units, each as often as ``counts`` says."""
    chosen = np.repeat(np.arange(rows.units), counts)
    return dataclasses.replace(
        rows,
        blocks={name: block[chosen] for name, block in rows.blocks.items()},
        forms={name: form.select(chosen) for name, form in rows.forms.items()},
        loss=rows.loss[chosen],
        unit_of=None,
    )


@pytest.mark.parametrize("task", [task for task in TASKS if task != "detection"])
def test_influence_is_what_a_unit_more_changes(task: str) -> None:
    """By the difference quotient of one unit among very many."""
    rows = samples.ALL[task](0, 40)
    many = np.full(rows.units, 500)
    more = many.copy()
    more[7] += 1
    one, two = repeated(rows, many), repeated(rows, more)
    for name, form in rows.forms.items():
        found = form.influence(rows)
        assert found is not None
        assert abs(float(found.slopes.sum())) < 1e-6 * max(1.0, float(np.abs(found.slopes).max())) * rows.units
        moved = (two.forms[name].value(two) - one.forms[name].value(one)) * more.sum()
        assert moved == pytest.approx(float(found.slopes[7]), rel=0.01, abs=1e-3), name


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_the_metrics_that_are_listed_for_it(task: str) -> None:
    assert sorted(samples.ALL[task](0, 20).forms) == sorted(quality_metrics(task))


@pytest.mark.parametrize("task", TASKS)
def test_a_selection_is_scored_as_if_it_were_all(task: str) -> None:
    """But that a query is in with all of its rows if any of them is."""
    rows = samples.ALL[task](1, 30)
    mask = np.arange(len(rows)) < len(rows) // 2
    part = rows.select(mask)
    assert len(part) == mask.sum() == len(part.badness()) == len(part.truth) == len(part.predicted)
    np.testing.assert_array_equal(part.badness(), rows.badness()[mask])
    whole, again = rows.select(np.ones(len(rows), bool)), part.select(np.ones(len(part), bool))
    for name, form in rows.forms.items():
        assert whole.forms[name].value(whole) == pytest.approx(form.value(rows))
        assert again.forms[name].value(again) == pytest.approx(part.forms[name].value(part))


@pytest.mark.parametrize("task", TASKS)
def test_badness_is_zero_where_nothing_is_wrong_and_can_be_shown(task: str) -> None:
    rows = samples.ALL[task](2, 30)
    assert (rows.badness() >= 0).all()
    assert 0 <= rows.right().sum() <= len(rows)
    assert all(isinstance(text, str) and len(text) <= 80 for text in rows.said(3))


@pytest.mark.parametrize("task", TASKS)
def test_an_interval_holds_its_value_and_groups_widen_it(task: str) -> None:
    """Rows that come in twos, both the same, are worth half as many."""
    rows = samples.ALL[task](3, 60)
    twice = repeated(rows, np.full(rows.units, 2)) if task != "detection" else _twice_as_many_images(3, 60)
    twins = dataclasses.replace(twice, groups=np.repeat(np.arange(rows.units), 2))
    alone, paired = (measure(each, list(rows.forms), FAST) for each in (twice, twins))
    for one, two in zip(alone, paired, strict=True):
        assert one.low <= one.value <= one.high
        assert two.value == pytest.approx(one.value)
        assert two.high - two.low > 1.15 * (one.high - one.low), one.metric
        assert "groups" in two.method or "exact" in two.method, one.metric


@pytest.mark.parametrize("task", TASKS)
def test_equal_models_are_not_taken_for_equal_with_certainty(task: str) -> None:
    rows = samples.ALL[task](4, 60)
    for found in differences(rows, rows, list(rows.forms), FAST, versus="c"):
        assert found.measurement.value == 0
        assert found.measurement.low < 0 < found.measurement.high
        assert found.p_value is None or found.p_value > 0.9


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_hardly_any_units_give_wide_intervals_and_no_crash(task: str, count: int) -> None:
    rows = samples.ALL[task](5, 20)
    unit = np.arange(rows.units) if rows.unit_of is None else rows.unit_of
    few = rows.select(unit < count)
    for found in measure(few, list(rows.forms), FAST):
        assert found.n == count
        assert not found.error
        assert found.high - found.low > 0.3, found


def _twice_as_many_images(seed: int, count: int) -> Tallied:
    truth, said = samples.boxes(seed, count)
    return detection.tally([each for each in truth for _ in range(2)], [each for each in said for _ in range(2)])


def _mean(values: list[float]) -> Tallied:
    block = np.array(values)[:, None]
    return Tallied("x", {"v": block, "one": np.ones_like(block)}, {"v": mean_of("v")}, 1 - block[:, 0], values, values)


def test_flawless_units_are_bounded_as_a_flawless_share_is() -> None:
    found = interval("v", _mean([1.0] * 40), FAST)
    assert found.ends == pytest.approx((float(beta.ppf(0.025, 40, 1)), 1.0))


def test_a_metric_of_the_middle_has_an_interval_as_wide_as_a_t_interval() -> None:
    """Units that are partly right tell more than all or nothing: the pseudo-units must not drown that."""
    values = 0.5 + 0.02 * np.random.default_rng(0).normal(size=200)
    found = interval("v", _mean(values.tolist()), FAST)
    assert found.ends is not None
    assert found.ends[1] - found.ends[0] == pytest.approx(2 * 1.97 * 0.02 / math.sqrt(200), rel=0.3)


def test_perplexity_that_a_few_rows_decide_is_marked() -> None:
    nll = np.ones((200, 1))
    nll[:3] = 500
    form = Sums(("nll", "one"), lambda a, b: np.exp(a[:, 0] / b[:, 0]), low=1, high=math.inf, scale=Scale.LOG)
    rows = Tallied("x", {"nll": nll, "one": np.ones((200, 1))}, {"p": form}, nll[:, 0], [], [])
    assert "a few rows decide it" in interval("p", rows, FAST).method


# simulated coverage, one of each mechanism: 500 rounds, so a true 95 % shows as 93 to 97 % (two standard errors); the truth is
# that of a large sample

ROUNDS = 500
COVERED = [
    ("token-classification", "entity_f1_score", 150),  # a ratio of sums
    ("ranking", "ndcg_at_10_score", 150),  # a mean over queries
    ("multi-label", "f1_score", 200),  # a mean over labels
    ("multi-label", "average_precision_score", 200),  # an order
    ("embedding", "spearman_correlation_score", 150),
    ("generation", "perplexity", 150),
]


@pytest.mark.parametrize(("task", "name", "rows"), COVERED)
def test_intervals_cover(task: str, name: str, rows: int) -> None:
    sample = _plain(task)
    many = sample(10**6, 100_000)
    truth, covered = many.forms[name].value(many), 0
    for seed in range(ROUNDS):
        found = interval(name, sample(seed, rows), FAST)
        assert found.ends is not None
        covered += found.ends[0] <= truth <= found.ends[1]
    assert 0.93 <= covered / ROUNDS <= 0.97


@pytest.mark.parametrize(("task", "name", "rows"), COVERED)
def test_equal_models_are_seldom_called_different(task: str, name: str, rows: int) -> None:
    """Equally good on units that have nothing in common, which is the hardest case for a paired test."""
    sample, wrong = _plain(task), 0
    for seed in range(ROUNDS):
        both = sample(seed, 2 * rows)
        ours, theirs = _halves(both)
        (found,) = differences(ours, theirs, [name], FAST, versus="c")
        wrong += found.p_value is not None and found.p_value <= 0.05
    assert wrong <= binom.ppf(0.99, ROUNDS, 0.05)  # a true 5 % shows as more in one simulation of a hundred


def _plain(task: str):  # type: ignore[no-untyped-def]
    """The sampler; of sentences and texts their counts alone, since only these matter and making texts is slow."""
    return {"token-classification": _counts, "generation": _losses}.get(task, samples.ALL[task])


def _counts(seed: int, rows: int) -> Tallied:
    rng = np.random.default_rng([seed, 31])
    true = rng.poisson(2.5, rows)
    easy = rng.beta(6.4, 1.6, rows)
    hit = rng.binomial(true, easy)
    said = hit + rng.poisson((1 - easy) * 2.5)
    template = samples.sentences(0, 3)
    blocks = {"hit": hit[:, None], "said": said[:, None], "true": true[:, None]}
    return dataclasses.replace(template, blocks=blocks, loss=np.zeros(rows), truth=true, predicted=said)


def _losses(seed: int, rows: int) -> Tallied:
    rng = np.random.default_rng([seed, 32])
    tokens = rng.integers(3, 30, rows).astype(float)
    template = samples.texts(0, 3)
    blocks = {"nll": (tokens * rng.gamma(4, 0.5, rows))[:, None], "tokens": tokens[:, None]}
    forms = {"perplexity": template.forms["perplexity"]}
    return dataclasses.replace(
        template, blocks=blocks, forms=forms, loss=np.zeros(rows), truth=tokens, predicted=tokens
    )


def _halves(both: Tallied) -> tuple[Tallied, Tallied]:
    unit = np.arange(both.units) if both.unit_of is None else both.unit_of
    return both.select(unit % 2 == 0), both.select(unit % 2 == 1)
