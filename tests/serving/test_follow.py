"""A server follows its registry: hot swaps, releases, failures and outages."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidBundle, ModelNotFound, RegistryUnavailable
from fairway.core.events import Action
from fairway.registry.records import Release, Version
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings
from fairway.testing.builders import linear_bundle

FAST = ServeSettings(port=0, poll_s=0.01)
INFER = "/v2/models/linear/infer"
BODY: dict[str, Any] = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [0.0]}]}


def bundle_saying(path: Path, version: int) -> Bundle:
    """Answers every row with class ``version - 1``: so an answer proves who gave it."""
    bias = np.zeros(8)
    bias[version - 1] = 50.0
    return linear_bundle(path, weights=np.zeros((1, 8)), bias=bias)


def who(answer: dict[str, Any]) -> int:
    return int(np.argmax(answer["outputs"][0]["data"])) + 1


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(RegistrySettings(), root=tmp_path) as opened:
        for version in (1, 2, 3):
            opened.register(bundle_saying(tmp_path / f"b{version}", version))
        opened.set_alias("linear", "champion", 1, actor="test")
        yield opened


@pytest.fixture
def server(registry: Registry, tmp_path: Path) -> Iterator[RunningServer]:
    with serve(registry=registry, settings=FAST, cache_dir=tmp_path / "cache") as running:
        yield running


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


@contextmanager
def serving(*refs: str, registry: Any, cache: Path) -> Iterator[httpx.Client]:
    with (
        serve(refs, registry=registry, settings=FAST, cache_dir=cache) as server,
        httpx.Client(base_url=server.url, timeout=20) as http,
    ):
        yield http


def until(condition: Callable[[], object], what: str) -> None:
    """Poll with a bound; the thing waited for is asynchronous by design."""
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up, what
        threading.Event().wait(0.005)


def answers(http: httpx.Client, **headers: str) -> int:
    response = http.post(INFER, json=BODY, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert answer["model_version"] == str(who(answer))
    return who(answer)


def test_the_alias_moves_and_the_server_follows(registry: Registry, http: httpx.Client) -> None:
    assert answers(http) == 1
    registry.set_alias("linear", "champion", 2, actor="test")
    until(lambda: answers(http) == 2, "the new champion answers")
    until(lambda: http.post("/v2/models/linear/versions/1/infer", json=BODY).status_code == 404, "the old one is gone")


def test_a_hundred_clients_notice_nothing_while_the_alias_moves_ten_times(
    registry: Registry, server: RunningServer
) -> None:
    """No request fails, and each is answered by exactly one version: the data must be that version's."""
    enough = threading.Event()
    lock = threading.Lock()
    seen: Counter[int] = Counter()

    def client() -> int:
        sent = 0
        with httpx.Client(base_url=server.url, timeout=60, verify=False) as http:
            while not enough.is_set():
                version = answers(http)
                sent += 1
                with lock:
                    seen[version] += 1
        return sent

    with ThreadPoolExecutor(100) as pool:
        clients = [pool.submit(client) for _ in range(100)]
        try:
            for move in range(10):
                champion = (2, 3, 1)[move % 3]
                registry.set_alias("linear", "champion", champion, actor="test")
                before = seen[champion]
                until(lambda c=champion, b=before: seen[c] > b or any(f.done() for f in clients), "it answers")  # type: ignore[misc]
        finally:
            enough.set()
        assert sum(future.result() for future in clients) == seen.total()
    assert set(seen) == {1, 2, 3}


