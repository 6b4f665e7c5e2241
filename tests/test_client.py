"""The Python client against a real server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.client import Client, connect
from fairway.core.errors import (
    DeadlineExceeded,
    FairwayError,
    InvalidConfig,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    RequestTooLarge,
    ServerUnavailable,
)
from fairway.core.tensors import Datatype, Tensor, TensorSpec
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings
from fairway.testing.builders import linear_bundle
from tests.serving.conftest import echo_bundle

WEIGHTS = np.arange(6.0).reshape(2, 3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return linear_bundle(tmp_path_factory.mktemp("b") / "b", weights=WEIGHTS, bias=np.zeros(3))


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> Iterator[RunningServer]:
    with serve(bundle, settings=ServeSettings(port=0, max_body_bytes=2**20)) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with connect(server.url) as opened:
        yield opened


def test_arrays_in_arrays_out(client: Client) -> None:
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    response = client.infer("linear", {"x": x}, id="7")
    scores = np.exp(x @ WEIGHTS)
    assert response.outputs["probabilities"].dtype == np.float32
    assert response.outputs["probabilities"] == pytest.approx(scores / scores.sum(axis=1, keepdims=True), abs=1e-5)
    assert (response.model, response.version, response.id) == ("linear", "1", "7")


def test_slices_and_transposed_arrays_are_sent_in_their_own_order(client: Client) -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 6) / 10
    for view in (x.T, x[:, ::3], np.asfortranarray(x[:, :2])):
        copied = client.infer("linear", {"x": np.ascontiguousarray(view)}).outputs["probabilities"]
        assert client.infer("linear", {"x": view}).outputs["probabilities"].tolist() == copied.tolist()


def test_lists_are_sent_as_what_the_model_takes(client: Client) -> None:
    assert client.infer("linear", {"x": [[1, 2]]}).outputs["probabilities"].shape == (1, 3)
    with pytest.raises(InvalidRequest, match="'x'"):
        client.infer("linear", {"x": [["one", "two"]]})


def test_a_version_and_outputs_may_be_chosen(client: Client) -> None:
    response = client.infer("linear", {"x": [[1, 2]]}, version=1, outputs=["probabilities"], key="me")
    assert (response.version, list(response.outputs)) == ("1", ["probabilities"])


def test_questions_about_the_server(client: Client) -> None:
    assert client.live()
    assert client.ready()
    assert client.ready("linear")
    assert not client.ready("nope")
    assert client.metadata()["name"] == "fairway"
    assert client.metadata("linear")["inputs"][0]["datatype"] == "FP32"
    assert client.index() == [{"name": "linear", "version": "1", "state": "READY", "reason": ""}]


def test_errors_have_the_servers_type_and_words(client: Client) -> None:
    x = np.zeros((1, 2), np.float32)
    with pytest.raises(ModelNotFound, match="known here: linear:1"):
        client.infer("nope", {"x": x})
    with pytest.raises(InvalidRequest, match="FP64"):
        client.infer("linear", {"x": x.astype(np.float64)})
    with pytest.raises(InvalidRequest, match="finite"):
        client.infer("linear", {"x": x * np.nan})
    with pytest.raises(InvalidRequest, match="no output"):
        client.infer("linear", {"x": x}, outputs=["nope"])
    with pytest.raises(RequestTooLarge, match="1,048,576"):
        client.infer("linear", {"x": np.zeros((300_000, 2), np.float32)})
    with pytest.raises(InvalidRequest, match="BYTES"):
        client.infer("linear", {"x": np.array([b"\xff"], dtype=object)})
    with pytest.raises(InvalidRequest, match="holds int"):
        client.infer("linear", {"x": np.array([7], dtype=object)})
    assert client.infer("linear", {"x": x}).version == "1"


def test_a_server_that_is_not_there_is_said_in_words(server: RunningServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with connect(url) as client:
        assert not client.live()
        with pytest.raises(ServerUnavailable, match="fairway serve"):
            client.infer("linear", {"x": np.zeros((1, 2), np.float32)})


@pytest.mark.parametrize("url", ["localhost:8080", "", "ftp://x", "http://[x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig, match="address"):
        connect(url)


class Scripted:
    """Answers each connection with the next of some prepared answers."""

    def __init__(self, *answers: bytes) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.met = 0
        self.received: list[bytes] = []
        self._thread = threading.Thread(target=self._run, args=(answers,))
        self._thread.start()

    def _run(self, answers: tuple[bytes, ...]) -> None:
        for answer in answers:
            connection, _ = self._socket.accept()
            with connection:
                self.met += 1
                received = connection.recv(65536)
                while b"\r\n\r\n" not in received or (received[:4] == b"POST" and not received.endswith(b"}")):
                    received += connection.recv(65536)
                self.received.append(received)
                connection.sendall(answer)

    def close(self) -> None:
        self._thread.join(20)
        self._socket.close()


def answer(status: int, body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%scontent-length: %d\r\nconnection: close\r\n\r\n" % (status, extra, len(body)) + body


GOOD = answer(200, b'{"model_name":"m","model_version":"3","outputs":[]}')
FULL = answer(429, b'{"error":"full","code":"overloaded"}', b"retry-after: 0\r\n")
STARTING = answer(503, b'{"error":"starting","code":"model_not_ready"}')
X = {"x": np.zeros((1, 1), np.float32)}


def test_what_was_not_taken_is_sent_again_within_the_budget() -> None:
    server = Scripted(FULL, STARTING, GOOD)
    with connect(server.url, binary=False, retry_s=20) as client:
        assert client.infer("m", X).version == "3"
    server.close()
    assert server.met == 3


def test_nothing_is_sent_again_unless_asked() -> None:
    server = Scripted(FULL)
    with connect(server.url, binary=False) as client, pytest.raises(Overloaded, match="full") as refusal:
        client.infer("m", X)
    server.close()
    assert refusal.value.retry_after_s == 0


def test_a_wish_beyond_the_budget_ends_the_trying() -> None:
    server = Scripted(FULL.replace(b"retry-after: 0", b"retry-after: 99"))
    with connect(server.url, binary=False, retry_s=5) as client, pytest.raises(Overloaded):
        client.infer("m", X)
    server.close()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(504, b'{"error":"late","code":"deadline_exceeded"}'), DeadlineExceeded),
        (answer(503, b"<html>"), ModelNotReady),
        (answer(404, b'{"error":"Triton says no"}'), ModelNotFound),
        (answer(400, b'{"error":"bad"}'), InvalidRequest),
        (answer(500, b'{"error":"worse","code":"never heard of"}'), FairwayError),
        (answer(200, b"<html>"), ServerUnavailable),
        (answer(200, b'{"outputs": 7}'), ServerUnavailable),
        (b"", ServerUnavailable),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", ServerUnavailable),
    ],
)
def test_whatever_a_server_says_is_a_typed_error_and_is_not_sent_twice(reply: bytes, kind: type[FairwayError]) -> None:
    server = Scripted(reply)
    with connect(server.url, binary=False, retry_s=0 if kind is ModelNotReady else 20) as client, pytest.raises(kind):
        client.infer("m", X)
    server.close()
    assert server.met == 1


def test_a_server_that_keeps_silent_is_given_up_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with connect(url, binary=False, timeout_s=0.05) as client, pytest.raises(ServerUnavailable, match="timeout_s"):
            client.infer("m", X)


def test_importing_the_client_does_not_load_httpx() -> None:
    import subprocess
    import sys

    code = "import sys, fairway.client; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


KINDS = {
    "numbers": tuple(kind for kind in Datatype if kind is not Datatype.BYTES),
    "texts": (Datatype.BYTES, Datatype.INT64, Datatype.BOOL),
}


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Models that give back what they get, in every datatype."""
    root = tmp_path_factory.mktemp("every")
    echoes = [
        echo_bundle(root / name, name, tuple(TensorSpec(kind.value.lower(), kind, (-1,)) for kind in kinds))
        for name, kinds in KINDS.items()
    ]
    with serve(echoes, settings=ServeSettings(port=0)) as running:
        yield running


