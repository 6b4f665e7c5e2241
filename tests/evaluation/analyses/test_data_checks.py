"""Data checks: what is planted is found; what is clean stays quiet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.core.gate import Gate, Limit
from fairway.evaluation.checks.base import Check, Severity
from fairway.evaluation.checks.columns import predictive_power
from fairway.evaluation.checks.duplicates import fingerprints
from fairway.evaluation.checks.noise import suspect_labels
from fairway.evaluation.checks.power import flawless_rows, rows_to_settle
from fairway.evaluation.checks.shift import adversarial_auc
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.intervals import proportion_interval
from fairway.evaluation.report import Report
from fairway.evaluation.settings import EvaluationSettings
from fairway.model import Model
from fairway.sources.tables import make_table
from fairway.testing.builders import linear_bundle
from tests.conftest import Digits

Columns = dict[str, Any]
GRAVE = (Severity.PROBLEM, Severity.WARNING)


@pytest.fixture(scope="module")
def train(digits: Digits) -> Columns:
    columns: Columns = {name: digits.x_train[:, place] for place, name in enumerate(digits.columns)}
    return {**columns, "digit": digits.y_train}


@pytest.fixture(scope="module")
def test(digits: Digits) -> Columns:
    columns: Columns = {name: digits.x_test[:, place] for place, name in enumerate(digits.columns)}
    return {**columns, "digit": digits.y_test}


@pytest.fixture(scope="module")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Report]:
    """Evaluates a logistic regression on scikit-learn's breast cancer data, changed by the test."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    data = load_breast_cancer()
    x = StandardScaler().fit_transform(data.data).astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(
        x, data.target, test_size=0.4, random_state=0, stratify=data.target
    )
    fitted = LogisticRegression(max_iter=1000).fit(x_train, y_train)
    names = tuple(str(name).replace(" ", "_") for name in data.feature_names)
    bundle = linear_bundle(
        tmp_path_factory.mktemp("cancer") / "bundle",
        weights=np.hstack([0 * fitted.coef_.T, fitted.coef_.T]),
        bias=np.array([0, fitted.intercept_[0]]),
        columns=names,
    )

    def run(change: Callable[[Columns, Columns], None] | None = None, gate: Gate | None = None) -> Report:
        ours: Columns = {**{name: x_test[:, i].copy() for i, name in enumerate(names)}, "benign": y_test.copy()}
        theirs: Columns = {**{name: x_train[:, i].copy() for i, name in enumerate(names)}, "benign": y_train.copy()}
        if change is not None:
            change(ours, theirs)
        with Model(bundle) as model:
            return evaluate(
                model,
                make_table(ours),
                label="benign",
                reference=make_table(theirs),
                analyses=("data_checks",),
                gate=gate,
                settings=EvaluationSettings(resamples=100),
            )

    return run


def checks(report: Report) -> dict[str, Check]:
    assert report.analyses.data_checks is not None
    return {each.name: each for each in report.analyses.data_checks}


def grave(report: Report) -> set[str]:
    return {each.name for each in checks(report).values() if each.severity in GRAVE}


def test_clean_data_is_quiet(cancer: Callable[..., Report]) -> None:
    assert grave(cancer()) == set()


def test_digits_are_quiet_too(model: Model, test: Columns, train: Columns) -> None:
    report = evaluate(model, make_table(test), label="digit", reference=make_table(train), analyses=("data_checks",))
    assert grave(report) == set()
    text = report.as_text()
    assert "+ fine: class balance" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "What was looked for in the data" in report.as_html()
    assert type(report).from_json(report.as_json()) == report


def test_rows_of_the_reference_in_the_test_data_are_found(cancer: Callable[..., Report]) -> None:
    def copy(ours: Columns, theirs: Columns) -> None:
        for name in ours:
            ours[name][10:20] = theirs[name][40:50]

    found = checks(cancer(copy))["duplicates in the reference"]
    assert found.severity is Severity.PROBLEM
    assert found.rows == tuple(range(10, 20))


