"""Weak slices: planted ones are found, and data without any give none but by chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from fairway.evaluation.analyses.weak_slices import WeakSlices, search
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.predictions import Classes, Floats, Mask
from fairway.evaluation.report import Report
from fairway.evaluation.settings import EvaluationSettings
from fairway.evaluation.slicing.clusters import clusters
from fairway.evaluation.slicing.confirm import halves, worse_p_value
from fairway.evaluation.slicing.losses import Loss
from fairway.evaluation.slicing.predicates import Predicate, column_predicates
from fairway.model import Model
from fairway.sources.tables import Table, make_table
from fairway.testing.builders import linear_bundle

RUNS = 300


def predicates(numbers: Floats) -> list[Predicate]:
    return [
        each for place, column in enumerate(numbers.T) for each in column_predicates(f"x{place}", column, columns=60)
    ]


def searched(found: Sequence[Predicate], loss: Loss, seed: int, groups: Classes | None = None) -> WeakSlices:
    one, other = halves(len(loss.values), groups, seed)
    return search(found, [loss], one, other, groups, 0.95)


def shares(wrong: Floats, rng: np.random.Generator) -> Loss:
    return Loss("error rate", (rng.random(len(wrong)) < wrong).astype(np.float64), binary=True)


def overlap(found: WeakSlices, planted: Mask, kept: Mask, members: Sequence[Predicate]) -> float:
    """Intersection over union of the planted rows with the likest slice."""
    by_text = {each.text: each.rows for each in members}
    likeness = [0.0]
    for each in found.slices:
        inside = np.logical_and.reduce([by_text[text] for text in each.description.split(" and ")])
        likeness.append(float((inside & planted & kept).sum() / ((inside | planted) & kept).sum()))
    return max(likeness)


@pytest.mark.parametrize("kind", ["share", "long tail", "groups"])
def test_without_weak_slices_at_most_one_search_in_twenty_finds_one(kind: str) -> None:
    alarms = suggested = 0
    for seed in range(RUNS):
        rng = np.random.default_rng([seed, 1])
        rows, groups = 400, None
        numbers = rng.normal(size=(rows, 5))
        if kind == "share":
            loss = shares(np.full(rows, 0.2), rng)
        elif kind == "long tail":
            loss = Loss("log loss", rng.lognormal(sigma=1.0, size=rows))
        else:  # rows of one group share most of their error, and one feature
            groups = np.arange(rows) // 5
            numbers[:, 0] = rng.normal(size=rows // 5)[groups]
            loss = Loss("absolute error", np.abs(2 * rng.normal(size=rows // 5)[groups] + rng.normal(size=rows)))
        found = searched(predicates(numbers), loss, seed, groups)
        alarms += bool(found.slices)
        suggested += bool(found.candidates)
    assert suggested  # how often the other half refutes them is the next test's
    assert alarms <= binom.ppf(0.999, RUNS, 0.05)


@pytest.mark.parametrize("kind", ["share", "long tail", "groups"])
@pytest.mark.parametrize("size", [0.08, 0.3, 0.5])
def test_a_slice_that_is_not_worse_is_confirmed_at_most_as_often_as_the_level_says(kind: str, size: float) -> None:
    runs, rows = 600, 300
    p_values = []
    for seed in range(runs):
        rng = np.random.default_rng([seed, 7])
        groups, inside = None, rng.random(rows) < size
        if kind == "share":
            loss = shares(np.full(rows, 0.2), rng)
        elif kind == "long tail":
            loss = Loss("log loss", rng.lognormal(sigma=1.5, size=rows))
        else:
            groups = np.arange(rows) // 3
            inside = (rng.random(rows // 3) < size)[groups]
            loss = Loss("absolute error", np.abs(2 * rng.normal(size=rows // 3)[groups] + rng.normal(size=rows)))
        p_values.append(worse_p_value(loss, inside, groups))
    for level in (0.05, 0.01):
        assert sum(p <= level for p in p_values) <= binom.ppf(0.999, runs, level)
    assert sum(p <= 0.3 for p in p_values) > 0.1 * runs  # it is no test that never rejects


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("one predicate", lambda x: x[:, 0] > 0.84),
        ("a pair", lambda x: (x[:, 0] > 0.4) & (x[:, 1] <= 0)),
        ("a triple", lambda x: (x[:, 0] > 0) & (x[:, 1] <= 0.4) & (x[:, 2] > 0)),
    ],
)
def test_a_planted_slice_is_found(name: str, planted: object) -> None:
    found, likeness = 0, []
    for seed in range(20):
        rng = np.random.default_rng([seed, 2])
        numbers = rng.normal(size=(3000, 5))
        weak: Mask = planted(numbers)  # type: ignore[operator]
        members = predicates(numbers)
        result = searched(members, shares(np.where(weak, 0.4, 0.08), rng), seed)
        found += bool(result.slices)
        likeness.append(overlap(result, weak, halves(3000, None, seed)[1], members))
    assert found >= 19
    assert np.median(likeness) > 0.6


def test_a_planted_cluster_is_found_and_described() -> None:
    rng = np.random.default_rng(3)
    where = rng.integers(0, 8, 4000)
    points = 6 * rng.normal(size=(8, 4))[where] + rng.normal(size=(4000, 4))
    one, _ = halves(4000, None, 3)
    members = list(clusters(points, one, ("a", "b", "c", "d"), "inputs"))
    found = searched(members, shares(np.where(where == 5, 0.35, 0.08), rng), 3)
    assert len(found.slices) == 1
    assert "of 8 by inputs (" in found.slices[0].description
    assert found.slices[0].where == ""
    assert found.slices[0].inside.value == pytest.approx(0.35, abs=0.08)


def test_a_slice_that_another_explains_is_left_out() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=4000)
    numbers = np.stack([x, x + 0.05 * rng.normal(size=4000), rng.normal(size=4000)], axis=1)
    found = searched(predicates(numbers), shares(np.where(x > 0.84, 0.4, 0.05), rng), 4)
    assert len(found.slices) == 1


def test_two_weak_slices_are_both_found() -> None:
    rng = np.random.default_rng(5)
    numbers = rng.normal(size=(4000, 4))
    wrong = np.where(numbers[:, 0] > 0.84, 0.35, 0.05) + np.where(numbers[:, 1] < -0.84, 0.3, 0)
    described = " ".join(each.description for each in searched(predicates(numbers), shares(wrong, rng), 5).slices)
    assert "x0 >" in described
    assert "x1 ≤" in described


def test_the_halves_share_no_group() -> None:
    groups = np.repeat(np.arange(50), 7)
    one, other = halves(350, groups, 0)
    assert not set(groups[one]) & set(groups[other])
    assert (one ^ other).all()


# -- in a report


@pytest.fixture(scope="module")
def planted() -> Table:
    """Weak where the country, which the model does not see, is it and the age above 60; and where texts are of refunds."""
    rng = np.random.default_rng(6)
    rows = 3000
    x = rng.normal(size=(rows, 2)).astype(np.float32)
    country = np.array(["de", "fr", "it's"], object)[rng.integers(0, 3, rows)]
    age = rng.integers(18, 90, rows)
    words = np.array(["Card", "parcel", "Refund", "shop", "blue", "later"], object)
    text = np.array([" ".join(rng.choice(words, 3)) + f" {n}" for n in range(rows)], object)
    weak = (country == "it's") & (age > 60)
    wrong = rng.random(rows) < np.where(weak, 0.4, np.where([("Refund" in one) for one in text], 0.2, 0.02))
    label = (x[:, 0] > 0).astype(int) ^ wrong
    return make_table({"x": x, "country": country, "age": age, "text": text, "y": label}, origin="test.parquet")


@pytest.fixture(scope="module")
def weak_report(planted: Table, tmp_path_factory: pytest.TempPathFactory) -> Report:
    bundle = linear_bundle(tmp_path_factory.mktemp("weak") / "b", weights=[[-6, 6], [0, 0]], bias=[0, 0])
    with Model(bundle) as model:
        return evaluate(model, planted, label="y", analyses=("weak_slices",))


def test_what_sql_says_is_what_was_found(planted: Table, weak_report: Report) -> None:
    found = weak_report.analyses.weak_slices
    assert found is not None
    described = " ".join(each.description for each in found.slices)
    assert "country = “it's”" in described
    assert "text has the word “refund”" in described
    kept = halves(planted.rows, None, 0)[1]
    said = [each for each in found.slices if each.where]
    assert len(said) >= 2
    for each in said:
        assert int((planted.mask(each.where) & kept).sum()) == each.inside.rows
        assert each.inside.low is not None
        assert each.outside.high is not None
        assert each.inside.value > each.outside.value


def test_it_is_in_the_text_and_on_the_page_and_ready_for_the_settings(weak_report: Report, tmp_path: Path) -> None:
    import tomllib
    from html import unescape

    found = weak_report.analyses.weak_slices
    assert found is not None
    assert found.slices[0].description.split(" and ")[0] in " ".join(weak_report.as_text().split())
    page = weak_report.as_html()
    snippet = unescape(page.split("<code>[[slices]]", 1)[1].split("</code>", 1)[0])
    declared = tomllib.loads("[[slices]]" + snippet)["slices"]
    assert [each["where"] for each in declared] == [each.where for each in found.slices if each.where]
    assert Report.from_json(weak_report.as_json()) == weak_report


def test_nothing_found_is_said_with_what_that_means(table: Table, model: Model) -> None:
    report = evaluate(model, table, label="digit", analyses=("weak_slices",), settings=EvaluationSettings(seed=1))
    assert report.analyses.weak_slices is not None
    assert "does not show that there" in report.as_text()
    assert "Weak slices" in report.as_html()
