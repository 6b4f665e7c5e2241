"""The Open Inference Protocol over REST: every test runs on the fast lane and on Starlette alike."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.bundle.format import Bundle
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings

FEATURES, CLASSES = 4, 3
INFER = "/v2/models/linear/infer"


def request_of(rows: int = 1, **changes: Any) -> dict[str, Any]:
    tensor = {"name": "x", "shape": [rows, FEATURES], "datatype": "FP32", "data": [0.5] * (rows * FEATURES)}
    return {"inputs": [tensor | changes]}


def one(kind: str, data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    """All inputs of the echo model, of which only ``kind`` matters."""
    filler = {"BOOL": False, "BYTES": ""}
    kinds = ["FP32", "FP64", "FP16", "INT8", "UINT8", "INT32", "INT64", "UINT64", "BOOL", "BYTES"]
    size = len(data) if shape is None else shape[0]
    return {
        "inputs": [
            {"name": k.lower(), "datatype": k, "shape": shape or [size], "data": data}
            if k == kind
            else {"name": k.lower(), "datatype": k, "shape": [size], "data": [filler.get(k, 0)] * size}
            for k in kinds
        ],
        "outputs": [{"name": f"same_{kind.lower()}"}],
    }


def test_an_inference_answers_with_model_version_shapes_and_data(http: httpx.Client) -> None:
    response = http.post(INFER, json=request_of(rows=2))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert (answer["model_name"], answer["model_version"]) == ("linear", "1")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [2, CLASSES])
    assert np.reshape(output["data"], (2, CLASSES)).sum(axis=1) == pytest.approx([1, 1], abs=1e-6)


def test_an_id_comes_back_and_its_absence_too(http: httpx.Client) -> None:
    assert http.post(INFER, json=request_of() | {"id": "a7"}).json()["id"] == "a7"
    assert "id" not in http.post(INFER, json=request_of()).json()
    assert "id" not in http.post(INFER, json=request_of() | {"id": ""}).json()


def test_a_version_may_be_named_and_leading_zeros_do_not_matter(http: httpx.Client) -> None:
    for version in ("1", "01"):
        response = http.post(f"/v2/models/linear/versions/{version}/infer", json=request_of())
        assert response.json()["model_version"] == "1"


def test_percent_encoded_names_are_the_same_names(http: httpx.Client) -> None:
    assert http.post("/v2/models/l%69near/infer", json=request_of()).status_code == 200


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("BOOL", [True, False]),
        ("INT8", [-128, 127]),
        ("UINT8", [0, 255]),
        ("INT32", [-(2**31), 2**31 - 1]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("FP16", [0.5, -2.25]),
        ("FP32", [0.5, 3]),
        ("FP64", [0.1, 1e300]),
        ("BYTES", ["grüße", "nul \x00 inside"]),
    ],
)
def test_every_datatype_goes_there_and_back(http: httpx.Client, kind: str, data: list[Any]) -> None:
    response = http.post("/v2/models/every/infer", json=one(kind, data))
    assert response.status_code == 200, response.text
    (output,) = response.json()["outputs"]
    assert (output["datatype"], output["shape"], output["data"]) == (kind, [2], data)


@pytest.mark.parametrize(
    "data", [[[1, 2, 3], [4, 5, 6]], [1, 2, 3, 4, 5, 6], [[1, 2], [3, 4, 5, 6]], [[[1]], [[2, 3, 4, 5, 6]]]]
)
def test_data_may_be_nested_flat_or_ragged_and_is_read_in_order(http: httpx.Client, data: Any) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": data}
    answer = http.post("/v2/models/free/infer", json={"inputs": [tensor]}).json()
    assert answer["outputs"][0]["data"] == [1, 2, 3, 4, 5, 6]


def test_bare_nan_and_infinity_pass_both_ways_where_the_model_allows_them(http: httpx.Client) -> None:
    body = json.dumps(one("FP64", [float("nan"), float("inf"), 1.0]))
    assert "NaN" in body
    response = http.post("/v2/models/every/infer", content=body)
    assert response.status_code == 200, response.text
    assert '"data":[NaN,Infinity,1.0]' in response.text


def test_named_outputs_come_alphabetically_and_once(http: httpx.Client) -> None:
    body = one("INT8", [1]) | {"outputs": [{"name": "same_int8"}, {"name": "same_bool"}, {"name": "same_int8"}]}
    names = [output["name"] for output in http.post("/v2/models/every/infer", json=body).json()["outputs"]]
    assert names == ["same_bool", "same_int8"]


def test_an_empty_list_of_outputs_means_all(http: httpx.Client) -> None:
    body = one("INT8", [1]) | {"outputs": []}
    assert len(http.post("/v2/models/every/infer", json=body).json()["outputs"]) == 10


def test_raw_is_a_boolean_parameter(http: httpx.Client, good: Callable[[], None]) -> None:
    assert http.post(INFER, json=request_of() | {"parameters": {"raw": True}}).status_code == 200
    expect(http.post(INFER, json=request_of() | {"parameters": {"raw": "yes"}}), 400, "raw")
    good()


def expect(response: httpx.Response, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    for word in words:
        assert word in error


BAD_BODIES: list[tuple[bytes | dict[str, Any], tuple[str, ...]]] = [
    (b"", ("empty", "inputs")),
    (b"{", ("not JSON",)),
    (json.dumps(request_of()).encode()[:-9], ("not JSON",)),
    (b"[1]", ("a list", "JSON object")),
    (b'"x"', ("a string", "JSON object")),
    (b'{"inputs": [{"name": "\xff"}]}', ("not JSON",)),
    (b"[" * 200_000, ("not JSON",)),
    (b'{"a": NaN, ' + b"[" * 200_000, ("not JSON",)),
    ({}, ("'inputs' is missing",)),
    ({"inputs": []}, ("'inputs' is missing",)),
    ({"inputs": [7]}, ("7", "JSON object")),
    ({"inputs": [{}]}, ("no name",)),
    (request_of(name="y"), ("'y'", "'x' is missing", "FP32 [-1, 4]")),
    ({"inputs": request_of()["inputs"] * 2}, ("'x'", "twice")),
    (request_of(shape=[1, 5], data=[0.5] * 5), ("[1, 5]", "[-1, 4]")),
    (request_of(shape=[4]), ("[4]", "[-1, 4]")),
    (request_of(shape=[2, 4]), ("8 values", "4 were sent")),
    (request_of(shape=[10**12, 4]), ("4 were sent",)),
    (request_of(shape=[2**62, 2**62]), ("4 were sent",)),
    (request_of(shape=[2**62, 0], data=[]), ("shape",)),
    (request_of(shape=[0, 4], data=[]), ("no rows",)),
    (request_of(shape=[-1, 4]), ("no valid shape",)),
    (request_of(shape=[1.0, 4]), ("no valid shape",)),
    (request_of(shape=[1] * 65), ("65 dimensions",)),
    (request_of(shape="1,4"), ("no valid shape",)),
    (request_of(datatype="FP64"), ("FP64", "FP32")),
    (request_of(datatype="float32"), ("'float32'", "FP32")),
    (request_of(datatype=["FP32"]), ("datatype",)),
    (request_of(data=["1", "2", "3", "4"]), ("strings", "numbers")),
    (request_of(data=[True, 1, 2, 3]), ("true/false",)),
    (request_of(data=[None, 1, 2, 3]), ("null",)),
    (request_of(data=[1, [2, 3, 4]]), ("unevenly",)),
    (request_of(data=7), ("must be a list",)),
    (request_of(data="abcd"), ("must be a list",)),
    (request_of() | {"id": 7}, ("'id'", "string")),
    (request_of() | {"parameters": 7}, ("parameters",)),
    (request_of() | {"parameters": {"timeout": -1}}, ("timeout", "microseconds")),
    (request_of() | {"parameters": {"timeout": "soon"}}, ("timeout",)),
    (request_of() | {"outputs": [{"name": "nope"}]}, ("'nope'", "probabilities")),
    (request_of() | {"outputs": {"name": "probabilities"}}, ("outputs",)),
    (request_of() | {"outputs": [{}]}, ("no name",)),
    (json.dumps(request_of(data=[float("nan"), 1, 2, 3])).encode(), ("nan", "[0, 0]", "finite")),
    (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1e39,1,2,3]}]}', ("inf", "finite")),
    (request_of(data=[10**400, 1, 2, 3]), ()),
    (b'{"more": NaN, "id": "\\ud800", ' + json.dumps(request_of()).encode()[1:], ("not JSON", "surrogates")),
    (b'{"more": NaN, "parameters": {"timeout": 1%s}, ' % (b"0" * 400) + json.dumps(request_of()).encode()[1:], ("timeout",)),
    ({"inputs": [{k: v for k, v in request_of()["inputs"][0].items() if k != "data"}]}, ("no data",)),
    (
        {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]},
        ("binary", "Inference-Header-Content-Length"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "words"), BAD_BODIES)
def test_a_bad_request_is_told_what_to_do_and_the_next_good_one_works(
    http: httpx.Client, good: Callable[[], None], body: bytes | dict[str, Any], words: tuple[str, ...]
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    expect(http.post(INFER, content=content), 400, *words)
    good()


OUT_OF_RANGE = [
    ("INT8", 128), ("INT8", -129), ("UINT8", 256), ("UINT8", -1), ("INT32", 2**31), ("UINT64", -1), ("UINT64", 2**64),
    ("INT8", 1.5),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), OUT_OF_RANGE)
def test_integers_out_of_range_are_refused_not_wrapped(http: httpx.Client, kind: str, value: float) -> None:
    expect(http.post("/v2/models/every/infer", json=one(kind, [value])), 400, kind)


def test_rows_must_agree_between_inputs(http: httpx.Client) -> None:
    body = one("INT8", [1, 2])
    body["inputs"][0] |= {"shape": [1], "data": [0]}
    expect(http.post("/v2/models/every/infer", json=body), 400, "differ in rows")


def test_unknown_models_versions_and_paths_are_404(http: httpx.Client, good: Callable[[], None]) -> None:
    for path in ("/v2/models/nope/infer", "/v2/models/linear/versions/9/infer", "/v2/models/linear/versions/x/infer"):
        expect(http.post(path, json=request_of()), 404, "known here", "linear:1")
    for path in ("/v2/models/nope", "/v2/models/nope/ready", "/v2/models/linear/versions/9"):
        expect(http.get(path), 400 if path.endswith("/ready") else 404, "linear:1")
    for path in ("/", "/v3", "/v2/models/linear/nope", "/v2/models//infer", "/v2/models/a/b/infer"):
        expect(http.post(path), 404, "/docs")
    good()


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", INFER, "POST"),
        ("PUT", INFER, "POST"),
        ("GET", "/v2/repository/index", "POST"),
        ("POST", "/v2", "GET"),
        ("DELETE", "/v2/models/linear", "GET"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_is_right(
    http: httpx.Client, good: Callable[[], None], method: str, path: str, allowed: str
) -> None:
    response = http.request(method, path)
    expect(response, 405, method, allowed)
    assert allowed in response.headers["allow"]
    good()


def test_a_body_above_the_limit_is_413_however_it_comes(http: httpx.Client, good: Callable[[], None]) -> None:
    large = b" " * (2**20 + 1)
    expect(http.post(INFER, content=large), 413, "1,048,576 bytes")
    good()
    expect(http.post(INFER, content=iter([large[:500_000]] * 3)), 413, "1,048,576 bytes")  # chunked
    good()
    expect(http.post("/v2/repository/index", content=large), 413, "1,048,576 bytes")
    good()
    expect(http.post(INFER, content=gzip.compress(large), headers={"content-encoding": "gzip"}), 413, "1,048,576 bytes")
    good()


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_bodies_are_read(
    http: httpx.Client, encoding: str, compress: Callable[[bytes], bytes], good: Callable[[], None]
) -> None:
    body = compress(json.dumps(request_of()).encode())
    headers = {"content-encoding": encoding}
    assert http.post(INFER, content=body, headers=headers).status_code == 200
    expect(http.post(INFER, content=body[:-4], headers=headers), 400, "truncated")
    expect(http.post(INFER, content=b"plain", headers=headers), 400, encoding)
    good()


@pytest.mark.parametrize("encodings", [("gzip", "identity"), ("identity", "gzip")])
def test_encodings_on_two_lines_are_one_list(http: httpx.Client, encodings: tuple[str, str]) -> None:
    body = gzip.compress(json.dumps(request_of()).encode())
    headers = [("content-encoding", encoding) for encoding in encodings]
    assert http.post(INFER, content=body, headers=headers).status_code == 200


def test_ten_megabytes_that_no_model_takes_are_told_so_and_the_next_request_works(bundles: tuple[Bundle, ...]) -> None:
    with serve(bundles[0], settings=ServeSettings(port=0)) as running, httpx.Client(base_url=running.url) as http:
        content = json.dumps(request_of(data=[0.125] * 1_500_000)).encode()
        assert len(content) > 10_000_000
        expect(http.post("/v2/models/linear/infer", content=content), 400, "4 values", "1500000 were sent")
        assert http.post("/v2/models/linear/infer", json=request_of()).status_code == 200


def test_an_unknown_content_encoding_is_415(http: httpx.Client, good: Callable[[], None]) -> None:
    expect(http.post(INFER, content=b"x", headers={"content-encoding": "br"}), 415, "'br'", "gzip")
    good()


def test_headers_above_the_limit_are_431(server: RunningServer, http: httpx.Client, good: Callable[[], None]) -> None:
    expect(http.post(INFER, json=request_of(), headers={"x-long": "a" * 9000}), 431, "8,192 bytes")
    good()
    many = b"".join(b"x-%d: a\r\n" % n for n in range(2_000))
    with raw(server) as connection:
        connection.sendall(message(b"{}", many))
        ((status, answer),) = responses(connection, 1)
    assert status == 431
    assert "8,192 bytes" in answer["error"]
    good()


def test_server_and_model_metadata(http: httpx.Client) -> None:
    for path in ("/v2", "/v2/"):
        assert http.get(path).json()["name"] == "fairway"
    for path in ("/v2/models/linear", "/v2/models/linear/versions/1"):
        answer = http.get(path).json()
        assert answer["name"] == "linear"
        assert answer["versions"] == ["1"]
        assert answer["platform"] == "onnxruntime_onnx"
        assert answer["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, FEATURES]}]
        assert answer["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, CLASSES]}]


def test_health_and_readiness(http: httpx.Client) -> None:
    for path in (
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/linear/ready",
        "/v2/models/linear/versions/1/ready",
    ):
        assert http.get(path).status_code == 200


def test_the_repository_index_is_an_array(http: httpx.Client) -> None:
    entry = {"name": "linear", "version": "1", "state": "READY", "reason": ""}
    assert entry in http.post("/v2/repository/index").json()
    assert entry in http.post("/v2/repository/index", json={"ready": True}).json()
    expect(http.post("/v2/repository/index", content=b"{"), 400, "JSON")


# -- what clients do to a connection


def raw(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def message(body: bytes, extra: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\nhost: x\r\n%scontent-length: %d\r\n\r\n" % (INFER.encode(), extra, len(body)) + body


def responses(connection: socket.socket, count: int) -> list[tuple[int, dict[str, Any]]]:
    stream = connection.makefile("rb")
    found = []
    for _ in range(count):
        status = int(stream.readline().split()[1])
        length = 0
        while line := stream.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        found.append((status, json.loads(stream.read(length))))
    return found


def test_pipelined_requests_are_answered_in_order(server: RunningServer) -> None:
    bodies = [json.dumps(request_of() | {"id": str(n)}).encode() for n in range(50)]
    with raw(server) as connection:
        connection.sendall(b"".join(map(message, bodies)))
        assert [answer["id"] for _, answer in responses(connection, 50)] == [str(n) for n in range(50)]


def test_a_long_pipeline_of_refusals_is_answered_too(server: RunningServer) -> None:
    with raw(server) as connection:
        writer = threading.Thread(target=connection.sendall, args=(message(b"") * 3000,))
        writer.start()
        assert {status for status, _ in responses(connection, 3000)} == {400}
        writer.join()


def test_pipelined_requests_may_mix_routes(server: RunningServer) -> None:
    ready = b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\n\r\n"
    infer = message(json.dumps(request_of()).encode())
    with raw(server) as connection:
        connection.sendall(infer + ready + infer + infer + ready)
        answers = [answer for _, answer in responses(connection, 5)]
    assert ["ready" in answer for answer in answers] == [False, True, False, False, True]


def test_a_request_may_arrive_byte_by_byte(server: RunningServer) -> None:
    with raw(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in message(json.dumps(request_of()).encode()):
            connection.sendall(bytes([byte]))
        assert responses(connection, 1)[0][0] == 200


def test_chunks_may_have_extensions_and_trailers(server: RunningServer) -> None:
    body = json.dumps(request_of()).encode()
    head = b"POST %s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % INFER.encode()
    with raw(server) as connection:
        connection.sendall(head + b"%x;why=not\r\n" % len(body) + body + b"\r\n0\r\nx-after: 1\r\n\r\n" + message(body))
        assert [status for status, _ in responses(connection, 2)] == [200, 200]


def test_a_client_that_expects_100_continue_gets_it(server: RunningServer) -> None:
    body = json.dumps(request_of()).encode()
    whole = message(body, b"expect: 100-continue\r\n")
    with raw(server) as connection:
        connection.sendall(whole[: -len(body)])
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert responses(connection, 1)[0][0] == 200


def test_a_client_that_expects_100_continue_for_too_much_is_refused_before_it_sends(server: RunningServer) -> None:
    with raw(server) as connection:
        connection.sendall(
            b"POST %s HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n" % INFER.encode()
        )
        assert responses(connection, 1)[0][0] == 413


@pytest.mark.parametrize(
    "rubbish",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"GET nothing\r\n\r\n", b"HELLO\r\n\r\n", b"POST /\xff HTTP/1.1\r\n\r\n"],
)
def test_what_is_not_http_gets_a_400_in_json(server: RunningServer, good: Callable[[], None], rubbish: bytes) -> None:
    with raw(server) as connection:
        connection.sendall(rubbish)
        ((status, answer),) = responses(connection, 1)
        assert (status, connection.recv(1)) == (400, b"")
        assert answer["error"]
    good()


def test_a_head_without_end_is_refused_before_it_fills_memory(server: RunningServer, good: Callable[[], None]) -> None:
    with raw(server) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nx: ")
        received = b""
        try:
            for _ in range(64):
                connection.sendall(b"a" * 2**16)
            received = connection.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            received = received or b"closed"
        assert received.startswith((b"HTTP/1.1 431", b"closed"))
    good()


def test_a_client_that_leaves_in_the_middle_harms_nobody(server: RunningServer, good: Callable[[], None]) -> None:
    body = json.dumps(request_of()).encode()
    for length in (5, 60, len(message(body)) - 3, len(message(body))):
        with raw(server) as connection:
            connection.sendall(message(body)[:length])
    good()


def test_http_1_0_is_answered_and_closed(server: RunningServer) -> None:
    with raw(server) as connection:
        connection.sendall(message(json.dumps(request_of()).encode()).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert responses(connection, 1)[0][0] == 200
        assert connection.recv(1) == b""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
tensor_like = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | json_values,
        "shape": st.lists(st.integers(-1, 5), max_size=3) | json_values,
        "datatype": st.sampled_from(["FP32", "INT8", "BYTES"]) | json_values,
        "data": st.lists(st.floats(width=32), max_size=8) | json_values,
        "parameters": json_values,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(tensor_like, max_size=3) | json_values},
        optional={
            "id": json_values,
            "outputs": st.lists(tensor_like, max_size=2) | json_values,
            "parameters": json_values,
        },
    )
)
def test_whatever_json_comes_in_no_answer_is_a_server_error(http: httpx.Client, body: dict[str, Any]) -> None:
    response = http.post(INFER, content=json.dumps(body))
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert response.json()["error"]