def values(kind: Datatype, count: int) -> Tensor:
    if kind is Datatype.BYTES:
        return np.array([f"\u00fc\0{index}".encode() for index in range(count)], dtype=object)
    return (np.arange(count) % 2).astype(kind.dtype)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("count", [1, 3, 20_000])
@pytest.mark.parametrize("model", KINDS)
def test_every_datatype_there_and_back_as_bytes(every: RunningServer, model: str, count: int, compressed: bool) -> None:
    feed = {kind.value.lower(): values(kind, count) for kind in KINDS[model]}
    some = ["same_bool", "same_int64"]
    with connect(every.url, compressed=compressed) as client:
        for outputs in (None, some):
            answer = client.infer(model, feed, outputs=outputs)
            assert set(answer.outputs) == ({f"same_{name}" for name in feed} if outputs is None else set(some))
            for name, array in answer.outputs.items():
                sent = feed[name.removeprefix("same_")]
                assert array.dtype == sent.dtype
                assert array.tolist() == sent.tolist()
                array[0] = array[-1]  # it is the caller's own


def test_servers_without_the_extension_get_json() -> None:
    metadata = answer(200, b'{"name":"other","version":"1","extensions":[]}')
    for first in (metadata, answer(404, b"{}"), answer(500, b"<html>")):
        server = Scripted(first, GOOD)
        with connect(server.url) as client:
            assert client.infer("m", X).version == "3"
        server.close()
        assert b"content-type: application/json" in server.received[1].lower()
        assert b'"data":[0.0]' in server.received[1]


def test_json_cannot_carry_everything() -> None:
    with connect("http://127.0.0.1:1", binary=False) as client:
        with pytest.raises(InvalidRequest, match="not UTF-8"):
            client.infer("m", {"x": np.array([b"\xff"], dtype=object)})
        with pytest.raises(InvalidRequest, match="BF16"):
            client.infer("m", {"x": values(Datatype.BF16, 1)})


def test_answers_are_not_compressed_unless_asked_for() -> None:
    for compressed, sent in ((False, b"accept-encoding: identity"), (True, b"accept-encoding: gzip, deflate")):
        server = Scripted(GOOD)
        with connect(server.url, binary=False, compressed=compressed) as client:
            client.infer("m", X)
        server.close()
        assert sent in server.received[0].lower()


BINARY = (
    b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}'
)


@pytest.mark.parametrize(
    ("length", "rest"),
    [(len(BINARY), b"\0\0"), (len(BINARY), b""), (7, b"\0\0\0\0"), (10**6, b"\0\0\0\0"), (0, b"")],
)
def test_binary_answers_that_are_cut_off_are_told(length: int, rest: bytes) -> None:
    server = Scripted(answer(200, BINARY + rest, b"inference-header-content-length: %d\r\n" % length))
    with connect(server.url, binary=False) as client, pytest.raises(ServerUnavailable):
        client.infer("m", X)
    server.close()
