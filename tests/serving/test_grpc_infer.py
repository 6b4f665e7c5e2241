"""Inference over gRPC, asked by the field's own clients."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.core.tensors import Datatype, Tensor, TensorSpec
from fairway.serving.app import serve
from fairway.serving.settings import ServeSettings
from tests.serving.conftest import _PROTO, CLASSES, FEATURES, echo_bundle
from tests.serving.grpc_server import CARRIERS, GrpcServer, carried

client = pytest.importorskip("tritonclient.grpc", reason="the field's client is not installed")
from tritonclient.grpc import aio as aio_client  # noqa: E402
from tritonclient.grpc import service_pb2  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

SETTINGS = ServeSettings(port=0, grpc_port=0, model_control=True, shared_memory=True)
OUTPUT = "probabilities"
KINDS: dict[str, list[Datatype]] = {
    "numbers": [kind for kind in _PROTO if kind is not Datatype.BYTES],
    "strings": [Datatype.BYTES],
}


@pytest.fixture(scope="module", params=CARRIERS)
def grpc_server(
    request: pytest.FixtureRequest, bundles: tuple[Bundle, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GrpcServer]:
    made = [
        echo_bundle(
            tmp_path_factory.mktemp("kinds") / name, name, tuple(TensorSpec(k.lower(), k, (-1,)) for k in kinds)
        )
        for name, kinds in KINDS.items()
    ]
    with serve([*bundles, *made], settings=SETTINGS) as running, carried(running, request.param) as carrying:
        yield carrying


@pytest.fixture(scope="module")
def triton(grpc_server: GrpcServer) -> Iterator[Any]:
    with client.InferenceServerClient(grpc_server.address) as made:
        yield made


def given(name: str, array: Tensor) -> Any:
    made = client.InferInput(name, list(array.shape), Datatype.of(array.dtype).value)
    made.set_data_from_numpy(array)
    return made


def row(count: int = 1) -> Any:
    return given("x", np.full((count, FEATURES), 0.5, np.float32))


def refused(code: str, said: str) -> Any:
    return pytest.raises(InferenceServerException, match=rf"(?s)StatusCode\.{code}.*{said}")


def test_an_inference_is_answered_by_the_version_that_it_names(triton: Any) -> None:
    for version, identity in (("", ""), ("1", "a"), ("01", "b")):
        answer = triton.infer("linear", [row(2)], model_version=version, request_id=identity)
        response = answer.get_response()
        assert (response.model_name, response.model_version, response.id) == ("linear", "1", identity)
        assert answer.as_numpy(OUTPUT).shape == (2, CLASSES)
        np.testing.assert_allclose(answer.as_numpy(OUTPUT).sum(axis=1), 1, rtol=1e-5)


def samples(kind: Datatype) -> Tensor:
    if kind is Datatype.BYTES:
        return np.array([b"", "größer".encode(), bytes(range(1, 128))], dtype=object)
    if kind is Datatype.BOOL:
        return np.array([True, False, True])
    if kind.is_float:
        return np.array([0.5, -2.0, 3.0]).astype(kind.dtype)
    limits = np.iinfo(kind.dtype)
    return np.array([limits.min, 0, limits.max], kind.dtype)


@pytest.mark.parametrize("model", KINDS)
def test_every_datatype_comes_back_as_it_was_sent(triton: Any, model: str) -> None:
    arrays = {kind.lower(): samples(kind) for kind in KINDS[model]}
    answer = triton.infer(model, [given(name, array) for name, array in arrays.items()])
    for name, array in arrays.items():
        found = answer.as_numpy(f"same_{name}")
        assert found.tolist() == array.tolist(), name


def test_typed_contents_are_taken_and_answered_raw(triton: Any, grpc_server: GrpcServer) -> None:
    import grpc
    from tritonclient.grpc import service_pb2_grpc

    request = service_pb2.ModelInferRequest(model_name="linear")
    request.inputs.add(name="x", datatype="FP32", shape=[1, FEATURES], contents={"fp32_contents": [0.5] * FEATURES})
    with grpc.insecure_channel(grpc_server.address) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20)
    assert answer.raw_output_contents[0] == triton.infer("linear", [row()]).get_response().raw_output_contents[0]
    assert not answer.outputs[0].HasField("contents")


def test_named_outputs_come_alphabetically_and_once(triton: Any) -> None:
    inputs = [given(kind.lower(), samples(kind)) for kind in KINDS["numbers"]]
    wanted = [client.InferRequestedOutput(name) for name in ("same_int8", "same_bool", "same_int8")]
    answer = triton.infer("numbers", inputs, outputs=wanted)
    assert [output.name for output in answer.get_response().outputs] == ["same_bool", "same_int8"]
    assert answer.as_numpy("same_int8").tolist() == samples(Datatype.INT8).tolist()


def test_classes_are_given_best_first(triton: Any) -> None:
    plain = triton.infer("linear", [row()]).as_numpy(OUTPUT)[0]
    wanted = [client.InferRequestedOutput(OUTPUT, class_count=CLASSES + 9)]
    classes = triton.infer("linear", [row()], outputs=wanted).as_numpy(OUTPUT)
    assert classes.shape == (1, CLASSES)
    best = [int(entry.decode().split(":")[1]) for entry in classes[0]]
    assert best == sorted(range(CLASSES), key=lambda index: -plain[index])


def test_tensors_pass_through_shared_memory(triton: Any) -> None:
    shared = pytest.importorskip("tritonclient.utils.shared_memory", reason="this system has no shared memory")
    values = np.full((1, FEATURES), 0.5, np.float32)
    size, room, name = values.nbytes, 4 * CLASSES, f"fairway-{uuid.uuid4().hex}"
    handle = shared.create_shared_memory_region("region", f"/{name}", size + room)
    try:
        shared.set_shared_memory_region(handle, [values])
        triton.register_system_shared_memory("region", f"/{name}", size + room)
        regions = triton.get_system_shared_memory_status().regions
        assert regions["region"].byte_size == size + room
        put = client.InferInput("x", list(values.shape), "FP32")
        put.set_shared_memory("region", size)
        wanted = client.InferRequestedOutput(OUTPUT)
        wanted.set_shared_memory("region", room, offset=size)
        answer = triton.infer("linear", [put], outputs=[wanted])
        assert list(answer.get_response().raw_output_contents) == [b""]
        found = shared.get_contents_as_numpy(handle, np.float32, [1, CLASSES], offset=size)
        assert found.tolist() == triton.infer("linear", [row()]).as_numpy(OUTPUT).tolist()
        with refused("INVALID_ARGUMENT", "not inside of region"):
            put.set_shared_memory("region", size, offset=room + 1)
            triton.infer("linear", [put])
    finally:
        triton.unregister_system_shared_memory("region")
        shared.destroy_shared_memory_region(handle)
    assert not triton.get_system_shared_memory_status().regions


def test_cuda_memory_is_refused_in_words_but_unregistering_all_is_no_error(triton: Any) -> None:
    triton.unregister_cuda_shared_memory()
    assert not triton.get_cuda_shared_memory_status().regions
    with refused("UNIMPLEMENTED", "no CUDA shared memory"):
        triton.register_cuda_shared_memory("region", b"aGFuZGxl", 0, 64)


def test_messages_above_4_mib_work_both_ways(triton: Any) -> None:
    array = np.zeros((2, 800_000), np.float32)
    assert triton.infer("free", [given("x", array)]).as_numpy("same_x").nbytes == array.nbytes > 4 * 2**20


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_read(triton: Any, algorithm: str) -> None:
    answer = triton.infer("linear", [row()], compression_algorithm=algorithm)
    assert answer.as_numpy(OUTPUT).shape == (1, CLASSES)


def test_faults_of_the_caller_have_a_status_and_words(triton: Any) -> None:
    with refused("NOT_FOUND", "no model 'absent'"):
        triton.infer("absent", [row()])
    with refused("NOT_FOUND", "linear:7"):
        triton.infer("linear", [row()], model_version="7")
    with refused("INVALID_ARGUMENT", "no input is called 'y'"):
        triton.infer("linear", [given("y", np.ones((1, FEATURES), np.float32))])
    with refused("INVALID_ARGUMENT", "no output is called 'z'"):
        triton.infer("linear", [row()], outputs=[client.InferRequestedOutput("z")])
    with refused("INVALID_ARGUMENT", "has shape"):
        triton.infer("linear", [given("x", np.ones((1, FEATURES + 1), np.float32))])
    assert triton.infer("linear", [row()]).as_numpy(OUTPUT) is not None


def test_what_is_no_message_is_refused(grpc_server: GrpcServer) -> None:
    import grpc

    with grpc.insecure_channel(grpc_server.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as failed:
            call(b"\xff\xff\xff", timeout=20)
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a inference.ModelInferRequest" in failed.value.details()


def test_the_asynchronous_client_is_served_too(grpc_server: GrpcServer) -> None:
    async def ask() -> list[Any]:
        async with aio_client.InferenceServerClient(grpc_server.address) as triton:
            answers = await asyncio.gather(*(triton.infer("linear", [row(n)], request_id=str(n)) for n in range(1, 20)))
            return [(answer.get_response().id, len(answer.as_numpy(OUTPUT))) for answer in answers]

    assert asyncio.run(ask()) == [(str(n), n) for n in range(1, 20)]


KSERVE = """
import asyncio, sys
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

async def main():
    async with InferenceGRPCClient(sys.argv[1]) as client:
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("linear")
        for raw in (True, False):
            x = InferInput("x", [1, 4], "FP32")
            x.set_data_from_numpy(np.full((1, 4), 0.5, np.float32), binary_data=raw)
            answer = await client.infer(InferRequest("linear", [x], request_id="7"))
            assert answer.id == "7" and answer.model_name == "linear", answer
            assert abs(answer.outputs[0].as_numpy().sum() - 1) < 1e-5, answer

asyncio.run(main())
"""


def test_kserves_client_is_served_too(grpc_server: GrpcServer) -> None:
    """In a process of its own: it and tritonclient cannot live in one."""
    if importlib.util.find_spec("kserve") is None:
        pytest.skip("kserve is not installed")
    done = subprocess.run(
        [sys.executable, "-c", KSERVE, grpc_server.address], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
