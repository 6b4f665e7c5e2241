"""The journal survives any end of the process: whole lines count, half ones do not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.gate import Outcome
from fairway.core.metrics import Measurement
from fairway.optimization.search.journal import (
    Began,
    Event,
    Examined,
    Journal,
    Made,
    Outpaced,
    Plan,
    Probed,
    Round,
    Start,
    Unmade,
    read_journal,
)

POINT: dict[str, str | int | float | bool] = {"weights": "int8", "share": 0.1, "on": True, "threads": 2}
EVENTS: list[Event] = [
    Began(Plan(starts=(Start(POINT),))),
    Made(POINT, "informed", "sha256:1", 5),
    Probed(POINT, 0.5),
    Examined(POINT, 0, Outcome.INCONCLUSIVE, 0.4, "too few rows"),
    Outpaced(POINT, "slower"),
    Unmade({"weights": "float"}, "tpe", "nothing to fuse", blamed="weights"),
    Round(
        ("original", "int8"),
        {"original": (Measurement("latency_p50_ms", 1.0, 0.9, float("inf")),)},
        {"int8": "the server died"},
    ),
]


def written(path: Path) -> bytes:
    journal = Journal(path)
    for event in EVENTS:
        journal.append(event)
    return path.read_bytes()


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    written(tmp_path / "journal.jsonl")
    assert Journal(tmp_path / "journal.jsonl").events == EVENTS


def test_no_file_is_an_empty_journal(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl") == []
    assert Journal(tmp_path / "journal.jsonl").events == []


@settings(max_examples=40)
@given(cut=st.integers(0, 2_000))
def test_killed_anywhere_in_a_line_the_lines_before_it_stay(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cut") / "journal.jsonl"
    content = written(path)
    left = content[: min(cut, len(content))]
    path.write_bytes(left)
    whole = EVENTS[: left.count(b"\n")]
    assert read_journal(path) == whole
    journal = Journal(path)
    journal.append(EVENTS[0])
    assert read_journal(path) == [*whole, EVENTS[0]]


def test_a_line_in_the_middle_that_is_no_event_is_not_passed_over(tmp_path: Path) -> None:
    content = written(tmp_path / "journal.jsonl")
    (tmp_path / "journal.jsonl").write_bytes(content.replace(b'"probed"', b'"guessed"'))
    with pytest.raises(msgspec.DecodeError, match="guessed"):
        read_journal(tmp_path / "journal.jsonl")
