"""Everything over gRPC that is not inference, streams, health and reflection: asked by the field's own clients."""

from __future__ import annotations

import json
import queue
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidConfig
from fairway.serving.app import serve
from fairway.serving.settings import ServeSettings
from fairway.serving.transports.grpc import messages
from tests.projects import serving, without_settings
from tests.serving.conftest import CLASSES, FEATURES
from tests.serving.grpc_server import CARRIERS, GrpcServer, carried

grpc = pytest.importorskip("grpc", reason="the reference client is not installed")
client = pytest.importorskip("tritonclient.grpc", reason="the field's client is not installed")
from tritonclient.utils import InferenceServerException  # noqa: E402

SETTINGS = ServeSettings(port=0, grpc_port=0, model_control=True)
SERVICE = "inference.GRPCInferenceService"


@pytest.fixture(scope="module", params=CARRIERS)
def grpc_server(request: pytest.FixtureRequest, bundles: tuple[Bundle, ...]) -> Iterator[GrpcServer]:
    with serve(bundles, settings=SETTINGS) as running, carried(running, request.param) as carrying:
        yield carrying


@pytest.fixture(scope="module")
def triton(grpc_server: GrpcServer) -> Iterator[Any]:
    with client.InferenceServerClient(grpc_server.address) as made:
        yield made


@pytest.fixture(scope="module")
def channel(grpc_server: GrpcServer) -> Iterator[Any]:
    with grpc.insecure_channel(grpc_server.address) as made:
        yield made


def row(value: float = 0.5, name: str = "x") -> Any:
    made = client.InferInput(name, [1, FEATURES], "FP32")
    made.set_data_from_numpy(np.full((1, FEATURES), value, np.float32))
    return made


# -- management


