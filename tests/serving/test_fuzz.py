"""A small part of what ``python -m benchmarks.fuzz`` sends, to each kind of server: nothing that comes harms it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("hyperframe", reason="what writes HTTP/2 frames is not installed")
from benchmarks.fuzz.cases import case
from benchmarks.fuzz.drive import drive

SEED = int(os.environ.get("FAIRWAY_FUZZ_SEED", "7"))
REQUESTS = int(os.environ.get("FAIRWAY_FUZZ_REQUESTS", "2000"))


def test_a_case_depends_on_its_seed_and_number_alone() -> None:
    assert [case(1, number) for number in range(300)] == [case(1, number) for number in reversed(range(300))][::-1]
    assert len({str(case(seed, number)) for seed in (1, 2) for number in range(300)}) > 550


@pytest.mark.parametrize(("fast_lane", "workers", "share"), [(True, 1, 0.4), (False, 1, 0.3), (True, 2, 0.3)])
def test_whatever_comes_no_proper_request_suffers_and_nothing_is_left(
    tmp_path: Path, fast_lane: bool, workers: int, share: float
) -> None:
    requests = round(REQUESTS * share)
    outcome = drive(tmp_path / "server", SEED, range(requests), fast_lane=fast_lane, workers=workers)
    assert not outcome.findings, "\n\n".join(f"{found.what}\n{found.cause}" for found in outcome.findings[:5])
    assert outcome.requests == requests
    assert outcome.control > 50
    assert {"json", "binary", "manage", "raw", "http2", "grpc"} <= set(outcome.kinds)
    assert {"200", "400", "404", "grpc 0", "grpc 3"} <= set(outcome.answers)