def test_a_release_splits_callers_by_key_and_keeps_each_with_one_version(
    registry: Registry, http: httpx.Client
) -> None:
    release = Release("linear", champion=1, challenger=2, weight=0.5)
    current = registry.release("linear")
    saved = registry.save_release(
        release, expected=current.revision if current else None, action=Action.RELEASED, actor="test"
    )
    until(lambda: http.get("/v2/models/linear/versions/2/ready").status_code == 200, "the challenger is loaded")
    until(lambda: {answers(http) for _ in range(20)} == {1, 2}, "both answer")
    by_key = {key: answers(http, fairway_route_key=key) for key in map(str, range(30))}
    assert set(by_key.values()) == {1, 2}
    for key, version in by_key.items():
        assert answers(http, fairway_route_key=key) == version
    promoted = Release("linear", champion=2, previous=1)
    registry.save_release(promoted, expected=saved.revision, action=Action.PROMOTED, actor="test")
    until(lambda: {answers(http) for _ in range(20)} == {2}, "the promoted one answers alone")


class Wrapped:
    """The real registry, with faults."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.down = False
        self.broken: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        if self.down:
            raise RegistryUnavailable("pulled the plug")
        return getattr(self._registry, name)

    def fetch(self, version: Version, cache_dir: Path) -> Bundle:
        if version.number in self.broken:
            raise InvalidBundle("truncated on its way")
        return self._registry.fetch(version, cache_dir)


def test_a_load_that_fails_leaves_the_old_version_serving_and_says_why(registry: Registry, tmp_path: Path) -> None:
    wrapped = Wrapped(registry)
    wrapped.broken = {2}
    with serving(registry=wrapped, cache=tmp_path / "c") as http:
        registry.set_alias("linear", "champion", 2, actor="test")
        entry = {"name": "linear", "version": "2", "state": "UNAVAILABLE", "reason": "truncated on its way"}
        until(lambda: entry in http.post("/v2/repository/index").json(), "the index says why")
        assert answers(http) == 1
        response = http.post("/v2/models/linear/versions/2/infer", json=BODY)
        assert response.status_code == 503
        assert "truncated on its way" in response.json()["error"]
        wrapped.broken = set()
        until(lambda: answers(http) == 2, "it is tried again, and works")


def test_where_the_champion_cannot_be_loaded_the_canary_does_not_get_all_its_callers(
    registry: Registry, tmp_path: Path
) -> None:
    current = registry.release("linear")
    release = Release("linear", champion=1, challenger=2, weight=0.05)
    registry.save_release(release, expected=current.revision if current else None, action=Action.RELEASED, actor="test")
    wrapped = Wrapped(registry)
    wrapped.broken = {1}
    with serving(registry=wrapped, cache=tmp_path / "c") as http:
        response = http.post("/v2/models/linear/infer", json=BODY)
        assert response.status_code == 503
        assert "truncated on its way" in response.json()["error"]
        assert http.post("/v2/models/linear/versions/2/infer", json=BODY).status_code == 200
        wrapped.broken = set()
        until(lambda: http.post("/v2/models/linear/infer", json=BODY).status_code == 200, "the champion is there")


def test_while_the_registry_is_out_of_reach_what_is_live_stays_live(registry: Registry, tmp_path: Path) -> None:
    wrapped = Wrapped(registry)
    with serving(registry=wrapped, cache=tmp_path / "c") as http:
        wrapped.down = True
        registry.set_alias("linear", "champion", 3, actor="test")
        for _ in range(20):
            assert answers(http) == 1
        assert http.get("/v2/health/ready").status_code == 200
        wrapped.down = False
        until(lambda: answers(http) == 3, "it catches up")


def test_what_is_asked_for_by_name_must_exist(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nothing"):
        serve("nothing", registry=registry, settings=FAST, cache_dir=tmp_path / "c")
    wrapped = Wrapped(registry)
    wrapped.broken = {1}
    with pytest.raises(InvalidBundle, match="truncated"):
        serve(registry=wrapped, settings=FAST, cache_dir=tmp_path / "c")


def test_references_pin_a_version_or_follow_an_alias(registry: Registry, tmp_path: Path) -> None:
    registry.set_alias("linear", "staging", 2, actor="test")
    with serving("linear@staging", registry=registry, cache=tmp_path / "c") as http:
        assert answers(http) == 2
        registry.set_alias("linear", "staging", 3, actor="test")
        until(lambda: answers(http) == 3, "the alias is followed")
    with serving("linear:2", "linear:1", registry=registry, cache=tmp_path / "c") as http:
        assert answers(http) == 2
        assert http.post("/v2/models/linear/versions/1/infer", json=BODY).json()["model_version"] == "1"


def test_a_server_says_that_it_lives_and_what_it_serves_until_it_stops(registry: Registry, tmp_path: Path) -> None:
    with serve(registry=registry, settings=FAST, cache_dir=tmp_path / "c") as server:
        (replica,) = registry.replicas()
        assert (replica.url, replica.models) == (server.url, ("linear:1",))
        registry.set_alias("linear", "champion", 2, actor="test")
        until(lambda: registry.replicas()[0].models == ("linear:2",), "the heartbeat follows")
    assert registry.replicas() == ()


class Counted(Wrapped):
    """Notes who was fetched."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.fetched: list[int] = []

    def fetch(self, version: Version, cache_dir: Path) -> Bundle:
        bundle = super().fetch(version, cache_dir)
        self.fetched.append(version.number)
        return bundle