def test_readiness_is_an_answer_also_for_what_is_unknown(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("linear")
    assert triton.is_model_ready("linear", "01")
    assert not triton.is_model_ready("linear", "7")
    assert not triton.is_model_ready("absent")


def test_grpc_and_rest_describe_the_same(triton: Any, grpc_server: GrpcServer) -> None:
    from google.protobuf.json_format import ParseDict

    with httpx.Client(base_url=f"{grpc_server.running.url}/v2", timeout=20) as rest:
        for path, over_grpc in {
            "": triton.get_server_metadata(),
            "/models/linear": triton.get_model_metadata("linear"),
            "/models/linear/config": triton.get_model_config("linear").config,
        }.items():
            assert ParseDict(rest.get(path).json(), type(over_grpc)()) == over_grpc
        index = rest.post("/repository/index").json()
    assert ParseDict({"models": index}, type(over := triton.get_model_repository_index())()) == over


def test_every_field_of_a_models_configuration_passes_through_grpc(grpc_server: GrpcServer) -> None:
    """What the definitions lacked would be left out without a word."""
    from google.protobuf.json_format import ParseDict

    from fairway.serving.transports.grpc import messages

    management = grpc_server.running._service.management
    for name in ("linear", "every", "free"):
        ParseDict(management.model_config(name, None), messages.message("inference.ModelConfig")())


def test_statistics_count_what_was_asked(triton: Any) -> None:
    def rows() -> int:
        (stats,) = triton.get_inference_statistics("linear").model_stats
        return int(stats.inference_count)

    before = rows()
    triton.infer("linear", [row()])
    assert rows() == before + 1


def test_what_is_unknown_is_not_found(triton: Any) -> None:
    for ask in (triton.get_model_metadata, triton.get_model_config, triton.get_inference_statistics):
        with pytest.raises(InferenceServerException, match=r"NOT_FOUND.*no model 'absent'"):
            ask("absent")


def test_models_are_unloaded_and_loaded(triton: Any) -> None:
    triton.unload_model("free")
    assert not triton.is_model_ready("free")
    triton.load_model("free")
    assert triton.is_model_ready("free")
    triton.unload_model("absent")
    with pytest.raises(InferenceServerException, match="StatusCode"):
        triton.load_model("absent")


def test_settings_are_changed_and_put_back(triton: Any) -> None:
    changed = triton.update_trace_settings("linear", {"trace_level": ["TIMESTAMPS"], "trace_rate": "2"})
    assert list(changed.settings["trace_level"].value) == ["TIMESTAMPS"]
    assert list(changed.settings["trace_rate"].value) == ["2"]
    reset = triton.update_trace_settings("linear", {"trace_level": None, "trace_rate": None})
    assert list(reset.settings["trace_level"].value) == ["OFF"]
    assert triton.update_log_settings({"log_verbose_level": 1}).settings["log_verbose_level"].uint32_param == 1
    assert triton.update_log_settings({"log_verbose_level": 0}).settings["log_verbose_level"].uint32_param == 0
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        triton.update_trace_settings("linear", {"trace_rate": "many"})


def test_shared_memory_that_is_off_is_refused_in_words(triton: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"PERMISSION_DENIED.*shared_memory = true"):
        triton.register_system_shared_memory("region", "/key", 16)


# -- streams


def streamed(triton: Any, ask: Any, count: int) -> list[Any]:
    """What a stream answers, in its order: an id, or an error's text."""
    told: queue.Queue[Any] = queue.Queue()
    triton.start_stream(callback=lambda result, error: told.put(error or result))
    try:
        ask()
        return [told.get(timeout=20) for _ in range(count)]
    finally:
        triton.stop_stream()


def test_a_stream_answers_in_order(triton: Any) -> None:
    def ask() -> None:
        for number in range(200):
            triton.async_stream_infer("linear", [row(number / 200)], request_id=str(number))

    answers = streamed(triton, ask, 200)
    assert [answer.get_response().id for answer in answers] == [str(number) for number in range(200)]
    alone = triton.infer("linear", [row(7 / 200)]).as_numpy("probabilities")
    np.testing.assert_allclose(answers[7].as_numpy("probabilities"), alone, rtol=1e-5)
    assert answers[0].get_response().parameters["triton_final_response"].bool_param


def test_a_stream_goes_on_after_an_error(triton: Any) -> None:
    def ask() -> None:
        triton.async_stream_infer("linear", [row()], request_id="a")
        triton.async_stream_infer("absent", [row()], request_id="b")
        triton.async_stream_infer("linear", [row(name="y")], request_id="c")
        triton.async_stream_infer("linear", [row()], request_id="d", enable_empty_final_response=True)

    first, absent, wrong, last = streamed(triton, ask, 4)
    assert (first.get_response().id, last.get_response().id) == ("a", "d")
    assert "no model 'absent'" in str(absent)
    assert "no input is called 'y'" in str(wrong)


# -- health and reflection


def test_health_is_told(channel: Any) -> None:
    health = pytest.importorskip("grpc_health.v1.health_pb2", reason="grpcio-health-checking is not installed")
    from grpc_health.v1.health_pb2_grpc import HealthStub

    stub = HealthStub(channel)
    for service in ("", SERVICE):
        answer = stub.Check(health.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as failed:
        stub.Check(health.HealthCheckRequest(service="absent"), timeout=20)
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    watched = stub.Watch(health.HealthCheckRequest(service="absent"), timeout=20)
    assert next(watched).status == health.HealthCheckResponse.SERVICE_UNKNOWN
    watched.cancel()


def test_reflection_gives_what_a_client_needs_to_call(channel: Any) -> None:
    database = pytest.importorskip(
        "grpc_reflection.v1alpha.proto_reflection_descriptor_database", reason="grpcio-reflection is not installed"
    )
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    found = database.ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= set(found.get_services())
    pool = DescriptorPool(found)
    method = pool.FindServiceByName(SERVICE).FindMethodByName("ModelReady")
    asked, answered = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary(
        f"/{SERVICE}/ModelReady", request_serializer=asked.SerializeToString, response_deserializer=answered.FromString
    )
    assert call(asked(name="linear"), timeout=20).ready
    with pytest.raises(KeyError):
        pool.FindServiceByName("inference.Absent")


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_both_versions_of_reflection_answer(channel: Any, version: str) -> None:
    asked = messages.message(f"grpc.reflection.{version}.ServerReflectionRequest")
    answered = messages.message(f"grpc.reflection.{version}.ServerReflectionResponse")
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=asked.SerializeToString,
        response_deserializer=answered.FromString,
    )
    questions = [
        asked(list_services=""),
        asked(file_by_filename="inference.proto"),
        asked(file_containing_symbol="absent.Symbol"),
        asked(all_extension_numbers_of_type="inference.ModelInferRequest"),
        asked(file_containing_extension={"containing_type": "inference.ModelInferRequest", "extension_number": 1}),
        asked(),
    ]
    services, files, absent, extensions, extension, nothing = call(iter(questions), timeout=20)
    assert len(services.list_services_response.service) == 4
    assert len(files.file_descriptor_response.file_descriptor_proto) == 2  # and what it imports
    assert not extensions.all_extension_numbers_response.extension_number
    assert [answer.error_response.error_code for answer in (absent, extension, nothing)] == [5, 5, 3]


# -- the server


def test_without_a_port_there_is_no_grpc(bundles: tuple[Bundle, ...]) -> None:
    with serve(bundles[0], settings=ServeSettings(port=0)) as running:
        assert running.grpc_port is None


def test_a_port_that_is_taken_is_told(bundles: tuple[Bundle, ...]) -> None:
    with serve(bundles[0], settings=SETTINGS) as running:
        assert running.grpc_port
        with pytest.raises(InvalidConfig, match=f"port {running.grpc_port} .* is taken"):
            serve(bundles[0], settings=ServeSettings(port=0, grpc_port=running.grpc_port))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_program_serves_grpc_until_it_is_told_to_stop(
    bundles: tuple[Bundle, ...], tmp_path: Path, workers: str
) -> None:
    (tmp_path / "fairway.toml").write_text("[serve]\nport = 0\nstop_delay_s = 0.0\n")
    bundle = str(bundles[0].path)
    arguments = (bundle, "--grpc-port", "0", "--workers", workers)
    with serving(tmp_path, *arguments, environ=without_settings()) as (_, process):
        ports = logged_ports(tmp_path / "server.log", int(workers))
        assert len(set(ports)) == 1
        with client.InferenceServerClient(f"127.0.0.1:{ports[0]}") as triton:
            for _ in range(3):
                assert triton.infer("linear", [row()]).as_numpy("probabilities").shape == (1, CLASSES)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def logged_ports(log: Path, count: int) -> list[int]:
    """What each process says when it is ready; lines are written a little after they are logged."""
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        found = [line["grpc_port"] for line in map(json.loads, lines) if "grpc_port" in line]
        if len(found) >= count:
            return found
        time.sleep(0.01)
    raise AssertionError(f"fewer than {count} ports in {log.read_text()}")


def reflection(channel: Any) -> Any:
    return channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=messages.message("grpc.reflection.v1.ServerReflectionResponse").FromString,
    )


