"""The observer counts traffic exactly, features as far as it can keep up, and never gets in the server's way."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from fairway.core.events import Served
from fairway.monitoring.baseline import Baseline
from fairway.monitoring.drift import drift
from fairway.monitoring.metrics import MonitorMetrics
from fairway.monitoring.observer import Observer
from fairway.monitoring.settings import MonitorSettings
from fairway.monitoring.sketches import FeatureSketches
from fairway.monitoring.windows import MAX_UNCOUNTED
from fairway.registry.records import Window
from fairway.rollout.traffic import Traffic
from tests.conftest import Digits
from tests.monitoring.conftest import Watched


class Clock:
    def __init__(self, now: float = 600.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Store:
    """Keeps flushed windows; ``down`` makes it refuse."""

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self.attempts = 0
        self.down = False

    def __call__(self, window: Window) -> None:
        self.attempts += 1
        if self.down:
            raise ConnectionError("the registry is away")
        self.windows.append(window)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def observe(clock: Clock, store: Store, watched: Watched) -> Callable[..., Observer]:
    def make(baseline: Baseline | None = watched.baseline, **settings: float) -> Observer:
        return Observer(
            store,
            replica="a",
            baselines=lambda model, version: baseline,
            settings=MonitorSettings(**settings),  # type: ignore[arg-type]
            clock=clock,
        )

    return make


@pytest.fixture(autouse=True)
def _log_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "fairway.monitoring")


def batch(watched: Watched, x: np.ndarray, *, version: str = "1", latency_ms: float = 2.0) -> Served:
    return Served("digits", version, len(x), {"x": x}, watched.model.infer({"x": x}), [latency_ms] * len(x))


def failure(rows: int = 1) -> Served:
    return Served("digits", "1", rows, {"x": np.zeros((rows, 64), np.float32)}, None, [], errors=rows)


def traffic_of(windows: list[Window]) -> Traffic:
    return Traffic.merged(Traffic.decode(window.traffic) for window in windows)


def test_a_window_has_what_was_served_in_it(
    observe: Callable[..., Observer], watched: Watched, digits: Digits, clock: Clock, store: Store
) -> None:
    observer = observe()
    for start in range(0, 450, 9):
        observer.served(batch(watched, digits.x_test[start : start + 9]))
    observer.served(failure(3))
    observer.tick()
    assert store.windows == []
    clock.now = 660.0
    observer.tick()
    (window,) = store.windows
    assert (window.model, window.version, window.replica) == ("digits", 1, "a")
    assert (window.started_at, window.ended_at) == (600.0, 660.0)
    traffic = Traffic.decode(window.traffic)
    assert (traffic.requests, traffic.errors, traffic.rows) == (453, 3, 453)
    assert traffic.latency_ms(0.5) == 2.0
    expected = watched.window(10, digits.x_test)
    features = watched.baseline.features
    counted = FeatureSketches.decode(window.features, features)
    assert [c.bins for c in counted.counts] == [
        c.bins for c in FeatureSketches.decode(expected.features, features).counts
    ]
    assert not drift(watched.baseline, store.windows).drifted


def test_windows_are_aligned_to_the_clock_and_versions_apart(
    observe: Callable[..., Observer], watched: Watched, digits: Digits, clock: Clock, store: Store
) -> None:
    observer = observe()
    clock.now = 659.0
    observer.served(batch(watched, digits.x_test[:1]))
    observer.served(batch(watched, digits.x_test[:2], version="2"))
    clock.now = 661.0
    observer.served(batch(watched, digits.x_test[:4]))
    clock.now = 1000.0
    observer.tick()
    made = [(w.version, w.started_at, w.ended_at, Traffic.decode(w.traffic).rows) for w in store.windows]
    assert made == [(1, 600.0, 660.0, 1), (2, 600.0, 660.0, 2), (1, 660.0, 720.0, 4)]


def test_a_window_without_traffic_is_not_made(observe: Callable[..., Observer], clock: Clock, store: Store) -> None:
    observer = observe()
    for now in (660.0, 720.0, 780.0):
        clock.now = now
        observer.tick()
    assert store.windows == []


def test_traffic_is_exact_where_features_are_sampled(
    observe: Callable[..., Observer], watched: Watched, digits: Digits, clock: Clock, store: Store
) -> None:
    one = batch(watched, digits.x_test[:100])
    room = sum(array.nbytes for array in (*(one.inputs or {}).values(), *(one.outputs or {}).values()))
    observer = observe(max_queue_mb=3.5 * room / 1e6)
    for _ in range(10):
        observer.served(one)
    observer.tick()
    observer.served(one)
    clock.now = 660.0
    observer.tick()
    counted = FeatureSketches.decode(store.windows[0].features, watched.baseline.features)
    assert traffic_of(store.windows).requests == traffic_of(store.windows).rows == 1100
    assert (counted.rows, counted.skipped) == (400, 700)
    assert drift(watched.baseline, store.windows).sampled_share == pytest.approx(400 / 1100)


def test_features_of_so_many_rows_a_second_are_counted_and_traffic_all(
    observe: Callable[..., Observer], watched: Watched, digits: Digits, clock: Clock, store: Store
) -> None:
    one = batch(watched, digits.x_test[:100])
    observer = observe(max_rows_per_s=200)

    def second(now: float) -> None:
        clock.now = now
        for _ in range(5):
            observer.served(one)

    second(600.0)
    second(600.5)  # room for 100 more
    second(599.0)  # somebody sets the clock back: no room is won, and none is lost
    second(620.0)  # however long it was quiet, room for 200
    clock.now = 660.0
    observer.tick()
    counted = FeatureSketches.decode(store.windows[0].features, watched.baseline.features)
    assert traffic_of(store.windows).rows == 2000
    assert (counted.rows, counted.skipped) == (200 + 100 + 200, 1500)


def test_a_thread_that_does_not_run_costs_no_memory_and_no_count(
    observe: Callable[..., Observer], clock: Clock, store: Store
) -> None:
    observer = observe(max_queue_mb=1e-9)
    event = Served("digits", "1", 1000, {}, {}, [1.0] * 1000)
    batches = 3 * MAX_UNCOUNTED // 1000
    for _ in range(batches):
        observer.served(event)
        observer.served(failure())
    clock.now = 660.0
    observer.tick()
    traffic = traffic_of(store.windows)
    assert (traffic.requests, traffic.errors) == (batches * 1001, batches)
    assert traffic.latencies == batches * 1000


def test_without_a_baseline_traffic_is_kept_and_features_are_not(
    observe: Callable[..., Observer], watched: Watched, digits: Digits, clock: Clock, store: Store
) -> None:
    observer = observe(None)
    observer.served(batch(watched, digits.x_test))
    clock.now = 660.0
    observer.tick()
    assert store.windows[0].features == b""
    assert traffic_of(store.windows).rows == 450


def test_a_flush_that_fails_is_tried_again_later_and_told_once(
    observe: Callable[..., Observer],
    watched: Watched,
    digits: Digits,
    clock: Clock,
    store: Store,
    caplog: pytest.LogCaptureFixture,
) -> None:
    observer = observe()
    store.down = True
    for now in range(600, 1200):
        clock.now = float(now)
        observer.served(batch(watched, digits.x_test[:1]))
        observer.tick()
    assert 5 < store.attempts < 30  # backs off, up to a window
    assert [record.message for record in caplog.records] == ["windows_not_flushed"]
    store.down = False
    clock.now = 1300.0
    observer.tick()
    assert [window.started_at for window in store.windows] == [600.0 + 60 * at for at in range(10)]
    assert traffic_of(store.windows).rows == 600


def test_when_the_registry_stays_away_the_oldest_windows_go_and_are_counted(
    clock: Clock, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    settings = MonitorSettings(max_pending_windows=3)
    observer = Observer(store, replica="a", settings=settings, clock=clock, listener=MonitorMetrics(registry))
    store.down = True
    for at in range(8):
        clock.now = 600.0 + 60 * at
        observer.served(failure())
        observer.tick()
    store.down = False
    observer.close()
    assert [window.started_at for window in store.windows] == [900.0, 960.0, 1020.0]
    assert registry.get_sample_value("fairway_windows_dropped_total") == 5
    assert [r.message for r in caplog.records].count("windows_dropped") == 1


def test_closing_flushes_the_rest_and_ends_the_thread(
    observe: Callable[..., Observer], watched: Watched, digits: Digits, clock: Clock, store: Store
) -> None:
    with observe() as observer:
        clock.now = 630.0
        observer.served(batch(watched, digits.x_test))
    assert [(w.started_at, w.ended_at) for w in store.windows] == [(600.0, 630.0)]
    assert not any(thread.name == "fairway-observer" for thread in threading.enumerate())
    observer.served(batch(watched, digits.x_test))
    observer.close()
    assert len(store.windows) == 1


def test_closing_does_not_wait_for_ever_for_a_flush(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    entered, release = threading.Event(), threading.Event()

    def hang(window: Window) -> None:
        entered.set()
        release.wait()

    observer = Observer(hang, replica="a", settings=MonitorSettings(window_s=0.1), clock=clock)
    observer.start()
    observer.served(failure())
    clock.now += 1
    assert entered.wait(10)
    observer.close(timeout_s=0.01)
    assert [record.message for record in caplog.records] == ["windows_lost"]
    release.set()


def test_nothing_that_goes_wrong_reaches_the_server(
    watched: Watched, digits: Digits, clock: Clock, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(model: str, version: str) -> Baseline:
        raise OSError("disk on fire")

    observer = Observer(store, replica="a", baselines=broken, clock=clock)
    odd = Served("digits", "1", 1, {"x": None}, {"y": 3}, [1.0])  # type: ignore[dict-item]
    for _ in range(3):
        observer.served(odd)
        observer.served(batch(watched, digits.x_test))
        observer.tick()
    clock.now = 660.0
    observer.tick()
    assert traffic_of(store.windows).requests == 3 * 451
    assert [record.message for record in caplog.records] == ["event_not_observed", "no_baseline"]


def test_batches_that_do_not_fit_the_model_do_not_stop_the_others(
    observe: Callable[..., Observer], watched: Watched, digits: Digits, clock: Clock, store: Store
) -> None:
    observer = observe()
    text = np.array([[b"a"]], object)
    for inputs in ({"x": text}, {"x": np.zeros(1)}, {"other": np.zeros((1, 2))}):
        observer.served(Served("digits", "1", 1, inputs, {}, [1.0]))
    observer.served(batch(watched, digits.x_test[:20]))
    clock.now = 660.0
    observer.tick()
    counted = FeatureSketches.decode(store.windows[0].features, watched.baseline.features)
    assert sum(counted.counts[64].bins) == 20
    assert traffic_of(store.windows).requests == 23


def test_many_threads_at_once_lose_no_request(watched: Watched, digits: Digits) -> None:
    store = Store()
    baseline = watched.baseline
    observer = Observer(
        store,
        replica="a",
        baselines=lambda model, version: baseline,
        settings=MonitorSettings(window_s=0.1),
        clock=time.time,
    )
    event = batch(watched, digits.x_test[:5])

    def send() -> None:
        for _ in range(2000):
            observer.served(event)

    with observer:
        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert traffic_of(store.windows).requests == 4 * 2000 * 5
    sketches = [FeatureSketches.decode(w.features, baseline.features) for w in store.windows if w.features]
    assert sum(s.rows + s.skipped for s in sketches) == 4 * 2000 * 5
    assert len({window.started_at for window in store.windows}) == len(store.windows)
