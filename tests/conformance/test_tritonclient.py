"""Triton's own client, unchanged, against Fairway: HTTP and gRPC, blocking and asynchronous."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from queue import Queue
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as tgrpc
import tritonclient.grpc.aio as tgrpc_aio
import tritonclient.http as thttp
import tritonclient.http.aio as thttp_aio
import tritonclient.utils.shared_memory as shm
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.conformance.conftest import Served

SAMPLES: dict[str, NDArray[Any]] = {
    "BOOL": np.array([[True, False], [False, True]]),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[0, 2**16 - 1]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "FP16": np.array([[1.5, np.inf]], np.float16),
    "FP32": np.array([[1.5, -np.inf], [np.nan, 0]], np.float32),
    "FP64": np.array([[1e308, np.nan]], np.float64),
    "BYTES": np.array([[b"", "grüße".encode()]], np.object_),
}
ROW = np.array([[1, 2, 3, 4]], np.int32)


@pytest.fixture
def http(served: Served) -> Iterator[Any]:
    with thttp.InferenceServerClient(served.url.removeprefix("http://")) as client:
        yield client


@pytest.fixture
def grpc(served: Served) -> Iterator[Any]:
    with tgrpc.InferenceServerClient(served.grpc) as client:
        yield client


def tensor(module: Any, name: str, array: NDArray[Any], datatype: str, **options: Any) -> Any:
    made = module.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, **options)
    return made


def add_sub(module: Any) -> list[Any]:
    return [tensor(module, "a", ROW * 10, "INT32"), tensor(module, "b", ROW, "INT32")]


@pytest.mark.parametrize("datatype", SAMPLES)
def test_http_both_ways_binary_and_json(http: Any, datatype: str) -> None:
    array, model = SAMPLES[datatype], f"identity_{datatype.lower()}"
    binary = http.infer(model, [tensor(thttp, "x", array, datatype)])
    np.testing.assert_array_equal(binary.as_numpy("y"), array)
    if datatype == "FP16":
        return  # this client has no JSON form for it
    wanted = [thttp.InferRequestedOutput("y", binary_data=False)]
    json = http.infer(model, [tensor(thttp, "x", array, datatype, binary_data=False)], outputs=wanted)
    found = json.as_numpy("y")
    if datatype == "BYTES":
        found = np.array([[item.encode() for item in found.ravel()]], np.object_)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("datatype", SAMPLES)
def test_grpc_both_ways(grpc: Any, datatype: str) -> None:
    array = SAMPLES[datatype]
    answer = grpc.infer(f"identity_{datatype.lower()}", [tensor(tgrpc, "x", array, datatype)])
    np.testing.assert_array_equal(answer.as_numpy("y"), array)


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_bfloat16(http: Any, grpc: Any, transport: str) -> None:
    client, module = {"http": (http, thttp), "grpc": (grpc, tgrpc)}[transport]
    array = np.array([[1.5, -2.0, np.inf]], ml_dtypes.bfloat16)
    answer = client.infer("identity_bf16", [tensor(module, "x", array, "BF16")])
    np.testing.assert_array_equal(answer.as_numpy("y").astype(np.float32), array.astype(np.float32))


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("wanted", [None, "gzip", "deflate"])
def test_http_compression(http: Any, sent: str | None, wanted: str | None) -> None:
    options = {"request_compression_algorithm": sent, "response_compression_algorithm": wanted}
    answer = http.infer("add_sub", add_sub(thttp), **options)
    np.testing.assert_array_equal(answer.as_numpy("sum"), ROW * 11)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_grpc_compression(grpc: Any, algorithm: str) -> None:
    answer = grpc.infer("add_sub", add_sub(tgrpc), compression_algorithm=algorithm)
    np.testing.assert_array_equal(answer.as_numpy("difference"), ROW * 9)


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_wanted_outputs_ids_and_classes(http: Any, grpc: Any, transport: str) -> None:
    client, module = {"http": (http, thttp), "grpc": (grpc, tgrpc)}[transport]
    wanted = [module.InferRequestedOutput("difference")]
    answer = client.infer("add_sub", add_sub(module), outputs=wanted, request_id="t1", model_version="1")
    assert answer.as_numpy("sum") is None
    response = answer.get_response()
    assert (response["id"] if transport == "http" else response.id) == "t1"
    scores = np.array([[0.25, 0.5, 0.125]], np.float32)
    best = client.infer(
        "scores", [tensor(module, "x", scores, "FP32")], outputs=[module.InferRequestedOutput("y", class_count=2)]
    )
    assert [item.split(b":")[2] for item in best.as_numpy("y").ravel()] == [b"one", b"zero"]


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_everything_that_can_be_asked(http: Any, grpc: Any, transport: str) -> None:
    client = {"http": http, "grpc": grpc}[transport]
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("add_sub")
    assert not client.is_model_ready("nobody")
    options = {"as_json": True} if transport == "grpc" else {}
    assert "binary_tensor_data" in client.get_server_metadata(**options)["extensions"]
    assert client.get_model_metadata("add_sub", **options)["name"] == "add_sub"
    config = client.get_model_config("add_sub", **options)
    assert config.get("config", config)["name"] == "add_sub"
    (entry,) = client.get_inference_statistics("add_sub", **options)["model_stats"]
    assert entry["name"] == "add_sub"
    index = client.get_model_repository_index(**options)
    assert "add_sub" in {entry["name"] for entry in (index["models"] if transport == "grpc" else index)}
    assert client.get_trace_settings(**options)
    assert client.get_log_settings(**options)


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_load_and_unload(http: Any, grpc: Any, transport: str) -> None:
    client = {"http": http, "grpc": grpc}[transport]
    client.unload_model("versions")
    assert not client.is_model_ready("versions")
    client.load_model("versions")
    assert client.is_model_ready("versions")


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_errors_have_a_text(http: Any, grpc: Any, transport: str) -> None:
    client, module = {"http": (http, thttp), "grpc": (grpc, tgrpc)}[transport]
    with pytest.raises(InferenceServerException, match="nobody"):
        client.infer("nobody", add_sub(module))
    with pytest.raises(InferenceServerException, match="extra"):
        client.infer("add_sub", [*add_sub(module), tensor(module, "extra", ROW, "INT32")])


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_shared_memory(http: Any, grpc: Any, transport: str) -> None:
    client, module = {"http": (http, thttp), "grpc": (grpc, tgrpc)}[transport]
    key = f"fairway-{uuid.uuid4().hex[:12]}"
    row = np.array([[1.5, -2, 3, 4]], np.float32)
    handle = shm.create_shared_memory_region(key, f"/{key}", 64)
    try:
        shm.set_shared_memory_region(handle, [row])
        client.register_system_shared_memory(key, f"/{key}", 64)
        given, wanted = module.InferInput("x", [1, 4], "FP32"), module.InferRequestedOutput("y")
        given.set_shared_memory(key, 16)
        wanted.set_shared_memory(key, 16, offset=32)
        client.infer("identity_fp32", [given], outputs=[wanted])
        np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [1, 4], offset=32), row)
        client.unregister_system_shared_memory(key)
    finally:
        shm.destroy_shared_memory_region(handle)


def test_many_http_requests_in_flight(served: Served) -> None:
    with thttp.InferenceServerClient(served.url.removeprefix("http://"), concurrency=4) as client:
        asked = [
            client.async_infer("identity_fp32", [tensor(thttp, "x", np.full((1, 3), n, np.float32), "FP32")])
            for n in range(20)
        ]
        found = [int(answer.get_result().as_numpy("y")[0, 0]) for answer in asked]
    assert found == list(range(20))


def test_a_stream(grpc: Any) -> None:
    answers: Queue[tuple[Any, Any]] = Queue()
    grpc.start_stream(lambda result, error: answers.put((result, error)))
    for n in range(5):
        row = np.full((1, 3), n, np.float32)
        grpc.async_stream_infer(
            "identity_fp32" if n != 2 else "nobody", [tensor(tgrpc, "x", row, "FP32")], request_id=str(n)
        )
    found = [answers.get(timeout=30) for _ in range(5)]
    grpc.stop_stream()
    good = {result.get_response().id: int(result.as_numpy("y")[0, 0]) for result, error in found if error is None}
    assert good == {"0": 0, "1": 1, "3": 3, "4": 4}
    assert [isinstance(error, InferenceServerException) for _, error in found if error is not None] == [True]


async def test_asyncio_http(served: Served) -> None:
    async with thttp_aio.InferenceServerClient(served.url.removeprefix("http://")) as client:
        assert await client.is_server_ready()
        answer = await client.infer("add_sub", add_sub(thttp))
    np.testing.assert_array_equal(answer.as_numpy("sum"), ROW * 11)


async def test_asyncio_grpc(served: Served) -> None:
    async with tgrpc_aio.InferenceServerClient(served.grpc) as client:
        assert await client.is_server_ready()
        answer = await client.infer("add_sub", add_sub(tgrpc))

        async def requests() -> Any:
            for n in range(3):
                yield {"model_name": "add_sub", "inputs": add_sub(tgrpc), "request_id": str(n)}

        streamed = [result.get_response().id async for result, _ in client.stream_infer(requests())]
    np.testing.assert_array_equal(answer.as_numpy("sum"), ROW * 11)
    assert sorted(streamed) == ["0", "1", "2"]