def test_a_version_that_is_registered_is_fetched_before_it_is_released(registry: Registry, tmp_path: Path) -> None:
    counted, cache = Counted(registry), tmp_path / "c"
    with serving(registry=counted, cache=cache) as http:
        until(lambda: counted.fetched == [1, 3], "the newest is fetched once the champion answers")
        registry.register(bundle_saying(tmp_path / "b4", 4))
        until(lambda: counted.fetched == [1, 3, 4], "and so is one that is registered meanwhile")
        registry.set_alias("linear", "staging", 2, actor="test")
        until(lambda: counted.fetched == [1, 3, 4, 2], "and one that an alias names")
        assert answers(http) == 1
        ready = {entry["version"] for entry in http.post("/v2/repository/index").json()}
        assert ready == {"1"}  # near, not loaded
        shutil.rmtree(tmp_path / ".fairway" / "blobs")  # nothing is read from afar any more
        registry.set_alias("linear", "champion", 4, actor="test")
        until(lambda: answers(http) == 4, "it answers from what was fetched")


def test_a_version_that_cannot_be_fetched_ahead_troubles_nobody(registry: Registry, tmp_path: Path) -> None:
    wrapped = Wrapped(registry)
    wrapped.broken = {3}
    with serving(registry=wrapped, cache=tmp_path / "c") as http:
        assert answers(http) == 1
        wrapped.broken = set()
        registry.set_alias("linear", "champion", 3, actor="test")
        until(lambda: answers(http) == 3, "it is fetched when it is released")


def test_a_server_that_stops_waits_for_nothing_that_is_fetched_ahead(registry: Registry, tmp_path: Path) -> None:
    begun, enough = threading.Event(), threading.Event()

    class Slow(Wrapped):
        def fetch(self, version: Version, cache_dir: Path) -> Bundle:
            if version.number == 3:
                begun.set()
                enough.wait()
            return super().fetch(version, cache_dir)

    try:
        with serving(registry=Slow(registry), cache=tmp_path / "c") as http:
            assert begun.wait(20)
            assert answers(http) == 1
        (thread,) = (each for each in threading.enumerate() if each.name == "fairway-prefetch")
        assert thread.daemon  # nor does the process
    finally:
        enough.set()
    thread.join(20)


@pytest.mark.parametrize(
    ("refs", "settings"),
    [
        pytest.param((), msgspec.structs.replace(FAST, prefetch=False), id="switched off"),
        pytest.param(("linear:1",), FAST, id="pinned"),
    ],
)
def test_nothing_is_fetched_ahead(
    registry: Registry, tmp_path: Path, refs: tuple[str, ...], settings: ServeSettings
) -> None:
    counted = Counted(registry)
    with serve(refs, registry=counted, settings=settings, cache_dir=tmp_path / "c"):
        changed = time.time()
        registry.set_alias("linear", "staging", 2, actor="test")
        until(lambda: registry.replicas()[0].seen_at > changed, "the change was seen, and what follows from it done")
    assert counted.fetched == [1]