def test_near_copies_are_found(cancer: Callable[..., Report]) -> None:
    def copy(ours: Columns, theirs: Columns) -> None:
        for name in ours:
            if name != "benign":
                ours[name][10:16] = theirs[name][40:46] + 1e-3
        ours["benign"][10:16] = theirs["benign"][40:46]

    found = checks(cancer(copy))
    assert found["duplicates in the reference"].severity is Severity.FINE
    near = found["near duplicates in the reference"]
    assert near.severity is Severity.WARNING
    assert near.rows == tuple(range(10, 16))


def test_repeated_rows_and_conflicting_labels_are_found(cancer: Callable[..., Report]) -> None:
    def repeat(ours: Columns, theirs: Columns) -> None:
        for name in ours:
            ours[name][100:105] = ours[name][:5]
        ours["benign"][100] = 1 - ours["benign"][0]

    found = checks(cancer(repeat))
    assert found["duplicates in the test data"].rows == (100, 101, 102, 103, 104)
    assert found["duplicates in the test data"].severity is Severity.WARNING
    assert found["conflicting labels"].rows == (0, 100)


def test_coincidences_of_few_categories_are_no_leak(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bundle = linear_bundle(
        tmp_path / "b", weights=np.array([[0, 1.0], [0, -1.0]]), bias=np.zeros(2), columns=("a", "b")
    )
    made = [
        {"a": rng.integers(0, 3, n) * 1.0, "b": rng.integers(0, 3, n) * 1.0, "y": rng.integers(0, 2, n)}
        for n in (300, 500)
    ]
    with Model(bundle) as model:
        report = evaluate(
            model, make_table(made[0]), label="y", reference=make_table(made[1]), analyses=("data_checks",)
        )
    assert checks(report)["duplicates in the reference"].severity is Severity.NOTE
    assert checks(report)["conflicting labels"].severity is Severity.NOTE


def test_wrong_labels_are_found(cancer: Callable[..., Report]) -> None:
    wrong = np.arange(0, 228, 16)

    def flip(ours: Columns, theirs: Columns) -> None:
        ours["benign"][wrong] = 1 - ours["benign"][wrong]

    found = checks(cancer(flip))["suspect labels"]
    assert found.severity is Severity.WARNING
    assert len(set(found.rows) & set(wrong.tolist())) >= 8
    assert found.p_value is not None
    assert found.p_value <= 0.01


def test_a_leaking_column_is_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 400)
    columns = {
        "noise": rng.normal(size=400),
        "outcome_code": np.where(truth == 1, rng.uniform(5, 6, 400), rng.uniform(2, 9, 400).round()),
    }
    bundle = linear_bundle(
        tmp_path / "b", weights=np.zeros((2, 2)), bias=np.zeros(2), columns=("noise", "outcome_code")
    )
    with Model(bundle) as model:
        leaking = {**columns, "outcome_code": truth * 2.0 + rng.normal(size=400) * 0.1}
        report = evaluate(model, make_table({**leaking, "y": truth}), label="y", analyses=("data_checks",))
        quiet = {**columns, "outcome_code": truth * 2.0 + rng.normal(size=400)}
        silent = evaluate(model, make_table({**quiet, "y": truth}), label="y", analyses=("data_checks",))
    found = checks(report)["target-leaking columns"]
    assert found.severity is Severity.PROBLEM
    assert found.columns == ("outcome_code",)
    assert checks(silent)["target-leaking columns"].severity is Severity.FINE
    assert checks(report)["shift from the reference"].severity is Severity.SKIPPED


def test_a_column_that_is_no_line_is_seen_through() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=600)
    power = predictive_power(np.stack([x, rng.normal(size=600)], axis=1), (np.abs(x) > 0.7).astype(int), classes=True)
    assert power[0] > 0.95
    assert abs(power[1] - 0.5) < 0.1
    assert predictive_power(x[:, None], x**2, classes=False)[0] > 0.8


