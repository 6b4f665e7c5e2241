"""Importance: what the model uses stands out, what it does not use is nothing, and the cost is bounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairway.evaluation.analyses.base import Subject
from fairway.evaluation.analyses.importance import ANSWERS, Importance, _Part, _patches, _plan, analyse
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.scoring import score_models
from fairway.evaluation.settings import EvaluationSettings
from fairway.model import Model
from fairway.sources.tables import Table, make_table
from fairway.testing.builders import linear_bundle


def measured(model: Model, table: Table, **settings: object) -> Importance:
    [rows] = score_models([model], table, label="y")
    found = analyse(Subject(model, table, "y", rows, (), EvaluationSettings(**settings)))  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.fixture
def two_of_three(tmp_path: Path) -> Model:
    """Uses ``a`` much, ``b`` a little and ``c`` not at all."""
    weights = np.array([[0, 3.0], [0, 1.0], [0, 0.0]])
    return Model(linear_bundle(tmp_path / "b", weights=weights, bias=np.zeros(2), columns=("a", "b", "c")))


def rows_for(seed: int, count: int) -> Table:
    rng = np.random.default_rng([seed, 71])
    x = rng.normal(size=(count, 3))
    truth = (rng.random(count) < 1 / (1 + np.exp(-(3 * x[:, 0] + x[:, 1])))).astype(int)
    return make_table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": truth})


def test_features_come_in_the_order_that_the_model_uses_them(two_of_three: Model) -> None:
    found = measured(two_of_three, rows_for(0, 800))
    assert [each.name for each in found.features] == ["a", "b", "c"]
    assert [each.matters for each in found.features] == [True, True, False]
    assert found.features[2].rise.value == pytest.approx(0, abs=1e-12)
    assert found.loss == "log loss"


def test_it_is_that_of_scikit_learn(two_of_three: Model) -> None:
    from sklearn.inspection import permutation_importance
    from sklearn.linear_model import LogisticRegression

    table = rows_for(1, 1500)
    x = np.stack([table.column(name) for name in "abc"], axis=1)
    same = LogisticRegression().fit(x, table.column("y"))
    same.coef_, same.intercept_ = np.array([[3.0, 1.0, 0.0]]), np.zeros(1)
    theirs = permutation_importance(same, x, table.column("y"), scoring="neg_log_loss", n_repeats=5, random_state=0)
    ours = {each.name: each.rise for each in measured(two_of_three, table).features}
    for place, name in enumerate("abc"):
        assert ours[name].value == pytest.approx(theirs.importances_mean[place], rel=0.15, abs=0.01)


def test_the_intervals_cover_the_true_rise(two_of_three: Model) -> None:
    whole = {each.name: each.rise.value for each in measured(two_of_three, rows_for(99, 2000), seed=1).features}
    covered = 0
    for seed in range(30):
        rise = {each.name: each.rise for each in measured(two_of_three, rows_for(seed, 250)).features}["b"]
        covered += (rise.low or 0) <= whole["b"] <= (rise.high or 0)
    assert covered >= 24  # of 28, and the "true" one is an estimate of 2,000 rows itself


def test_the_number_of_answers_is_bounded() -> None:
    for features in (2, 64, 700, 5_000):
        for rows in (50, 450, 100_000):
            parts = [_Part(str(n), "x", np.array([n])) for n in range(features)]
            count, repeats, made, note = _plan(rows, parts, ANSWERS)
            assert count * repeats * len(made) <= 1.01 * ANSWERS
            assert 1 <= repeats <= 5
            elements = [part.elements for part in made if part.elements is not None]
            assert sorted(np.concatenate(elements).tolist()) == list(range(features))
            assert bool(note) == (len(made) < features)


def test_an_image_is_shuffled_in_patches() -> None:
    parts = list(_patches("image", (3, 32, 48)))
    assert len(parts) == 16
    assert parts[0].name == "image 0–7, 0–11"
    every = np.concatenate([part.elements for part in parts if part.elements is not None])
    assert sorted(every.tolist()) == list(range(3 * 32 * 48))


def test_it_is_in_the_report(model: Model, table: Table) -> None:
    report = evaluate(model, table, label="digit", analyses=("importance",))
    assert report.analyses.importance is not None
    assert len(report.analyses.importance.features) == 64
    assert "rise of the log loss" in report.as_text()
    assert "Feature importance" in report.as_html()
    assert type(report).from_json(report.as_json()) == report
