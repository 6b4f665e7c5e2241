"""Windows do not pile up for ever, and none goes that something undecided still needs."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from fairway.core.events import Action
from fairway.registry.forgetting import EVERY_S
from fairway.registry.records import Release, Window
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from tests.registry.conftest import Clock, MakeBundle

DAY_S = 86_400.0
START = 100 * DAY_S


@pytest.fixture
def served(settings: RegistrySettings, clock: Clock, make_bundle: MakeBundle) -> Iterator[Registry]:
    """Two versions, whose windows are kept for three days and 20 at most."""
    bounded = msgspec.structs.replace(settings, keep_windows_days=3.0, max_windows=20)
    clock.now = START
    with Registry.open(bounded, clock=clock) as registry:
        registry.register(make_bundle(0))
        registry.register(make_bundle(1))
        yield registry


def window(at: float, *, version: int = 1, replica: str = "a") -> Window:
    return Window("digits", version, replica, at, at + 60.0, b"traffic", b"features")


def starts(registry: Registry, version: int | None = None) -> list[float]:
    return [(kept.started_at - START) / DAY_S for kept in registry.windows("digits", version)]


def test_windows_go_a_day_at_a_time_when_they_are_too_old(served: Registry, clock: Clock) -> None:
    for day in (0.0, 0.25, 0.75, 1.0, 2.0, 3.0):
        clock.now = START + day * DAY_S
        served.add_window(window(clock.now))
    assert starts(served) == [0.0, 0.25, 0.75, 1.0, 2.0, 3.0]
    clock.now = START + 3.9 * DAY_S
    served.add_window(window(clock.now))
    assert starts(served)[0] == 0.0
    clock.now = START + 4.0 * DAY_S
    served.add_window(window(clock.now))
    assert starts(served) == [1.0, 2.0, 3.0, 3.9, 4.0]


def test_the_oldest_windows_of_a_model_go_when_there_are_too_many(served: Registry, clock: Clock) -> None:
    for n in range(21):
        served.add_window(window(clock.now + n * 60.0, version=1 + n % 2))
    assert len(served.windows("digits")) == 21
    clock.now += EVERY_S
    served.add_window(window(START + 21 * 60.0))
    kept = served.windows("digits")
    assert [w.started_at for w in kept] == [START + n * 60.0 for n in range(3, 22)]


def test_windows_that_a_release_is_decided_on_stay_however_old_and_go_when_it_is(
    served: Registry, clock: Clock
) -> None:
    served.add_window(window(START))
    clock.now = began = START + DAY_S
    opened = served.save_release(
        Release("digits", champion=1, challenger=2, weight=0.5, started_at=began),
        expected=None,
        action=Action.RELEASED,
        actor="test",
    )
    for n in range(30):
        served.add_window(window(began + n * 60.0, version=1 + n % 2))
    clock.now = START + 50 * DAY_S
    served.add_window(window(clock.now))
    assert len(served.windows("digits", since=began)) == 31
    assert starts(served)[0] == 1.0
    served.save_release(
        msgspec.structs.replace(opened, challenger=None, weight=0.0),
        expected=opened.revision,
        action=Action.ROLLED_BACK,
        actor="test",
    )
    clock.now += EVERY_S
    served.add_window(window(clock.now))
    assert starts(served)[0] == 50.0


def test_the_periods_that_are_gone_are_counted_per_version_over_all_replicas(served: Registry, clock: Clock) -> None:
    for n in range(5):
        for replica in ("a", "b"):
            served.add_window(window(START + n * 60.0, replica=replica))
    served.add_window(window(START, version=2))
    assert served.forgotten_periods("digits", 1) == 0
    for later, gone in ((10.0, (5, 1)), (20.0, (6, 1))):
        clock.now = START + later * DAY_S
        served.add_window(window(clock.now))
        assert (served.forgotten_periods("digits", 1), served.forgotten_periods("digits", 2)) == gone


def test_without_limits_every_window_stays(settings: RegistrySettings, clock: Clock, make_bundle: MakeBundle) -> None:
    unbounded = msgspec.structs.replace(settings, keep_windows_days=0.0, max_windows=0)
    with Registry.open(unbounded, clock=clock) as registry:
        registry.register(make_bundle(0))
        for _ in range(3):
            clock.now += 1000 * DAY_S
            registry.add_window(window(clock.now))
        assert len(registry.windows("digits")) == 3
        assert registry.forgotten_periods("digits", 1) == 0


def test_a_registry_made_before_windows_were_forgotten_is_migrated(
    settings: RegistrySettings, clock: Clock, make_bundle: MakeBundle
) -> None:
    from sqlalchemy import create_engine, text

    from fairway.registry.schema import VERSION_TABLE

    with Registry.open(settings, clock=clock) as registry:
        registry.register(make_bundle(0))
        registry.add_window(window(START))
    engine = create_engine(settings.url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE forgotten"))
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0001'"))
    engine.dispose()
    with Registry.open(settings, clock=clock) as registry:
        assert registry.forgotten_periods("digits", 1) == 0
        assert registry.windows("digits") == (window(START),)
