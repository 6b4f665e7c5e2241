"""A bundle as served, quickly: what the gate limits has an interval after one measurement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairway.core.gate import Limit, judge
from fairway.loop.evaluate import measure
from fairway.testing.builders import linear_bundle


@pytest.mark.parametrize("limited", ["memory_mb", "load_ms"])
def test_what_is_read_once_in_a_process_is_read_in_two_where_the_gate_limits_it(limited: str, tmp_path: Path) -> None:
    bundle = linear_bundle(tmp_path / "m", name="m", weights=np.eye(2), bias=np.zeros(2), columns=("a", "b"))
    gate = {limited: Limit(max=1e9)}
    assert judge(gate, measure(bundle, gate, requests=20)).passed
