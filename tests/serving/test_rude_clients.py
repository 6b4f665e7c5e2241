"""Clients that are slow, silent, greedy or broken: they harm nobody but themselves. On both lanes."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import psutil
import pytest

from fairway.bundle.format import Bundle
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings
from tests.serving.conftest import request_of

INFER = b"/v2/models/linear/infer"
SOON_S = 30.0
BODY = json.dumps(request_of()).encode()
READY = b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\n\r\n"
H2C = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
CHUNKED = b"POST %s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % INFER


def message(body: bytes = BODY, extra: bytes = b"", declared: int | None = None) -> bytes:
    length = len(body) if declared is None else declared
    return b"POST %s HTTP/1.1\r\nhost: x\r\n%scontent-length: %d\r\n\r\n" % (INFER, extra, length) + body


@pytest.fixture(scope="module", params=["fast lane", "starlette"])
def impatient(request: pytest.FixtureRequest, bundles: tuple[Bundle, ...]) -> Iterator[RunningServer]:
    """A server that waits a quarter of a second for its clients."""
    settings = ServeSettings(port=0, fast_lane=request.param == "fast lane", read_timeout_s=0.25)
    with serve(bundles, settings=settings) as running:
        yield running


@pytest.fixture
def connection(impatient: RunningServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=20) as made:
        yield made
    answer = httpx.post(impatient.url + INFER.decode(), json=request_of())
    assert answer.status_code == 200  # whatever the test did, the next client is served


def states(port: int, client: int) -> set[str]:
    """Of the server's end of a connection, also while only the kernel still has it."""
    ends = psutil.net_connections("tcp4")
    return {end.status for end in ends if end.laddr.port == port and end.raddr and end.raddr.port == client}


def statuses(connection: socket.socket) -> list[int]:
    """Of all answers until the server ends the connection."""
    stream, found = connection.makefile("rb"), []
    while line := stream.readline():
        found.append(int(line.split()[1]))
        length = 0
        while header := stream.readline().strip():
            name, _, value = header.partition(b":")
            length = int(value) if name == b"content-length" else length
        body = json.loads(stream.read(length))
        assert (found[-1] == 200) == ("error" not in body)
    return found


@pytest.mark.parametrize(
    "start",
    [
        b"P",
        b"POST %s HTTP/1.1\r\nhost: x\r\nx-" % INFER,
        message(BODY[:-9], declared=len(BODY)),
        message(BODY[:-9], declared=10_000_000),
        CHUNKED + b"5\r\nab",
    ],
)
def test_a_request_that_never_ends_is_told_so(connection: socket.socket, start: bytes) -> None:
    connection.sendall(start)
    assert statuses(connection) == [408]


@pytest.mark.parametrize(
    "start",
    [
        b"P",
        READY[:-2],
        b"POST %s HTTP/1.1\r\nhost: x\r\nx-" % INFER,
        message(BODY[:-9], declared=len(BODY)),
        message(BODY[:-9], declared=10_000_000),
        CHUNKED + b"5\r\nab",
        b"POST /v2/repository/index HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{",
    ],
)
def test_half_a_request_that_ends_is_told_so(connection: socket.socket, start: bytes) -> None:
    connection.sendall(message())
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    connection.sendall(start)
    connection.shutdown(socket.SHUT_WR)
    assert statuses(connection) == [400]


def test_a_trickle_buys_no_time(connection: socket.socket) -> None:
    connection.sendall(b"POST %s HTTP/1.1\r\nx-long: " % INFER)
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    trickled = 0
    while not poll.poll(20):
        connection.sendall(b"a")
        trickled += 1
    assert 0 < trickled < 500
    assert statuses(connection) == [408]


def test_a_refusal_reaches_a_client_that_is_still_sending(connection: socket.socket) -> None:
    connection.sendall(b"what?\r\n\r\n" + bytes(2**22))  # to close on it would reset the connection
    assert statuses(connection) == [400]


