"""Scheduling settings and parameters, through a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ModelServeSettings, ServeSettings
from fairway.testing.builders import linear_bundle
from tests.serving.conftest import FEATURES, request_of


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path: Path = tmp_path_factory.mktemp("cached") / "linear"
    return linear_bundle(path, weights=np.ones((FEATURES, 2)), bias=np.zeros(2))


@pytest.fixture(scope="module", params=["fast lane", "starlette"])
def server(bundle: Bundle, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    settings = ServeSettings(
        port=0,
        fast_lane=request.param == "fast lane",
        priority_levels=2,
        models={"linear": ModelServeSettings(cache_bytes=1_000_000, max_batch=3, priority=2)},
    )
    with serve(bundle, settings=settings) as running:
        yield running


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def infer(http: httpx.Client, **more: Any) -> httpx.Response:
    return http.post("/v2/models/linear/infer", json=request_of() | more)


def test_answers_from_the_cache_are_the_same_but_for_the_callers_own_id(
    http: httpx.Client, server: RunningServer
) -> None:
    (served,) = server.core.models.live()
    first, second = infer(http, id="a").json(), infer(http, id="b").json()
    assert (first.pop("id"), second.pop("id")) == ("a", "b")
    assert first == second
    assert served.stats.cache_hits == 1
    assert served.stats.cache_misses == 1
    named = infer(http, outputs=[{"name": "probabilities"}]).json()
    assert named["outputs"] == first["outputs"]
    assert served.stats.cache_hits == 2  # whatever outputs are wanted


def test_answers_from_the_cache_to_pipelined_requests_come_in_order(server: RunningServer) -> None:
    import socket

    body = httpx.Request("POST", server.url, json=request_of()).read()
    head = b"POST /v2/models/linear/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(body)
    many = 300
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall((head + b"\r\n" + body) * (many - 1) + head + b"connection: close\r\n\r\n" + body)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200") == many


def test_limits_of_one_model_reach_its_scheduler(server: RunningServer) -> None:
    (served,) = server.core.models.live()
    assert served.scheduler._settings.max_batch == 3
    assert served.scheduler._settings.default_priority == 2


@pytest.mark.parametrize("priority", [0, 1, 2, 3, 2**63])
def test_any_priority_is_taken(http: httpx.Client, priority: int) -> None:
    assert infer(http, parameters={"priority": priority}).status_code == 200


@pytest.mark.parametrize("priority", [-1, 1.5, "high", True])
def test_what_is_no_priority_is_refused(http: httpx.Client, priority: object) -> None:
    response = infer(http, parameters={"priority": priority})
    assert response.status_code == 400
    assert "1 for the highest" in response.json()["error"]


@pytest.mark.parametrize(
    "wrong", [{"default_priority": 1}, {"priority_levels": 2, "models": {"m": ModelServeSettings(priority=3)}}]
)
def test_a_priority_that_would_do_nothing_is_refused_in_the_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="priority_levels"):
        ServeSettings(**wrong)


@pytest.mark.parametrize("fast_lane", [True, False])
def test_priorities_without_levels_are_ignored_and_the_log_says_so_once(
    bundle: Bundle, fast_lane: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serve(bundle, settings=ServeSettings(port=0, fast_lane=fast_lane)) as running,
        httpx.Client(base_url=running.url, timeout=20) as http,
    ):
        for priority in (0, 1, 2):
            assert infer(http, parameters={"priority": priority}).status_code == 200
    assert [record.message for record in caplog.records].count("priority_ignored") == 1
