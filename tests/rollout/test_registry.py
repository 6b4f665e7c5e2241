"""Releases on the real registry, with several controllers and people at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from fairway.core.errors import Conflict, GateRefused
from fairway.core.events import Action
from fairway.core.gate import Limit, Outcome
from fairway.registry.records import Window
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from fairway.rollout.changes import promote, rollback, start
from fairway.rollout.controller import step
from fairway.rollout.settings import ReleaseSettings
from fairway.rollout.traffic import Traffic
from fairway.testing.builders import linear_bundle
from tests.rollout.conftest import GOOD

GATE = {"error_rate": Limit(max=0.01), "latency_p99_ms": Limit(max=10.0)}
WRITERS = 6


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Registry]:
    """Versions 1 to 3 of ``linear``; 2 is being tried against 1 since 1000 s."""
    with Registry.open(RegistrySettings(), root=tmp_path) as opened:
        for number in (1, 2, 3):
            opened.register(linear_bundle(tmp_path / f"v{number}", weights=np.eye(2), bias=[number, 0]))
        start(opened, "linear:1", check=GOOD, actor="ann", now=500.0)
        start(opened, "linear:2", check=GOOD, actor="ann", now=1000.0)
        yield opened


def flush(store: Registry, version: int, *, requests: int, errors: int = 0) -> None:
    traffic = Traffic()
    traffic.add(rows=requests, latencies_ms=np.full(requests - errors, 2.0), errors=errors)
    store.add_window(Window("linear", version, "a", 1010.0, 1020.0, traffic.encode(), b""))


def at_once(work: Callable[[int], object]) -> list[object]:
    """What ``work`` returned or raised, in threads that start together."""
    ready = Barrier(WRITERS)

    def run(number: int) -> object:
        ready.wait()
        try:
            return work(number)
        except Conflict as conflict:
            return conflict

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(run, range(WRITERS)))


def actions(store: Registry, action: Action) -> int:
    return sum(event.action is action for event in store.events("linear", limit=1000))


def test_a_good_challenger_is_promoted_by_exactly_one_of_many_controllers(store: Registry) -> None:
    flush(store, 1, requests=9000)
    flush(store, 2, requests=1000)
    flush(store, 2, requests=1000)  # the same window, flushed again, does not count twice
    done = at_once(lambda n: step(store, "linear", GATE, now=1030.0, settings=ReleaseSettings(), actor=str(n)).action)
    assert sorted(map(str, done)) == ["None"] * (WRITERS - 1) + ["promoted"]
    release = store.release("linear")
    assert release is not None
    assert (release.champion, release.challenger, release.previous) == (2, None, 1)
    assert store.aliases("linear")["champion"] == 2
    promoted = store.events("linear", newest=True, limit=1)[0]
    assert promoted.evidence["challenger"]["requests"] == 1000
    assert promoted.evidence["verdict"]["outcome"] == Outcome.PASSED


def test_many_rollbacks_at_once_go_back_one_step(store: Registry) -> None:
    promote(store, "linear", actor="ann")
    start(store, "linear:3", check=GOOD, actor="ann", now=2000.0)
    at_once(lambda n: rollback(store, "linear", actor=str(n)))
    release = store.release("linear")
    assert release is not None
    assert (release.champion, release.challenger) in {(2, None), (1, None)}  # a late one may find the first one done
    assert actions(store, Action.ROLLED_BACK) == (1 if release.champion == 2 else 2)


def test_a_promotion_and_a_rollback_at_once_end_in_one_of_both(store: Registry) -> None:
    at_once(lambda n: (promote if n % 2 else rollback)(store, "linear", actor=str(n)))
    release = store.release("linear")
    assert release is not None
    assert release.challenger is None
    assert release.champion == store.aliases("linear")["champion"]


def test_a_refusal_is_in_the_audit_trail(store: Registry) -> None:
    rollback(store, "linear", actor="ann")
    with pytest.raises(GateRefused, match="no evaluation"):
        start(store, "linear:3", check=None, actor="ann", now=2000.0)
    event = store.events("linear", newest=True, limit=1)[0]
    assert (event.action, event.actor) == (Action.REFUSED, "ann")
    assert event.evidence == {"evaluation": None, "forced": False}