def test_a_large_body_that_comes_after_its_refusal_is_not_answered_again(connection: socket.socket) -> None:
    connection.sendall(message(bytes(1000), declared=3_000_000))
    assert connection.recv(65536).startswith(b"HTTP/1.1 408")
    more = b""
    with suppress(ConnectionError):  # it may be closed already
        connection.sendall(bytes(2_999_000))
        more = connection.recv(65536)
    assert not more


@pytest.mark.parametrize("said", [b"", b"\r\n\r\n"])
def test_a_client_that_says_nothing_is_let_go(connection: socket.socket, said: bytes) -> None:
    connection.sendall(said)
    assert statuses(connection) == []


@pytest.mark.parametrize("request_bytes", [message(), READY, message(b'{"inputs": 7}')])
def test_a_client_that_takes_no_answers_is_not_read_any_further_and_dropped(
    impatient: RunningServer, request_bytes: bytes
) -> None:
    many = request_bytes * (2**20 // len(request_bytes))
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, 65536
        )  # or it could send again only once megabytes are answered
        greedy.connect(("127.0.0.1", impatient.port))
        greedy.setblocking(False)
        poll = select.poll()
        poll.register(greedy, select.POLLOUT)
        sent, patience = 0, time.monotonic() + SOON_S
        while True:
            events = poll.poll(500)
            if not events:  # a reset can get lost where the client's window is full; it is then told by its next probe
                if not states(impatient.port, greedy.getsockname()[1]):
                    break  # dropped
                assert time.monotonic() < patience, "neither read nor dropped"
                continue
            if events[0][1] & (select.POLLERR | select.POLLHUP):
                break  # dropped
            try:
                sent += greedy.send(many[sent % len(many) :])
            except BlockingIOError:
                continue
            except ConnectionError:
                break
            assert sent < 64 * 2**20  # what the kernel's buffers hold is a tenth of that
    assert httpx.post(impatient.url + INFER.decode(), json=request_of()).status_code == 200


OPENAPI = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("asked", [OPENAPI * 500, READY * 6000])  # more than the kernel holds, and less
def test_what_a_dropped_client_did_not_take_is_kept_nowhere(impatient: RunningServer, asked: bytes) -> None:
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", impatient.port))
        deaf.sendall(asked)
        patience = time.monotonic() + SOON_S
        while found := states(impatient.port, deaf.getsockname()[1]):
            assert found == {psutil.CONN_ESTABLISHED}, "the kernel goes on with it alone"
            assert time.monotonic() < patience


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (message() + b"\x16\x03\x01 what?\r\n\r\n", [200, 400]),
        (message() + READY + message() + b"\x00", [200, 200, 200, 400]),
        (message() + message() + CHUNKED + b"zz\r\n", [200, 200, 400]),
        (READY + CHUNKED + b"zz\r\n" + message(), [200, 400]),
        (CHUNKED + b"5\r\nabcde\r\nzz\r\n" + message(), [400]),
        (message() + message(extra=b"x: " + b"a" * 200_000 + b"\r\n"), [200, 431]),
        (message() + message(extra=H2C) + READY + message(extra=H2C) + b"?", [200, 200, 200, 200, 400]),
        (message(extra=H2C) * 1200 + b"?", [200] * 1200 + [400]),
        (b"CONNECT elsewhere:80 HTTP/1.1\r\nhost: x\r\n\r\n", [400]),
    ],
)
def test_what_cannot_be_read_takes_nothing_from_the_requests_before_it(
    connection: socket.socket, sent: bytes, answers: list[int]
) -> None:
    connection.sendall(sent)
    assert statuses(connection) == answers


def test_an_early_answer_to_a_client_that_asked_before_its_body_ends_the_connection(connection: socket.socket) -> None:
    """Whether the body still follows would be anybody's guess."""
    connection.sendall(
        b"POST /v2/models/linear HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    )
    assert statuses(connection) == [405]


def test_an_error_quotes_no_more_of_a_request_than_a_person_reads(impatient: RunningServer) -> None:
    answer = httpx.post(impatient.url + INFER.decode(), json=request_of(name="y" * 1_000_000))
    assert answer.status_code == 400
    assert "no input is called 'yyy" in answer.json()["error"]
    assert len(answer.content) < 10_000
