"""What servers report: windows that never count twice, and heartbeats."""

from __future__ import annotations

import msgspec
import pytest

from fairway.core.errors import ModelNotFound
from fairway.registry.records import Replica, Window
from fairway.registry.store import Registry
from tests.registry.conftest import MakeBundle

WINDOW = Window("digits", 1, "host:1", 60.0, 120.0, b"\x00traffic", b"\xfffeatures")


@pytest.fixture
def served(registry: Registry, make_bundle: MakeBundle) -> Registry:
    registry.register(make_bundle(0))
    registry.register(make_bundle(1))
    return registry


def test_a_window_comes_back_as_it_was(served: Registry) -> None:
    exact = msgspec.structs.replace(WINDOW, started_at=0.1 + 0.2, ended_at=1e9 + 1e-6)
    served.add_window(exact)
    assert served.windows("digits") == (exact,)


def test_a_window_sent_again_counts_once_and_stays_as_it_was(served: Registry) -> None:
    served.add_window(WINDOW)
    served.add_window(WINDOW)
    served.add_window(msgspec.structs.replace(WINDOW, traffic=b"other"))
    assert served.windows("digits") == (WINDOW,)


def test_windows_are_found_by_version_and_time(served: Registry) -> None:
    windows = [
        msgspec.structs.replace(WINDOW, version=version, started_at=60.0 * n, ended_at=60.0 * (n + 1))
        for n in range(3)
        for version in (1, 2)
    ]
    for window in reversed(windows):
        served.add_window(window)
    assert sorted(w.started_at for w in served.windows("digits")) == [w.started_at for w in served.windows("digits")]
    assert [w.started_at for w in served.windows("digits", 2)] == [0.0, 60.0, 120.0]
    assert [w.started_at for w in served.windows("digits", 2, since=60.0)] == [60.0, 120.0]
    assert served.windows("letters") == ()


def test_a_window_of_an_unknown_version_is_refused(served: Registry) -> None:
    with pytest.raises(ModelNotFound):
        served.add_window(msgspec.structs.replace(WINDOW, version=9))


def test_windows_and_heartbeats_do_not_disturb_those_who_follow_the_revision(served: Registry) -> None:
    before = served.revision()
    served.add_window(WINDOW)
    served.heartbeat(Replica("a", "http://a", (), 1.0))
    assert served.revision() == before


def test_a_replica_is_where_it_last_said_it_is(served: Registry) -> None:
    served.heartbeat(Replica("b", "http://b:1", (), 10.0))
    served.heartbeat(Replica("a", "http://a:1", ("digits:1",), 10.0))
    moved = Replica("a", "http://a:2", ("digits:1", "digits:2"), 20.0)
    served.heartbeat(moved)
    assert served.replicas() == (moved, Replica("b", "http://b:1", (), 10.0))
    assert served.replicas(seen_since=10.0) == (moved,)
    served.remove_replica("b")
    served.remove_replica("never seen")
    assert served.replicas() == (moved,)


def test_a_replica_that_was_killed_is_forgotten_after_a_day(served: Registry) -> None:
    served.heartbeat(Replica("killed", "http://k:1", (), 1000.0))
    served.heartbeat(Replica("alive", "http://a:1", (), 1000.0 + 86_000))
    assert {replica.id for replica in served.replicas()} == {"killed", "alive"}
    served.heartbeat(Replica("alive", "http://a:1", (), 1000.0 + 87_000))
    assert {replica.id for replica in served.replicas()} == {"alive"}
