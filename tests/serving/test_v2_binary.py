"""The binary tensor extension over REST, by the field's own client, unchanged, and by hand; on both lanes."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fairway.core.errors import InferenceFailed
from fairway.core.manifest import EngineSpec
from fairway.core.messages import InferResponse
from fairway.core.tensors import Datatype, TensorSpec
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings
from fairway.serving.transports.v2 import Reply
from fairway.serving.transports.v2binary import encode_reply
from fairway.serving.transports.v2json import encode_response
from fairway.testing.builders import linear_bundle
from tests.serving.conftest import echo_bundle

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")

LENGTH = "inference-header-content-length"
NUMERIC = [kind for kind in Datatype if kind is not Datatype.BYTES]


@pytest.fixture(scope="module", params=["fast lane", "starlette"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """``echo`` takes one tensor per datatype but BF16, ``brain`` BF16; ``free`` has free sizes; ``linear`` labels."""
    root = tmp_path_factory.mktemp("binary")
    specs = [TensorSpec(kind.value.lower(), kind, (-1, 2)) for kind in Datatype if kind is not Datatype.BF16]
    echo = [echo_bundle(root / spec.name, f"echo_{spec.name}", (spec,)) for spec in specs]
    brain = echo_bundle(root / "bf16", "echo_bf16", (TensorSpec("bf16", Datatype.BF16, (-1, 2)),))
    two = echo_bundle(
        root / "two", "two", (TensorSpec("a", Datatype.FP32, (-1, 2)), TensorSpec("b", Datatype.BYTES, (-1,)))
    )
    free = echo_bundle(root / "free", "free", (TensorSpec("x", Datatype.FP32, (-1, -1)),), EngineSpec(max_batch=8))
    linear = linear_bundle(root / "linear", weights=np.eye(3), bias=np.zeros(3))
    settings = ServeSettings(port=0, fast_lane=request.param == "fast lane", max_body_bytes=2**20)
    with serve((*echo, brain, two, free, linear), settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Any]:
    made = triton.InferenceServerClient(server.url.removeprefix("http://"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20, headers={"accept-encoding": "identity"}) as made:
        yield made


def values(kind: Datatype) -> Any:
    if kind is Datatype.BYTES:
        return np.array([[b"", b"nul \x00 inside"], ["grüße".encode(), b"c" * 300]], dtype=object)
    if kind is Datatype.BOOL:
        return np.array([[True, False], [False, True]])
    if kind.is_float:
        return np.array([[0.5, -2.25], [3, 1e4]]).astype(kind.dtype)
    limits = np.iinfo(kind.dtype)
    return np.array([[limits.min, limits.max], [0, 1]], kind.dtype)


def sent(kind: Datatype, *, binary: bool = True) -> Any:
    tensor = triton.InferInput(kind.value.lower(), [2, 2], kind.value)
    tensor.set_data_from_numpy(values(kind), binary_data=binary)
    return tensor


@pytest.mark.parametrize("kind", Datatype)
@pytest.mark.parametrize("listed", [False, True])
def test_every_datatype_goes_there_and_back_as_bytes(client: Any, kind: Datatype, listed: bool) -> None:
    name = f"same_{kind.value.lower()}"
    outputs = [triton.InferRequestedOutput(name)] if listed else None
    result = client.infer(f"echo_{kind.value.lower()}", [sent(kind)], outputs=outputs, request_id="7")
    assert "binary_data_size" in result.get_output(name)["parameters"]
    assert result.get_response()["id"] == "7"
    np.testing.assert_array_equal(result.as_numpy(name), values(kind))
    assert result.as_numpy(name).dtype == values(kind).dtype


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("kind", [Datatype.FP32, Datatype.INT64, Datatype.BOOL])
def test_json_in_and_bytes_out_and_the_other_way_round(client: Any, kind: Datatype, binary: bool) -> None:
    name = f"same_{kind.value.lower()}"
    wanted = [triton.InferRequestedOutput(name, binary_data=not binary)]
    result = client.infer(f"echo_{kind.value.lower()}", [sent(kind, binary=binary)], outputs=wanted)
    assert ("data" in result.get_output(name)) is binary
    np.testing.assert_array_equal(result.as_numpy(name), values(kind))


@pytest.mark.parametrize("up", [None, "gzip", "deflate"])
@pytest.mark.parametrize("down", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [False, True])
def test_compression_both_ways(client: Any, up: str | None, down: str | None, binary: bool) -> None:
    rows = np.arange(2000, dtype=np.float32).reshape(2, 1000)
    tensor = triton.InferInput("x", rows.shape, "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    result = client.infer(
        "free",
        [tensor],
        outputs=[triton.InferRequestedOutput("same_x", binary_data=binary)],
        request_compression_algorithm=up,
        response_compression_algorithm=down,
    )
    np.testing.assert_array_equal(result.as_numpy("same_x"), rows)


def test_the_asynchronous_client(server: RunningServer) -> None:
    import tritonclient.http.aio as triton_aio

    async def ask() -> Any:
        async with triton_aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
            asked = [client.infer(f"echo_{k.value.lower()}", [sent(k)]) for k in Datatype]
            rows = np.ones((1, 5000), np.float32)
            large = triton.InferInput("x", rows.shape, "FP32")
            large.set_data_from_numpy(rows)
            return await asyncio.gather(*asked, client.infer("free", [large]))

    *results, large = asyncio.run(ask())
    for kind, result in zip(Datatype, results, strict=True):
        np.testing.assert_array_equal(result.as_numpy(f"same_{kind.value.lower()}"), values(kind))
    assert large.as_numpy("same_x").sum() == 5000


@pytest.mark.parametrize("binary", [False, True])
def test_classes_with_their_labels(client: Any, binary: bool) -> None:
    tensor = triton.InferInput("x", [2, 3], "FP32")
    tensor.set_data_from_numpy(np.array([[0, 9, 1], [5, 0, 0]], np.float32))
    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)
    result = client.infer("linear", [tensor], outputs=[wanted])
    found = result.as_numpy("probabilities").astype(str)
    assert result.get_output("probabilities")["datatype"] == "BYTES"
    assert found.shape == (2, 2)
    assert [text.split(":")[1:] for text in found[0]] == [["1", "1"], ["2", "2"]]
    assert float(found[1, 0].split(":")[0]) == pytest.approx(0.986703, abs=1e-6)


def test_classes_are_capped_and_text_has_none(http: httpx.Client) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    for asked, shape in ((99, [1, 3]), (0, [1, 3]), (1, [1, 1])):
        entry = {"name": "probabilities", "parameters": {"classification": asked}}
        answer = http.post("/v2/models/linear/infer", json=body | {"outputs": [entry]}).json()
        assert answer["outputs"][0]["shape"] == shape
    text = {"name": "bytes", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "b"]}
    wanted = {"name": "same_bytes", "parameters": {"classification": 1}}
    refused = http.post("/v2/models/echo_bytes/infer", json={"inputs": [text], "outputs": [wanted]})
    assert refused.status_code == 400
    assert "classification" in refused.json()["error"]


def test_blobs_come_in_the_order_of_the_answer(client: Any) -> None:
    a = triton.InferInput("a", [1, 2], "FP32")
    a.set_data_from_numpy(np.array([[1, 2]], np.float32))
    b = triton.InferInput("b", [1], "BYTES")
    b.set_data_from_numpy(np.array([b"text"], dtype=object))
    wanted = [triton.InferRequestedOutput("same_b"), triton.InferRequestedOutput("same_a")]
    for outputs in (None, wanted, [wanted[0], triton.InferRequestedOutput("same_a", binary_data=False)]):
        result = client.infer("two", [b, a], outputs=outputs)
        assert result.as_numpy("same_a").tolist() == [[1, 2]]
        assert result.as_numpy("same_b").tolist() == [b"text"]


def framed(header: dict[str, Any], *blobs: bytes) -> dict[str, Any]:
    """What to post: JSON and blobs."""
    start = json.dumps(header).encode()
    return {"content": start + b"".join(blobs), "headers": {LENGTH: str(len(start))}}


def one(size: Any = 8, *, shape: Any = (1, 2), datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    """An input of the echo model of FP32, sent as binary."""
    return {
        "name": "fp32",
        "shape": list(shape),
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
        **more,
    }


GOOD = np.array([1, 2], np.float32).tobytes()


def test_binary_data_output_is_for_requests_that_list_no_outputs(http: httpx.Client) -> None:
    data = {"name": "fp32", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    path = "/v2/models/echo_fp32/infer"
    whole = {"inputs": [data], "parameters": {"binary_data_output": True}}
    assert LENGTH in http.post(path, json=whole).headers
    assert LENGTH in http.post(path, json=whole | {"outputs": []}).headers
    assert LENGTH not in http.post(path, json=whole | {"outputs": [{"name": "same_fp32"}]}).headers
    own = {"name": "same_fp32", "parameters": {"binary_data": True}}
    answer = http.post(path, json={"inputs": [data], "outputs": [own], "parameters": {"binary_data_output": False}})
    assert answer.headers["content-type"] == "application/octet-stream"
    size = int(answer.headers[LENGTH])
    assert answer.content[size:] == GOOD
    assert json.loads(answer.content[:size])["outputs"][0]["parameters"] == {"binary_data_size": 8}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_the_header_length_counts_uncompressed_json(http: httpx.Client, encoding: str) -> None:
    post = framed({"inputs": [one()]}, GOOD)
    post["content"] = (gzip.compress if encoding == "gzip" else zlib.compress)(post["content"])
    post["headers"]["content-encoding"] = encoding
    assert http.post("/v2/models/echo_fp32/infer", **post).json()["outputs"][0]["data"] == [1, 2]


BAD: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (framed({"inputs": [one(16)]}, GOOD + GOOD), ("8 bytes", "16 were sent")),
    (framed({"inputs": [one(4)]}, GOOD[:4]), ("8 bytes", "4 were sent")),
    (framed({"inputs": [one()]}, GOOD[:5]), ("5 bytes are left",)),
    (framed({"inputs": [one()]}, GOOD + b"x"), ("1 bytes follow",)),
    (framed({"inputs": [one(data=[1, 2])]}, GOOD), ("8 bytes follow",)),
    (framed({"inputs": [one(-1)]}), ("binary_data_size", "-1")),
    (framed({"inputs": [one("8")]}, GOOD), ("binary_data_size", "'8'")),
    (framed({"inputs": [one(True)]}, GOOD), ("binary_data_size", "True")),
    (framed({"inputs": [one(2**63)]}, GOOD), ("bytes are left",)),
    (framed({"inputs": [one(8, shape=[10**12, 2])]}, GOOD), ("8 were sent",)),
    (framed({"inputs": [one(8, shape=[2**62, 2**62])]}, GOOD), ("8 were sent",)),
    (framed({"inputs": [one(0, shape=[0, 2**62])]}), ("shape",)),
    (framed({"inputs": [one(8, datatype="FP64", shape=[1])]}, GOOD), ("FP64", "FP32")),
    ({"content": b"{}", "headers": {LENGTH: "3"}}, ("2 bytes",)),
    ({"content": b"{}", "headers": {LENGTH: "-1"}}, ("'-1'",)),
    ({"content": b"{}", "headers": {LENGTH: "two"}}, ("'two'",)),
    ({"content": b"{}", "headers": {LENGTH: "9" * 30}}, ("how many bytes",)),
    ({"content": b"\xff\xfe", "headers": {LENGTH: "2"}}, ("not JSON",)),
    ({"content": json.dumps({"inputs": [one()]}).encode() + GOOD}, ("not JSON",)),
    ({"content": json.dumps({"inputs": [one()]}).encode()}, ("Inference-Header-Content-Length",)),
    ({"content": GOOD + GOOD, "headers": {LENGTH: "0"}}, ("8 bytes", "16 were sent")),
    ({"content": b"", "headers": {LENGTH: "0"}}, ("empty",)),
    (framed({"inputs": [one()], "parameters": {"binary_data_output": 1}}, GOOD), ("binary_data_output",)),
    (framed({"inputs": [one()], "outputs": [{"name": "same_fp32", "parameters": {"binary_data": "yes"}}]}, GOOD),
     ("binary_data", "'yes'")),
    (framed({"inputs": [one()], "outputs": [{"name": "same_fp32", "parameters": {"classification": -1}}]}, GOOD),
     ("classification", "-1")),
    (framed({"inputs": [one()], "outputs": [{"name": "same_fp32", "parameters": [1]}]}, GOOD), ("parameters",)),
]  # fmt: skip


@pytest.mark.parametrize(("post", "words"), BAD)
def test_bad_binary_is_told_what_is_wrong_and_the_next_request_works(
    http: httpx.Client, post: dict[str, Any], words: tuple[str, ...]
) -> None:
    response = http.post("/v2/models/echo_fp32/infer", **post)
    assert response.status_code == 400, response.text
    for word in words:
        assert word in response.json()["error"]
    good = http.post("/v2/models/echo_fp32/infer", **framed({"inputs": [one()]}, GOOD))
    assert good.json()["outputs"][0]["data"] == [1, 2]


def test_shared_memory_that_is_off_is_refused_in_words(http: httpx.Client) -> None:
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    there = {"name": "fp32", "shape": [1, 2], "datatype": "FP32", "parameters": region}
    here = {"name": "fp32", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    for body in ({"inputs": [there]}, {"inputs": [here], "outputs": [{"name": "same_fp32", "parameters": region}]}):
        response = http.post("/v2/models/echo_fp32/infer", json=body)
        assert response.status_code == 403
        assert "shared_memory = true" in response.json()["error"]


def test_a_raw_tensor_is_one_row_that_fills_the_free_size(http: httpx.Client) -> None:
    zero = {LENGTH: "0"}
    for model, content, shape in (("echo_fp32", GOOD, [1, 2]), ("free", GOOD * 3, [1, 6])):
        response = http.post(f"/v2/models/{model}/infer", content=content, headers=zero)
        size = int(response.headers[LENGTH])
        assert json.loads(response.content[:size])["outputs"][0]["shape"] == shape
        assert response.content[size:] == content
    refused = http.post("/v2/models/two/infer", content=GOOD, headers=zero)
    assert (refused.status_code, "2 inputs" in refused.json()["error"]) == (400, True)
    assert http.post("/v2/models/absent/infer", content=GOOD, headers=zero).status_code == 404


def test_bf16_is_binary_only(http: httpx.Client) -> None:
    path = "/v2/models/echo_bf16/infer"
    tensor = {"name": "bf16", "shape": [1, 2], "datatype": "BF16"}
    response = http.post(path, json={"inputs": [tensor | {"data": [1, 2]}]})
    assert (response.status_code, "BF16" in response.json()["error"]) == (400, True)
    raw = values(Datatype.BF16)[:1].tobytes()
    response = http.post(path, **framed({"inputs": [tensor | {"parameters": {"binary_data_size": 4}}]}, raw))
    assert (response.status_code, "BF16" in response.json()["error"]) == (400, True)


def test_bf16_is_checked_for_nan(http: httpx.Client) -> None:
    raw = np.array([1, np.nan], Datatype.BF16.dtype).tobytes()
    tensor = {"name": "bf16", "shape": [1, 2], "datatype": "BF16", "parameters": {"binary_data_size": 4}}
    body = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    response = http.post("/v2/models/echo_bf16/infer", **framed(body, raw))
    assert (response.status_code, "finite" in response.json()["error"]) == (400, True)


def test_bytes_that_are_not_utf8_need_binary() -> None:
    response = InferResponse("m", "1", {"o": np.array([b"\xff"], dtype=object)})
    with pytest.raises(InferenceFailed, match="binary_data"):
        encode_response(response)
    answer = encode_reply(response, Reply(binary=True), None)
    assert answer.blobs == [b"\x01\0\0\0\xff"]


ROWS = {"inputs": [{"name": "x", "shape": [1, 1000], "datatype": "FP32", "data": [0.5] * 1000}]}


@pytest.mark.parametrize(
    ("accepts", "chosen"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0.2, deflate;q=0.8", "deflate"),
        ("*", "gzip"),
        ("gzip;q=0, *", "deflate"),
        ("br", None),
        ("identity, gzip;q=0.5", None),
        ("gzip;q=0", None),
        ("gzip;q=much", None),
        ("", None),
    ],
)
def test_answers_are_compressed_as_the_caller_prefers(http: httpx.Client, accepts: str, chosen: str | None) -> None:
    response = http.post("/v2/models/free/infer", json=ROWS, headers={"accept-encoding": accepts})
    assert response.headers.get("content-encoding") == chosen
    assert response.json()["outputs"][0]["data"] == [0.5] * 1000


def test_small_answers_and_errors_are_not_compressed(http: httpx.Client) -> None:
    gzipped = {"accept-encoding": "gzip"}
    response = http.post("/v2/models/echo_fp32/infer", headers=gzipped, content=b"{}")
    assert "content-encoding" not in response.headers
    data = {"name": "fp32", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    response = http.post("/v2/models/echo_fp32/infer", json={"inputs": [data]}, headers=gzipped)
    assert "content-encoding" not in response.headers


def test_the_engine_refuses_what_onnx_runtime_cannot_mix(tmp_path: Path) -> None:
    from fairway.core.errors import InvalidBundle
    from fairway.model import Model

    bundle = echo_bundle(
        tmp_path / "mixed", "mixed", (TensorSpec("b", Datatype.BF16, (-1,)), TensorSpec("s", Datatype.BYTES, (-1,)))
    )
    with pytest.raises(InvalidBundle, match="BF16"):
        Model(bundle)