def test_constant_columns_and_shift_are_found(cancer: Callable[..., Report]) -> None:
    def change(ours: Columns, theirs: Columns) -> None:
        ours["mean_texture"][:] = 0
        ours["mean_area"] += 1.5

    report = cancer(change)
    found = checks(report)
    assert found["constant columns"].columns == ("mean_texture",)
    assert found["constant columns"].severity is Severity.WARNING
    assert found["shift from the reference"].severity is Severity.WARNING
    assert set(found["shift from the reference"].columns) >= {"mean_texture", "mean_area"}


def test_no_shift_is_rarely_taken_for_one() -> None:
    alarms = 0
    for seed in range(10):
        rng = np.random.default_rng([seed, 61])
        alarms += adversarial_auc(rng.normal(size=(120, 5)), rng.normal(size=(160, 5)), 0.95, seed).above(0.5)
    assert alarms <= 2


def test_too_few_rows_say_how_many_are_needed(cancer: Callable[..., Report]) -> None:
    never = checks(cancer(gate={"accuracy_score": Limit(min=0.99)}))["rows for the gate"]
    assert never.severity is Severity.PROBLEM
    assert "228 rows cannot show 0.99, not even without an error" in never.finding
    assert "At least 368 rows" in never.advice
    assert proportion_interval(368, 368, 0.95)[0] >= 0.99 > proportion_interval(367, 367, 0.95)[0]
    close = checks(cancer(gate={"accuracy_score": Limit(min=0.95)}))["rows for the gate"]
    assert close.severity is Severity.WARNING
    assert "rows would tell in 80% of such tests" in close.advice
    assert checks(cancer(gate={"accuracy_score": Limit(min=0.8)}))["rows for the gate"].severity is Severity.FINE


def test_so_many_rows_do_tell_as_often_as_is_said() -> None:
    from fairway.core.metrics import Measurement

    low, high = proportion_interval(384, 400, 0.95)
    rows = rows_to_settle(Measurement("accuracy_score", 0.96, low, high, n=400), 0.94, 0.8)
    assert rows is not None
    rng = np.random.default_rng(0)
    told = [proportion_interval(int(hits), rows, 0.95)[0] >= 0.94 for hits in rng.binomial(rows, 0.96, 400)]
    assert 0.72 <= np.mean(told) <= 0.92
    assert flawless_rows(0.95, 0.95) == 72


def test_equal_rows_have_equal_fingerprints() -> None:
    table = make_table(
        {"a": [1.0, 1.0, np.nan, np.nan, 0.0, -0.0], "b": ["x", "x", "y", "y", "z", "z"], "v": [[1, 2]] * 6}
    )
    hashes = fingerprints(table, ("a", "b", "v"))
    assert (hashes[::2] == hashes[1::2]).all()
    assert len(np.unique(hashes)) == 3
    as_text = make_table({"a": np.array([0.1], dtype=np.float32)}), make_table({"a": np.array([0.1])})
    assert fingerprints(as_text[0], ("a",)) == fingerprints(as_text[1], ("a",))
    moved = make_table({"a": ["xy", "x"], "b": ["z", "yz"]})
    assert len(np.unique(fingerprints(moved, ("a", "b")))) == 2


def test_near_texts_are_found() -> None:
    from fairway.evaluation.checks.near import alike_texts

    reference = ["the delivery was late and the box was broken", "an excellent phone, I would buy it again any time"]
    test = ["The delivery was late and the box was broken!", "what a nice evening in the old town"]
    assert alike_texts(test, reference).tolist() == [True, False]


def test_only_wrong_labels_are_suspect_where_the_model_is_sure() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 300)
    given = truth.copy()
    given[:12] = (given[:12] + 1) % 3
    odds = np.exp(3 * (np.arange(3) == truth[:, None]) + rng.normal(size=(300, 3)) * 0.3)
    found = suspect_labels(odds / odds.sum(axis=1, keepdims=True), given)
    assert set(found.tolist()) <= set(range(12))
    assert len(found) >= 6  # those whose own class is claimed as surely as is usual
