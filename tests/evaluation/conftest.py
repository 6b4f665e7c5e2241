"""Rows to score, made from seeds; a small bundle and the table it is scored on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.core.gate import Gate, Limit
from fairway.core.metrics import Measurement
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.predictions import Classified, Regressed
from fairway.evaluation.report import Report
from fairway.evaluation.settings import SliceSettings
from fairway.model import Model
from fairway.sources.tables import Table, make_table
from fairway.testing.builders import linear_bundle
from tests.conftest import Digits

GATE: Gate = {
    "accuracy_score": Limit(min=0.93, max_drop=0.005, slice_min=0.80),
    "log_loss": Limit(max=0.3, max_rise=0.05),
    "latency_p99_ms": Limit(max=10, at_rps=200),
}
SLICES = (SliceSettings("faint <ink>", "ink < 0.28"), SliceSettings("bold", "ink > 0.33"))
EXTRA = (
    Measurement("latency_p50_ms", 0.4, 0.38, 0.43, n=2000, at_rps=200),
    Measurement("latency_p99_ms", 2.1, 1.7, 3.3, n=2000, at_rps=200),
    Measurement.exact("size_mb", 0.0031),
)


def classified(seed: int, rows: int, classes: int = 3, separation: float = 1.5) -> Classified:
    """A classifier's rows: the true class scores ``separation`` standard deviations higher."""
    rng = np.random.default_rng([seed, 11])
    truth = rng.integers(0, classes, rows)
    scores = rng.normal(size=(rows, classes))
    scores[np.arange(rows), truth] += separation
    odds = np.exp(scores)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    return Classified(truth, probabilities.argmax(axis=1), probabilities, tuple(map(str, range(classes))))


def regressed(seed: int, rows: int, noise: float = 0.5) -> Regressed:
    rng = np.random.default_rng([seed, 12])
    truth = rng.normal(size=rows)
    return Regressed(truth, truth + noise * rng.normal(size=rows))


@pytest.fixture(scope="session")
def table(digits: Digits) -> Table:
    columns = {name: digits.x_test[:, place] for place, name in enumerate(digits.columns)}
    return make_table({**columns, "digit": digits.y_test, "ink": digits.x_test.mean(axis=1)}, origin="test.parquet")


@pytest.fixture
def model(digits_bundle: Bundle) -> Iterator[Model]:
    with Model(digits_bundle) as opened:
        yield opened


@pytest.fixture(scope="session")
def report(digits: Digits, table: Table, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Of digits, against a champion that is a little worse."""
    folder: Path = tmp_path_factory.mktemp("report")
    weights, bias = digits.model.coef_.T, digits.model.intercept_
    ours = linear_bundle(folder / "a", name="digits", weights=weights, bias=bias, columns=digits.columns)
    theirs = linear_bundle(folder / "b", name="digits", weights=weights * 0.5, bias=bias * 0, columns=digits.columns)
    with Model(ours) as candidate, Model(theirs) as champion:
        return evaluate(
            candidate,
            table,
            label="digit",
            gate=GATE,
            slices=SLICES,
            champion=champion,
            champion_name="digits:1",
            extra=EXTRA,
        )
