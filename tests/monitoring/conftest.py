"""A watched digits model: its bundle with a baseline, and windows made of chosen rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from fairway.bundle.format import Bundle
from fairway.model import Model
from fairway.monitoring.baseline import Baseline, decode_baseline, make_baseline
from fairway.monitoring.sketches import FeatureSketches
from fairway.registry.records import Window
from fairway.rollout.traffic import Traffic
from tests.conftest import Digits

WINDOW_S = 60.0


class Watched(NamedTuple):
    """A model, and the baseline that its training rows gave."""

    model: Model
    baseline: Baseline

    def window(self, number: int, x: NDArray[np.float32], *, replica: str = "a", errors: int = 0) -> Window:
        """The ``number``-th window, in which ``x`` was asked, one row per request, and ``errors`` more failed."""
        sketches = FeatureSketches(self.baseline.features)
        sketches.update({"x": x}, self.model.infer({"x": x}), len(x))
        traffic = Traffic()
        traffic.add(rows=len(x), latencies_ms=[1.0] * len(x), errors=errors)
        start = number * WINDOW_S
        return Window("digits", 1, replica, start, start + WINDOW_S, traffic.encode(), sketches.encode())


@pytest.fixture
def watched(digits: Digits, digits_bundle: Bundle) -> Iterator[Watched]:
    with Model(digits_bundle) as model:
        yield Watched(model, decode_baseline(make_baseline(model, {"x": digits.x_train})))
