"""What a server says of its models: the limits in force, and of those that were unloaded to make room the same as before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.grpc.model_config_pb2 import ModelConfig

from fairway.bundle.format import Bundle
from fairway.client import connect
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ModelServeSettings, ServeSettings
from fairway.testing.builders import linear_bundle


def bundle(path: Path, name: str) -> Bundle:
    return linear_bundle(path, name=name, weights=np.eye(2), bias=np.zeros(2))


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Room for one of two models."""
    root = tmp_path_factory.mktemp("cold")
    limits = ModelServeSettings(memory_mb=60)
    settings = ServeSettings(port=0, grpc_port=0, memory_mb=100, models={"a": limits, "b": limits})
    with serve([bundle(root / name, name) for name in "ab"], settings=settings) as running:
        yield running


def ask(running: RunningServer, name: str) -> None:
    with connect(running.url) as client:
        assert client.infer(name, {"x": [[1.0, 0.0]]}).version == "1"


def states(running: RunningServer) -> dict[str, str]:
    with connect(running.url) as client:
        return {entry["name"]: entry["state"] for entry in client.index()}


def test_what_was_unloaded_to_make_room_is_described_and_ready_without_being_loaded(cold: RunningServer) -> None:
    ask(cold, "b")  # so that a is unloaded
    with (
        httpx.Client(base_url=cold.url, timeout=20) as http,
        triton_grpc.InferenceServerClient(f"127.0.0.1:{cold.grpc_port}") as grpc,
    ):
        for base in ("/v2/models/{}", "/v2/models/{}/versions/1"):
            for part in ("", "/config", "/ready"):
                warm, other = (http.get(base.format(name) + part) for name in "ba")
                assert (warm.status_code, other.status_code) == (200, 200)
                assert other.json() == {**warm.json(), **_named(other.json(), "a")}
        assert grpc.is_model_ready("a")
        assert grpc.get_model_metadata("a").inputs == grpc.get_model_metadata("b").inputs
        assert grpc.get_model_config("a").config.max_batch_size == grpc.get_model_config("b").config.max_batch_size
    assert states(cold) == {"a": "UNAVAILABLE", "b": "READY"}


def test_a_client_that_asks_for_metadata_first_wakes_it(cold: RunningServer) -> None:
    ask(cold, "b")
    ask(cold, "a")  # lists: the client asks what the model takes
    assert states(cold) == {"a": "READY", "b": "UNAVAILABLE"}


def test_statistics_begin_anew_with_each_load(cold: RunningServer) -> None:
    with httpx.Client(base_url=cold.url, timeout=20) as http:

        def counted(name: str) -> int:
            (found,) = http.get(f"/v2/models/{name}/versions/1/stats").json()["model_stats"]
            return int(found["inference_count"])

        ask(cold, "a")
        assert counted("a") >= 1
        ask(cold, "b")
        assert (counted("a"), counted("b")) == (0, 1)
        every = http.get("/v2/models/stats").json()["model_stats"]
        assert [entry["name"] for entry in every] == ["a", "b"]
        ask(cold, "a")
        assert counted("a") == 1


def _named(answer: dict[str, object], name: str) -> dict[str, object]:
    """What differs between two models that are alike."""
    own: dict[str, object] = {"name": name}
    return own | ({"instance_group": answer["instance_group"]} if "instance_group" in answer else {})


def test_the_configuration_shows_the_limits_of_the_model(tmp_path: Path) -> None:
    limits = ModelServeSettings(
        max_batch=7, max_wait_us=250.0, cache_bytes=10_000, concurrent_batches=3, max_queue_requests=11, priority=3
    )
    settings = ServeSettings(port=0, grpc_port=0, priority_levels=4, models={"limited": limits})
    served = [bundle(tmp_path / name, name) for name in ("limited", "plain")]
    with (
        serve(served, settings=settings) as running,
        triton_grpc.InferenceServerClient(f"127.0.0.1:{running.grpc_port}") as grpc,
    ):
        config: ModelConfig = grpc.get_model_config("limited").config
        assert (config.max_batch_size, config.instance_group[0].count) == (7, 3)
        assert config.response_cache.enable
        batching = config.dynamic_batching
        assert (batching.max_queue_delay_microseconds, batching.default_queue_policy.max_queue_size) == (250, 11)
        assert (batching.priority_levels, batching.default_priority_level) == (4, 3)
        rest = httpx.get(f"{running.url}/v2/models/limited/config").json()
        assert (rest["max_batch_size"], rest["response_cache"]) == (7, {"enable": True})
        plain = grpc.get_model_config("plain").config
        assert not plain.response_cache.enable
        assert plain.dynamic_batching.default_priority_level == 2  # the middle one
