"""All of the V2 surface but inference, asked by the field's own client: both lanes answer alike."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidRequest, NotEnabled, RequestTooLarge
from fairway.core.tensors import Datatype
from fairway.serving import logs
from fairway.serving.app import RunningServer, serve
from fairway.serving.log_settings import LogSettings
from fairway.serving.settings import ServeSettings
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.tracing import TraceSettings
from fairway.serving.transports.v2 import Region
from tests.serving.conftest import CLASSES, FEATURES, request_of


@pytest.fixture(scope="module", params=["fast lane", "starlette"])
def open_server(request: pytest.FixtureRequest, bundles: tuple[Bundle, ...]) -> Iterator[RunningServer]:
    """Model control and shared memory on."""
    settings = ServeSettings(
        port=0, fast_lane=request.param == "fast lane", model_control=True, shared_memory=True, max_body_bytes=2**20
    )
    with serve(bundles, settings=settings) as running:
        yield running


@pytest.fixture
def client(open_server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(open_server.url.removeprefix("http://")) as found:
        yield found


@pytest.fixture
def web(open_server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=open_server.url, timeout=20) as found:
        yield found


@pytest.fixture
def closed(http: httpx.Client) -> httpx.Client:
    """Of a server with its default settings."""
    return http


def expect(response: httpx.Response, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    assert all(word in response.json()["error"] for word in words), response.text


# -- server and models


def test_the_server_names_itself_and_its_extensions(client: triton.InferenceServerClient, closed: httpx.Client) -> None:
    metadata = client.get_server_metadata()
    assert metadata["name"] == "fairway"
    assert {"statistics", "system_shared_memory", "model_configuration", "binary_tensor_data"} <= set(
        metadata["extensions"]
    )
    assert closed.get("/v2").json() == closed.get("/v2/").json()
    assert "system_shared_memory" not in closed.get("/v2").json()["extensions"]


def test_health_and_readiness(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", "1")
    assert not client.is_model_ready("nope")
    assert not client.is_model_ready("linear", "9")


def test_readiness_of_an_absent_model_is_a_400_and_elsewhere_it_is_a_404(web: httpx.Client) -> None:
    expect(web.get("/v2/models/nope/ready"), 400, "nope", "linear:1")
    for path in ("", "/config", "/stats", "/trace/setting", "/versions/9", "/versions/9/config", "/versions/9/stats"):
        expect(web.get(f"/v2/models/{'linear' if 'versions' in path else 'nope'}{path}"), 404, "linear:1")


def test_metadata_and_configuration_agree(client: triton.InferenceServerClient) -> None:
    metadata, config = client.get_model_metadata("linear"), client.get_model_config("linear", "01")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, FEATURES]}]
    assert (config["name"], config["platform"], config["backend"]) == ("linear", "onnxruntime_onnx", "onnxruntime")
    assert config["max_batch_size"] == 64
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [FEATURES]}]
    assert config["output"] == [{"name": "probabilities", "data_type": "TYPE_FP32", "dims": [CLASSES]}]
    assert config["version_policy"] == {"specific": {"versions": [1]}}
    assert "dynamic_batching" in config
    assert config["instance_group"][0]["kind"] == "KIND_CPU"


def test_a_configuration_is_one_to_triton(client: triton.InferenceServerClient) -> None:
    from google.protobuf.json_format import ParseDict
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    for name in ("linear", "every", "free"):
        parsed = ParseDict(client.get_model_config(name), ModelConfig())
        assert parsed.name == name
        assert all(list(tensor.dims) for tensor in parsed.input)


def test_names_may_be_percent_encoded(web: httpx.Client) -> None:
    for path in ("", "/config", "/stats", "/ready", "/trace/setting"):
        assert web.get(f"/v2/models/l%69near{path}").status_code == 200


def test_the_index_lists_versions_as_a_top_level_array(client: triton.InferenceServerClient, web: httpx.Client) -> None:
    index = client.get_model_repository_index()
    assert {"name": "linear", "version": "1", "state": "READY", "reason": ""} in index
    assert web.post("/v2/repository/index", json={"ready": True}).json() == index
    expect(web.post("/v2/repository/index", json={"ready": "yes"}), 400, "ready")


# -- statistics


def stats(client: triton.InferenceServerClient, name: str = "linear") -> dict[str, Any]:
    (found,) = client.get_inference_statistics(name)["model_stats"]
    return dict(found)


def infer(client: triton.InferenceServerClient, rows: int) -> None:
    tensor = triton.InferInput("x", [rows, FEATURES], "FP32")
    tensor.set_data_from_numpy(np.full((rows, FEATURES), 0.5, np.float32))
    client.infer("linear", [tensor])


def test_statistics_count_rows_requests_and_true_times(client: triton.InferenceServerClient) -> None:
    before = stats(client)
    for rows in (1, 3, 3):
        infer(client, rows)
    after = stats(client)
    assert after["inference_count"] - before["inference_count"] == 7
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["last_inference"] >= before["last_inference"]
    own = {
        part: after["inference_stats"][part]["ns"] - before["inference_stats"][part]["ns"]
        for part in after["inference_stats"]
    }
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 3
    assert min(own["queue"], own["compute_infer"]) > 0
    assert own["queue"] + own["compute_input"] + own["compute_infer"] + own["compute_output"] <= own["success"]
    batches = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in after["batch_stats"]}
    assert {1, 3} <= set(batches)
    assert sum(batches.values()) == after["execution_count"]


def test_a_request_that_is_cut_is_one_success(client: triton.InferenceServerClient) -> None:
    before = stats(client)
    infer(client, 150)  # the most of a batch is 64
    after = stats(client)
    assert after["inference_count"] - before["inference_count"] == 150
    assert after["execution_count"] - before["execution_count"] == 3
    own = {part: after["inference_stats"][part] for part in after["inference_stats"]}
    assert own["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
    assert (
        sum(own[part]["ns"] for part in ("queue", "compute_input", "compute_infer", "compute_output"))
        <= own["success"]["ns"]
    )


def test_what_is_refused_at_the_door_is_neither_success_nor_fail(
    client: triton.InferenceServerClient, web: httpx.Client
) -> None:
    before = stats(client)["inference_stats"]
    assert web.post("/v2/models/linear/infer", json=request_of(shape=[1, 9])).status_code == 400
    after = stats(client)["inference_stats"]
    assert (after["success"], after["fail"]) == (before["success"], before["fail"])


def test_statistics_of_all_models_come_before_a_model_named_stats(client: triton.InferenceServerClient) -> None:
    found = client.get_inference_statistics()["model_stats"]
    assert {"linear", "every", "free"} <= {entry["name"] for entry in found}
    (one,) = client.get_inference_statistics("linear", "1")["model_stats"]
    assert one["version"] == "1"


# -- models


def files_of(bundle: Bundle) -> dict[str, bytes]:
    return {
        f"file:{path.relative_to(bundle.path).as_posix()}": path.read_bytes()
        for path in bundle.path.rglob("*")
        if path.is_file()
    }


def test_a_model_is_unloaded_and_loaded_again(client: triton.InferenceServerClient) -> None:
    client.unload_model("free")
    assert not client.is_model_ready("free")
    client.load_model("free")
    assert client.is_model_ready("free")
    client.unload_model("nobody knows it")


def test_a_model_is_loaded_with_a_configuration(client: triton.InferenceServerClient) -> None:
    client.load_model("free", config=json.dumps({"max_batch_size": 4}))
    assert client.is_model_ready("free")


def test_a_model_is_loaded_from_files_that_come_along(
    client: triton.InferenceServerClient, bundles: tuple[Bundle, ...]
) -> None:
    client.load_model("linear", config="{}", files=files_of(bundles[0]))
    infer(client, 1)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"config": "{"}, ("config", "JSON")),
        ({"config": "[]"}, ("config", "object")),
        ({"config": {}}, ("config",)),
        ({"file:1/model.onnx": "AAAA"}, ("config",)),
        ({"config": "{}", "file:1/model.onnx": "not base64!"}, ("base64",)),
        ({"config": "{}", "file:../model.onnx": "AAAA"}, ("file:1/model.onnx",)),
        ({"config": "{}", "file:/etc/passwd": "AAAA"}, ("file:1/model.onnx",)),
        ({"configuration": "{}"}, ("configuration",)),
    ],
)
def test_a_wrong_load_says_what_is_wrong_and_changes_nothing(
    web: httpx.Client, parameters: dict[str, Any], words: tuple[str, ...]
) -> None:
    expect(web.post("/v2/repository/models/linear/load", json={"parameters": parameters}), 400, *words)
    assert web.get("/v2/models/linear/ready").status_code == 200


def test_success_bodies_are_empty(web: httpx.Client) -> None:
    for path in ("repository/models/nope/unload", "systemsharedmemory/unregister", "cudasharedmemory/unregister"):
        response = web.post(f"/v2/{path}")
        assert (response.status_code, response.content) == (200, b"")


# -- settings


def test_trace_settings_change_for_the_server_and_for_a_model(client: triton.InferenceServerClient) -> None:
    default = client.get_trace_settings()
    assert default["trace_level"] == ["OFF"]
    changed = client.update_trace_settings("linear", {"trace_level": ["TIMESTAMPS"], "trace_rate": "7"})
    assert (changed["trace_level"], changed["trace_rate"]) == (["TIMESTAMPS"], "7")
    assert client.get_trace_settings() == default
    assert client.update_trace_settings("linear", {"trace_level": None, "trace_rate": None}) == default


@pytest.mark.parametrize(
    "wrong",
    [
        {"trace_levels": ["OFF"]},
        {"trace_level": ["LOUD"]},
        {"trace_rate": "0"},
        {"trace_count": "many"},
        {"trace_file": "x"},
    ],
)
def test_wrong_trace_settings_are_refused(web: httpx.Client, wrong: dict[str, Any]) -> None:
    expect(web.post("/v2/trace/setting", json=wrong), 400, next(iter(wrong)))


def test_log_settings_really_change_the_log(
    client: triton.InferenceServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    before = client.get_log_settings()
    assert client.update_log_settings({"log_verbose_level": 1})["log_verbose_level"] == 1
    log = logging.getLogger("fairway.anything")
    assert log.isEnabledFor(logging.DEBUG)
    after = client.update_log_settings(
        {"log_verbose_level": 0, "log_info": False, "log_warning": False, "log_error": True}
    )
    assert not log.isEnabledFor(logging.WARNING)
    assert log.isEnabledFor(logging.ERROR)
    assert client.get_log_settings() == after
    client.update_log_settings({"log_info": True, "log_warning": False})
    caplog.clear()
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        log.log(level, "level %d", level)
    ours = [record.levelno for record in caplog.records if record.name == log.name]
    assert ours == [logging.INFO, logging.ERROR]
    client.update_log_settings(before)
    assert client.get_log_settings() == before
    assert not any("_Levels" in str(each) for each in caplog.handler.filters)  # as if nothing had ever been changed


def test_lines_become_text_and_json_again() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logs._Formatter(logging.Formatter("general %(message)s")))
    record = logging.makeLogRecord({"name": "fairway.any", "levelname": "INFO", "msg": "model_loaded", "model": "m"})
    root, settings = logging.getLogger(), LogSettings()
    root.addHandler(handler)
    try:
        settings.update({"log_format": "ISO8601"})
        assert handler.format(record).endswith("Z INFO fairway.any model_loaded model='m'")
        settings.update({"log_format": "default"})
        assert handler.format(record) == "general model_loaded"
    finally:
        settings.close()
        root.removeHandler(handler)


def test_a_format_that_somebody_else_chose_stays(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="log_format"):
        client.update_log_settings({"log_format": "ISO8601"})
    assert client.get_log_settings()["log_format"] == "default"


@pytest.mark.parametrize(
    "wrong",
    [{"log_loud": True}, {"log_info": "yes"}, {"log_verbose_level": -1}, {"log_file": "x"}, {"log_format": "xml"}],
)
def test_wrong_log_settings_are_refused(web: httpx.Client, wrong: dict[str, Any]) -> None:
    before = web.get("/v2/logging").json()
    expect(web.post("/v2/logging", json=wrong), 400, next(iter(wrong)))
    assert web.get("/v2/logging").json() == before


@pytest.mark.parametrize(
    ("path", "body", "setting"),
    [
        ("/v2/repository/models/linear/load", {}, "model_control"),
        ("/v2/repository/models/linear/unload", {}, "model_control"),
        ("/v2/logging", {"log_info": False}, "model_control"),
        ("/v2/trace/setting", {"trace_rate": "1"}, "model_control"),
        ("/v2/systemsharedmemory/region/a/register", {"key": "a", "byte_size": 1}, "shared_memory"),
        ("/v2/systemsharedmemory/unregister", {}, "shared_memory"),
    ],
)
def test_what_is_off_is_refused_by_the_name_of_its_setting(
    closed: httpx.Client, path: str, body: dict[str, Any], setting: str
) -> None:
    response = closed.post(path, json=body)
    expect(response, 403, setting, "[serve]")
    assert response.json()["code"] == NotEnabled.code


def test_settings_may_be_read_without_model_control(closed: httpx.Client) -> None:
    assert closed.get("/v2/logging").status_code == closed.get("/v2/trace/setting").status_code == 200


@given(st.integers(1, 20), st.integers(0, 50), st.integers(0, 200))
def test_one_request_in_so_many_is_traced_until_there_were_enough(rate: int, count: int, requests: int) -> None:
    settings = TraceSettings()
    settings.update(None, {"trace_level": "TIMESTAMPS", "trace_rate": str(rate), "trace_count": str(count)})
    traced = sum(settings.sampled("any") for _ in range(requests))
    assert traced == min(count, requests // rate)
    assert settings.get(None)["trace_count"] == str(count - traced)


@pytest.mark.parametrize("value", ["2", 2, 2.0, ["2"], [2.0]])
def test_numbers_of_trace_settings_come_in_several_forms(value: Any) -> None:
    settings = TraceSettings()
    settings.update(None, {"trace_rate": value})
    assert settings.get(None)["trace_rate"] == "2"


@pytest.mark.parametrize("value", ["2.0", "٢", " 2", "1_0", 2.5, True, "", [], [2, 2], 2**31, "9999999999"])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="trace_rate"):
        TraceSettings().update(None, {"trace_rate": value})


def test_a_models_own_trace_settings_outlive_a_change_for_all() -> None:
    settings = TraceSettings()
    settings.update("a", {"trace_rate": "3"})
    settings.update(None, {"trace_level": ["TIMESTAMPS"], "trace_rate": "5"})
    assert (settings.get("a")["trace_rate"], settings.get("a")["trace_level"]) == ("3", ["TIMESTAMPS"])
    assert settings.get("b")["trace_rate"] == "5"
    settings.update("a", {"trace_rate": None})
    assert settings.get("a")["trace_rate"] == "5"


# -- shared memory


@pytest.fixture
def shared() -> Iterator[shared_memory.SharedMemory]:
    made = shared_memory.SharedMemory(create=True, size=4096)
    try:
        yield made
    finally:
        made.close()
        made.unlink()


def bytes_of(shared: shared_memory.SharedMemory) -> memoryview[int]:
    assert shared.buf is not None
    return shared.buf


def test_tensors_come_and_go_through_shared_memory(
    client: triton.InferenceServerClient, shared: shared_memory.SharedMemory
) -> None:
    sent = np.arange(2 * FEATURES, dtype=np.float32).reshape(2, FEATURES)
    content = bytes_of(shared)
    content[64 : 64 + sent.nbytes] = sent.tobytes()
    client.register_system_shared_memory("in", shared.name, 1024, offset=64)
    client.register_system_shared_memory("out", shared.name, 1024, offset=2048)
    assert {region["name"] for region in client.get_system_shared_memory_status()} == {"in", "out"}
    tensor = triton.InferInput("x", list(sent.shape), "FP32")
    tensor.set_shared_memory("in", sent.nbytes)
    wanted = triton.InferRequestedOutput("probabilities")
    wanted.set_shared_memory("out", 2 * CLASSES * 4)
    client.infer("linear", [tensor], outputs=[wanted])
    given = np.frombuffer(bytes(content[2048 : 2048 + 2 * CLASSES * 4]), np.float32).reshape(2, CLASSES)
    assert given.sum(axis=1) == pytest.approx([1, 1], abs=1e-6)
    client.unregister_system_shared_memory("in")
    assert [region["name"] for region in client.get_system_shared_memory_status()] == ["out"]
    client.unregister_system_shared_memory()
    assert client.get_system_shared_memory_status() == []
    with pytest.raises(InferenceServerException, match="no region 'in'"):
        client.infer("linear", [tensor])


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": "../etc/passwd"}, {"key": "/a/b"}, {"key": ".."}, {"key": ""}, {"key": "a\0b"}, {"key": "nobody made it"},
        {"offset": -1}, {"byte_size": 0}, {"byte_size": 4097}, {"offset": 4096}, {"offset": 2**63}, {"byte_size": 2**64},
        {"offset": 1.5}, {"byte_size": None},
    ],
)  # fmt: skip
def test_a_wrong_region_is_refused(
    web: httpx.Client, shared: shared_memory.SharedMemory, wrong: dict[str, Any]
) -> None:
    body = {"key": shared.name, "offset": 0, "byte_size": 4096} | wrong
    expect(web.post("/v2/systemsharedmemory/region/wrong/register", json=body), 400)
    assert web.get("/v2/systemsharedmemory/status").json() == []


def test_a_name_is_registered_once(web: httpx.Client, shared: shared_memory.SharedMemory) -> None:
    path = "/v2/systemsharedmemory/region/once"
    body = {"key": shared.name, "byte_size": 16.0}
    assert web.post(path + "/register", json=body).status_code == 200
    expect(web.post(path + "/register", json=body), 400, "once", "unregister")
    assert web.get(path + "/status").json() == [{"name": "once", "key": shared.name, "offset": 0, "byte_size": 16}]
    assert web.post(path + "/unregister").status_code == 200
    expect(web.get(path + "/status"), 404, "once")


@given(st.integers(-5, 200), st.integers(0, 200), st.sampled_from([1, 7, 64]))
def test_nothing_is_read_or_written_outside_of_a_region(offset: int, byte_size: int, base: int) -> None:
    made = shared_memory.SharedMemory(create=True, size=4096)
    try:
        content = bytes_of(made)
        content[:256] = bytes(range(256))
        memory = SharedMemory(2**20)
        memory.register("r", made.name, base, 100)
        part = Region("r", byte_size, offset)
        if offset < 0 or offset + byte_size > 100:
            with pytest.raises(InvalidRequest):
                memory.read(part, Datatype.UINT8, (byte_size,))
            with pytest.raises(InvalidRequest):
                memory.write(part, bytes(byte_size))
        else:
            read = memory.read(part, Datatype.UINT8, (byte_size,))
            assert read.tolist() == list(range(base + offset, base + offset + byte_size))
            memory.write(part, b"\xff" * byte_size)
            changed = [place for place in range(256) if content[place] != place]
            assert set(changed) <= set(range(base + offset, base + offset + byte_size))
        memory.close()
    finally:
        made.close()
        made.unlink()


def test_a_region_that_is_cut_off_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(bytes(64))
    memory = SharedMemory(2**20, folder=tmp_path)
    memory.register("r", "cut", 0, 64)
    os.truncate(tmp_path / "cut", 8)
    with pytest.raises(InvalidRequest, match="smaller"):
        memory.read(Region("r", 64), Datatype.UINT8, (64,))
    with pytest.raises(InvalidRequest, match="smaller"):
        memory.write(Region("r", 64), bytes(64))
    assert (tmp_path / "cut").stat().st_size == 8
    memory.close()


def test_links_and_pipes_are_no_shared_memory(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(bytes(8))
    (tmp_path / "link").symlink_to(tmp_path / "there")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    memory = SharedMemory(2**20, folder=tmp_path)
    for key in ("link", "pipe", "folder"):
        with pytest.raises(InvalidRequest):
            memory.register("r", key, 0, 8)


def test_a_tensor_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**33)
    memory = SharedMemory(1024, folder=tmp_path)
    memory.register("r", "sparse", 0, 2**33)
    with pytest.raises(RequestTooLarge, match="max_body_bytes"):
        memory.read(Region("r", 2**33), Datatype.UINT8, (2**33,))
    memory.close()


def test_cuda_memory_is_refused_and_forgetting_it_is_not(client: triton.InferenceServerClient) -> None:
    client.unregister_cuda_shared_memory()
    assert client.get_cuda_shared_memory_status() == []
    with pytest.raises(InferenceServerException, match="CUDA"):
        client.register_cuda_shared_memory("gpu", base64.b64encode(b"handle"), 0, 64)