def test_streams_opened_while_the_server_drains_end_as_well(bundles: tuple[Bundle, ...]) -> None:
    """They come before their client has read that it should go elsewhere, and would keep the server, too."""
    from tritonclient.grpc import service_pb2_grpc

    released = threading.Event()

    def nothing() -> Iterator[Any]:
        released.wait(60)
        yield from ()

    with (
        serve(bundles[0], settings=ServeSettings(port=0, grpc_port=0)) as running,
        grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel,
    ):
        side = running._service._grpc
        assert side is not None
        assert side._service is not None
        running._loop.call_soon_threadsafe(side._service.finish)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for stream in (stub.ModelStreamInfer(nothing(), timeout=60), reflection(channel)(nothing(), timeout=60)):
            with pytest.raises(grpc.RpcError) as ended:
                next(stream)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        released.set()


def test_stopping_ends_streams_and_answers_what_is_in_flight(bundles: tuple[Bundle, ...]) -> None:
    """An open stream, and a watch, would else keep the server for its whole grace period."""
    health = pytest.importorskip("grpc_health.v1.health_pb2", reason="grpcio-health-checking is not installed")
    from grpc_health.v1.health_pb2_grpc import HealthStub
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    released = threading.Event()

    def ask() -> Iterator[Any]:
        request = service_pb2.ModelInferRequest(model_name="linear", id="1")
        request.inputs.add(name="x", datatype="FP32", shape=[1, FEATURES], contents={"fp32_contents": [0.5] * FEATURES})
        yield request
        released.wait(60)  # the stream stays open

    def explore() -> Iterator[Any]:
        yield messages.message("grpc.reflection.v1.ServerReflectionRequest")(list_services="")
        released.wait(60)

    running = serve(bundles[0], settings=ServeSettings(port=0, grpc_port=0, grace_s=600))
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        watched = HealthStub(channel).Watch(health.HealthCheckRequest(), timeout=60)
        answers = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(ask(), timeout=60)
        explored = reflection(channel)(explore(), timeout=60)
        assert next(watched).status == health.HealthCheckResponse.SERVING
        assert next(explored).list_services_response.service
        assert len(next(answers).infer_response.raw_output_contents[0]) == 4 * CLASSES
        running.stop()  # returns when stopped: the test's time limit is far below the grace period
        assert next(watched).status == health.HealthCheckResponse.NOT_SERVING
        for stream in (watched, answers, explored):
            with pytest.raises(grpc.RpcError) as ended:
                next(stream)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    released.set()
