"""Large bodies are read without the parser: whole, in order, and with no more memory than what has come."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bundle.format import Bundle
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings
from fairway.serving.transports.bulk import Bulk
from tests.serving.conftest import FEATURES, request_of

INFER = b"/v2/models/linear/infer"


class Transport(asyncio.Transport):
    """Knows whose connection it is."""

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Owner(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def eof_received(self) -> None:
        self.told.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


@given(st.binary(min_size=1, max_size=5000), st.integers(0, 5000), st.lists(st.integers(1, 900), max_size=50))
def test_a_body_is_whole_in_whatever_pieces_it_comes_and_the_connection_is_given_back(
    body: bytes, there: int, pieces: list[int]
) -> None:
    transport, owner, whole = Transport(), Owner(), list[bytes]()
    made = bytearray(body[: min(there, len(body) - 1)])
    came = len(made)
    bulk = Bulk(owner, transport, made, len(body), lambda: whole.append(bytes(made)))
    for size in [*pieces, len(body)]:
        if transport.protocol is owner:
            break
        room = bulk.get_buffer(-1)
        taken = min(size, len(room))
        room[:taken] = body[came : came + taken]
        room.release()
        came += taken
        bulk.buffer_updated(taken)
    while transport.protocol is bulk:
        room = bulk.get_buffer(-1)
        taken = len(room)
        room[:taken] = body[came : came + taken]
        room.release()
        came += taken
        bulk.buffer_updated(taken)
    assert transport.protocol is owner
    assert whole == [body]


@pytest.mark.parametrize(("came", "room"), [(0, 2**16), (2**17, 2**17), (2**22, 2**20)])
def test_no_more_room_is_made_than_came_before_whatever_is_announced(came: int, room: int) -> None:
    made = bytearray(came)
    bulk = Bulk(Owner(), Transport(), made, 2**40, lambda: None)
    for _ in range(3):
        assert len(bulk.get_buffer(-1)) == room
        assert len(made) == came + room


def test_the_owner_hears_of_all_but_data() -> None:
    owner = Owner()
    bulk = Bulk(owner, Transport(), bytearray(), 10, lambda: None)
    bulk.pause_writing()
    bulk.resume_writing()
    bulk.eof_received()
    bulk.connection_lost(None)
    assert owner.told == ["pause", "resume", "eof", "lost"]


# --- on a real connection -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(bundles: tuple[Bundle, ...]) -> Iterator[RunningServer]:
    with serve(bundles, settings=ServeSettings(port=0)) as found:
        yield found


def message(body: bytes, extra: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\nhost: x\r\n%scontent-length: %d\r\n\r\n%b" % (INFER, extra, len(body), body)


def large(rows: int, named: str) -> bytes:
    data = np.random.default_rng(rows).normal(size=rows * FEATURES).astype(np.float32).tolist()
    return json.dumps(request_of(rows, data=data) | {"id": named}).encode()


def answers(connection: socket.socket) -> list[dict[str, Any]]:
    """Until the server closes the connection."""
    stream, found = connection.makefile("rb"), list[dict[str, Any]]()
    while line := stream.readline():
        assert line.split()[1] == b"200"
        length = 0
        while header := stream.readline().strip():
            name, _, value = header.partition(b":")
            length = int(value) if name == b"content-length" else length
        found.append(json.loads(stream.read(length)))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_requests_large_and_small_are_answered_in_their_order_however_they_are_cut(
    running: RunningServer, seed: int
) -> None:
    small = json.dumps(request_of() | {"id": "small"}).encode()
    sent = [
        message(large(9000, "first")),
        message(small),
        message(large(20_000, "third")),
        message(large(9000, "fourth")),
    ]
    said = b"".join([*sent, message(small, b"connection: close\r\n")])
    draw = random.Random(seed)
    cuts = sorted(draw.sample(range(1, len(said)), 7))
    with socket.create_connection(("127.0.0.1", running.port), 30) as connection:
        for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True):
            connection.sendall(said[start:end])
        found = answers(connection)
    assert [each["id"] for each in found] == ["first", "small", "third", "fourth", "small"]
    assert [each["outputs"][0]["shape"][0] for each in found] == [9000, 1, 20_000, 9000, 1]


def test_a_client_that_leaves_in_the_middle_of_a_large_body_takes_nobody_with_it(running: RunningServer) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", running.port), 30) as connection:
            connection.sendall(message(large(9000, "left"))[:-1000])
    with socket.create_connection(("127.0.0.1", running.port), 30) as connection:
        connection.sendall(message(large(9000, "stays"), b"connection: close\r\n"))
        assert [each["id"] for each in answers(connection)] == ["stays"]
