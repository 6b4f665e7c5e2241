"""Whatever clients vary, what a server keeps of it is bounded: nothing grows with the number of different requests."""

from __future__ import annotations

import gc
import json
import socket
import struct
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairway.bundle.format import Bundle
from fairway.core.manifest import EngineSpec
from fairway.core.tensors import Datatype, TensorSpec
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings
from tests.serving.conftest import echo_bundle, request_of

pytest.importorskip("hyperframe", reason="what writes HTTP/2 frames is not installed")
from benchmarks.fuzz.wire import Http2, Rest

DIFFERENT = 1200
BOUND = 1100
"""Above every limit of a cache that is kept by what clients send."""
CONTAINERS = (dict, list, set, OrderedDict, deque)


@pytest.fixture(scope="module", params=["fast lane", "starlette"])
def open_to_all(
    request: pytest.FixtureRequest, bundles: tuple[Bundle, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder: Path = tmp_path_factory.mktemp("wide")
    wide = echo_bundle(
        folder / "wide", "wide", (TensorSpec("x", Datatype.FP32, (-1, -1)),), EngineSpec(max_batch=100_000)
    )
    settings = ServeSettings(
        port=0,
        grpc_port=0,
        fast_lane=request.param == "fast lane",
        model_control=True,
        shared_memory=True,
        cache_bytes=2**18,
        access_log=False,
    )
    with serve([*bundles, wide], settings=settings) as running:
        yield running


def large() -> dict[int, tuple[type, int]]:
    """Every large container of this process, by its id."""
    gc.collect()
    found = (item for item in gc.get_objects() if type(item) in CONTAINERS and len(item) > BOUND)
    return {id(item): (type(item), len(item)) for item in found}


def post(path: str, content: Any, *lines: str) -> bytes:
    body = json.dumps(content).encode()
    said = "".join(f"{line}\r\n" for line in lines)
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n{said}content-length: {len(body)}\r\n\r\n".encode() + body


def binary(path: str, name: str = "x", shape: tuple[int, int] = (1, 4), **more: Any) -> bytes:
    """A request for binary outputs with a binary input."""
    values = bytes(4 * shape[0] * shape[1])
    tensor = {"name": name, "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": len(values)}}
    parameters = {"binary_data_output": True, **more.pop("parameters", {})}
    header = json.dumps({**more, "inputs": [tensor], "parameters": parameters}).encode()
    said = f"inference-header-content-length: {len(header)}\r\ncontent-length: {len(header) + len(values)}\r\n"
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n{said}\r\n".encode() + header + values


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


def of(rows: int, width: int, **more: Any) -> dict[str, Any]:
    tensor = {"name": "x", "shape": [rows, width], "datatype": "FP32", "data": [0.5] * (rows * width)}
    return {"inputs": [tensor], **more}


LINEAR, WIDE = "/v2/models/linear/infer", "/v2/models/wide/infer"
REQUESTS: dict[str, Callable[[int], bytes]] = {
    "heads": lambda n: post(LINEAR, request_of(), f"x-request: {n}"),
    "names of headers": lambda n: post(LINEAR, request_of(), f"x-{n}: 1"),
    "queries": lambda n: post(f"{LINEAR}?{n}", request_of()),
    "models": lambda n: post(f"/v2/models/none-{n}/infer", request_of()),
    "versions": lambda n: post(f"/v2/models/linear/versions/{n}/infer", request_of()),
    "spellings of a version": lambda n: post(f"/v2/models/linear/versions/{'0' * n}1/infer", request_of()),
    "ids": lambda n: post(LINEAR, {**request_of(), "id": f"id-{n}"}),
    "keys": lambda n: post(LINEAR, request_of(), f"fairway-route-key: {n}"),
    "inputs": lambda n: post(LINEAR, request_of(name=f"x{n}")),
    "outputs": lambda n: post(LINEAR, {**request_of(), "outputs": [{"name": f"y{n}"}]}),
    "parameters": lambda n: post(LINEAR, {**request_of(), "parameters": {f"p{n}": n}}),
    "timeouts": lambda n: post(LINEAR, {**request_of(), "parameters": {"timeout": 10**7 + n}}),
    "priorities": lambda n: post(LINEAR, {**request_of(), "parameters": {"priority": n}}),
    "values": lambda n: post(LINEAR, request_of(data=[n, 0, 0, 0])),
    "widths": lambda n: post(WIDE, of(1, n + 1)),
    "rows": lambda n: post(WIDE, of(n + 1, 1)),
    "shapes": lambda n: post(WIDE, of(n % 40 + 1, n // 40 + 1)),
    "datatypes": lambda n: post(LINEAR, request_of(datatype=f"FP{n}")),
    "binary ids": lambda n: binary(LINEAR, id=f"id-{n}"),
    "binary inputs": lambda n: binary(LINEAR, f"x{n}"),
    "binary shapes": lambda n: binary(WIDE, shape=(n % 40 + 1, n // 40 + 1)),
    "binary parameters": lambda n: binary(LINEAR, parameters={f"p{n}": n}),
    "encodings": lambda n: post(LINEAR, request_of(), f"content-encoding: e{n}"),
    "accepted encodings": lambda n: post(LINEAR, request_of(), f"accept-encoding: gzip;q=0.{n}"),
    "traces": lambda n: post(LINEAR, request_of(), f"traceparent: 00-{n + 1:032x}-{n + 1:016x}-01"),
    "paths": lambda n: get(f"/nowhere/{n}"),
    "described models": lambda n: get(f"/v2/models/none-{n}"),
    "statistics": lambda n: get(f"/v2/models/none-{n}/stats"),
    "regions": lambda n: post(f"/v2/systemsharedmemory/region/r{n}/register", {"key": f"none-{n}", "byte_size": 1}),
    "loads": lambda n: post(f"/v2/repository/models/none-{n}/load", {}),
    "unloads": lambda n: post(f"/v2/repository/models/none-{n}/unload", {}),
    "settings of traces": lambda n: post(f"/v2/models/none-{n}/trace/setting", {"trace_level": ["OFF"]}),
    "bodies": lambda n: post("/v2/repository/index", {f"k{n}": n}),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_different_requests_leave_nothing_that_grows(open_to_all: RunningServer, what: str) -> None:
    rest = Rest(open_to_all.port)
    make = REQUESTS[what]
    before, statuses = large(), set()
    for n in range(DIFFERENT):
        statuses.add(rest.ask(make(n)).status)
    rest.close()
    assert statuses <= {200, 400, 404, 415}
    assert not {place: found for place, found in large().items() if before.get(place) != found}


def grpc_message(model: str = "linear", version: str = "", name: str = "x", width: int = 4, **fields: Any) -> bytes:
    from fairway.serving.transports.grpc.messages import message

    content = struct.pack(f"<{width}f", *[0.5] * width)
    request = message("inference.ModelInferRequest")(
        model_name=model, model_version=version, raw_input_contents=[content], **fields
    )
    request.inputs.add(name=name, datatype="FP32", shape=[1, width])
    encoded: bytes = request.SerializeToString()
    return b"\0" + len(encoded).to_bytes(4, "big") + encoded


CALLS: dict[str, Callable[[int], tuple[bytes, list[tuple[bytes, bytes]]]]] = {
    "ids": lambda n: (grpc_message(id=f"id-{n}"), []),
    "lengths of ids": lambda n: (grpc_message(id="x" * n), []),
    "models": lambda n: (grpc_message(model=f"none-{n}"), []),
    "versions": lambda n: (grpc_message(version=str(n)), []),
    "inputs": lambda n: (grpc_message(name=f"x{n}"), []),
    "widths": lambda n: (grpc_message(model="wide", width=n + 1), []),
    "metadata": lambda n: (grpc_message(), [(b"x-%d" % n, b"1")]),
    "values of metadata": lambda n: (grpc_message(), [(b"fairway-route-key", b"%d" % n)]),
    "timeouts": lambda n: (grpc_message(), [(b"grpc-timeout", b"%dm" % (20_000 + n))]),
}


only_once = pytest.mark.parametrize("open_to_all", ["fast lane"], indirect=True)
"""What has nothing to do with the lanes of REST."""


@only_once
@pytest.mark.parametrize("what", CALLS)
def test_different_calls_leave_nothing_that_grows(open_to_all: RunningServer, what: str) -> None:
    assert open_to_all.grpc_port
    http2 = Http2(open_to_all.grpc_port)
    make = CALLS[what]
    before, statuses = large(), set()
    for n in range(DIFFERENT):
        body, lines = make(n)
        statuses.add(http2.call(b"/inference.GRPCInferenceService/ModelInfer", body, lines).status)
    http2.close()
    assert statuses <= {0, 3, 5}
    assert not {place: found for place, found in large().items() if before.get(place) != found}


@only_once
def test_paths_of_grpc_that_nobody_serves_leave_nothing(open_to_all: RunningServer) -> None:
    assert open_to_all.grpc_port
    http2 = Http2(open_to_all.grpc_port)
    before = large()
    assert {http2.call(b"/none/M%d" % n, grpc_message(), []).status for n in range(DIFFERENT)} == {12}
    http2.close()
    assert not {place: found for place, found in large().items() if before.get(place) != found}


@only_once
def test_a_head_of_very_many_lines_is_not_kept(open_to_all: RunningServer) -> None:
    """It is small as bytes, and large once it is parsed."""
    protocol = open_to_all._service._protocol_class
    kept = len(protocol.heads)
    body = json.dumps(request_of()).encode()
    lines = b"".join(b"%x:\r\n" % n for n in range(200))
    head = b"POST %s HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n" % (LINEAR.encode(), lines, len(body))
    with socket.create_connection(("127.0.0.1", open_to_all.port), timeout=20) as connection:
        connection.sendall(head + body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert len(protocol.heads) == kept
