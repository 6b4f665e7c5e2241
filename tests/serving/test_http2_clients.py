"""The HTTP/2 server, seen by the reference gRPC client."""

from __future__ import annotations

import ast
import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import hpack
import pytest
from hyperframe.frame import HeadersFrame, WindowUpdateFrame

from fairway.serving.settings import ServeSettings
from tests.serving.http2_peer import PREFACE, data, message, request_lines
from tests.serving.http2_server import Running, running
from tests.serving.test_http2_spec import raw

BIG = 20 * 2**20
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
T = 30


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, OPTIONS) as channel:
        yield channel


def failure(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: grpc.RpcError = caught.value
    return error


@pytest.mark.parametrize("size", [0, 1, 100, 16_379, 16_380, 65_536, 1_000_000, BIG])
def test_a_message_of_any_size_comes_back(channel: grpc.Channel, size: int) -> None:
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert channel.unary_unary("/test/Echo")(message, timeout=T) == message


def test_many_calls_at_once_each_get_their_own_answer(channel: grpc.Channel) -> None:
    echo = channel.unary_unary("/test/Echo")
    futures = [echo.future(b"%d" % n * (n % 50 * 500), timeout=T) for n in range(500)]
    assert [future.result() for future in futures] == [b"%d" % n * (n % 50 * 500) for n in range(500)]


def test_many_clients_at_once(server: Running) -> None:
    def client(number: int) -> bool:
        options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(server.address, options) as channel:
            echo = channel.unary_unary("/test/Echo")
            return all(echo(b"%d:%d" % (number, n), timeout=T) == b"%d:%d" % (number, n) for n in range(20))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(client, range(32)))


async def test_the_asynchronous_client(server: Running) -> None:
    async with grpc.aio.insecure_channel(server.address, OPTIONS) as channel:
        echo = channel.unary_unary("/test/Echo")
        answers = await asyncio.gather(*(echo(b"%d" % n, timeout=T) for n in range(200)))
        assert answers == [b"%d" % n for n in range(200)]
        chat = channel.stream_stream("/test/Chat")()
        for n in range(50):
            await chat.write(b"%d" % n)
            assert await chat.read() == b"%d" % n
        await chat.done_writing()
        assert await chat.read() == grpc.aio.EOF
        assert await chat.code() == grpc.StatusCode.OK


def test_a_stream_of_answers(channel: grpc.Channel) -> None:
    answers = list(channel.unary_stream("/test/Count")(b"2000 3000", timeout=T))
    assert [int.from_bytes(answer[:4], "big") for answer in answers] == list(range(2000))
    assert {len(answer) for answer in answers} == {3004}


def test_a_stream_of_requests(channel: grpc.Channel) -> None:
    messages = (bytes(n * 100) for n in range(500))
    assert channel.stream_unary("/test/Sum")(messages, timeout=T) == b"%d" % sum(n * 100 for n in range(500))


def test_streams_both_ways_with_large_messages(channel: grpc.Channel) -> None:
    sent = [bytes([n]) * (3 * 2**20) for n in range(8)]
    assert list(channel.stream_stream("/test/Chat")(iter(sent), timeout=T)) == sent


def test_a_stream_without_messages(channel: grpc.Channel) -> None:
    assert list(channel.stream_stream("/test/Chat")(iter(()), timeout=T)) == []


def test_a_failure_has_its_status_text_and_metadata(channel: grpc.Channel) -> None:
    text = "naïve: 100 % wrong\n次"
    error = failure(lambda: channel.unary_unary("/test/Fail")(text.encode(), timeout=T))
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)
    assert ("retry-after", "1") in error.trailing_metadata()


@pytest.mark.parametrize("method", ["/test/Raise", "/test/Break"])
def test_a_handler_that_raises_is_internal_and_says_nothing_of_it(channel: grpc.Channel, method: str) -> None:
    error = failure(lambda: list(channel.stream_stream(method)(iter([b"x"]), timeout=T)))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "on purpose" not in (error.details() or "")


def test_a_stream_may_fail_after_its_first_message(channel: grpc.Channel) -> None:
    call = channel.stream_stream("/test/Refuse")(iter([b"x"]), timeout=T)
    assert next(call) == b"one"
    error = failure(lambda: next(call))
    assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "no more, for 50 %")


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    error = failure(lambda: channel.unary_unary("/no/Such")(b"", timeout=T))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "/no/Such" in (error.details() or "")


def test_metadata_deadline_and_peer_reach_the_handler(channel: grpc.Channel) -> None:
    sent = [("key", "value"), ("key", "again"), ("blob-bin", b"\x00\xff")]
    answer = channel.unary_unary("/test/Metadata")(b"", timeout=T, metadata=sent)
    metadata, deadline_s, peer = ast.literal_eval(answer.decode())
    assert metadata[b"key"] == b"value,again"
    assert metadata[b"blob-bin"] == b"AP8"
    assert T - 1 < deadline_s <= T * 1.04
    assert peer.startswith("127.0.0.1:")
    answer = channel.unary_unary("/test/Metadata")(b"")
    assert ast.literal_eval(answer.decode())[1] is None


def test_metadata_that_changes_with_each_call(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/test/Metadata")
    for n in range(300):
        answer = call(b"", timeout=T, metadata=[("traceparent", f"00-{n:032x}-{n:016x}-01")])
        assert ast.literal_eval(answer.decode())[0][b"traceparent"] == f"00-{n:032x}-{n:016x}-01".encode()


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests_are_read(channel: grpc.Channel, compression: grpc.Compression) -> None:
    message = b"again and again " * 10_000
    assert channel.unary_unary("/test/Echo")(message, timeout=T, compression=compression) == message
    assert channel.stream_unary("/test/Sum")(iter([message] * 3), timeout=T, compression=compression) == b"480000"


def test_a_message_above_the_limit_is_refused_also_when_compressed() -> None:
    with running(ServeSettings(max_body_bytes=100_000)) as server, grpc.insecure_channel(server.address) as channel:
        echo = channel.unary_unary("/test/Echo")
        for compression in (None, grpc.Compression.Gzip):
            for size in (100_001, 3_000_000):
                error = failure(lambda: echo(bytes(size), timeout=T, compression=compression))  # noqa: B023
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "100,000 bytes" in (error.details() or "")
        assert echo(bytes(100_000), timeout=T) == bytes(100_000)
        assert server.http2.held.bytes == 0


def test_a_caller_that_cancels_is_noticed(server: Running, channel: grpc.Channel) -> None:
    before = server.service.cancelled
    future = channel.unary_unary("/test/Wait").future(b"")
    server.until(lambda: bool(server.service.waiting))
    call = server.service.waiting.pop()
    future.cancel()
    server.until(lambda: server.service.cancelled == before + 1)
    server.call(lambda: call.reply(b"too late"))
    assert channel.unary_unary("/test/Echo")(b"fine", timeout=T) == b"fine"


def test_a_caller_whose_connection_ends_is_noticed(server: Running) -> None:
    before = server.service.cancelled
    with grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        future = channel.unary_unary("/test/Wait").future(b"")  # one that is let go cancels its call
        server.until(lambda: bool(server.service.waiting))
    assert future.cancelled() or future.done()
    server.until(lambda: server.service.cancelled == before + 1)
    server.service.waiting.clear()


def test_a_stream_ends_at_its_deadline_and_its_handler_too(server: Running, channel: grpc.Channel) -> None:
    before = server.service.ended_streams
    error = failure(lambda: list(channel.stream_stream("/test/Deaf")(iter([b"x"]), timeout=0.1)))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.until(lambda: server.service.ended_streams == before + 1)


def test_a_cancelled_stream_ends_its_handler(server: Running, channel: grpc.Channel) -> None:
    before = server.service.ended_streams
    call = channel.stream_stream("/test/Deaf")(iter([b"x"]))
    server.until(lambda: server.service.streams_open == 1)
    call.cancel()
    server.until(lambda: server.service.ended_streams == before + 1)


def test_draining_answers_what_is_open_and_closes() -> None:
    with running() as server, grpc.insecure_channel(server.address) as channel:
        future = channel.unary_unary("/test/Wait").future(b"", timeout=T)
        server.until(lambda: bool(server.service.waiting))
        draining = asyncio.run_coroutine_threadsafe(server.http2.drain(T), server.loop)
        server.until(lambda: all(connection.draining for connection in server.http2.connections))
        server.call(lambda: server.service.waiting[0].reply(b"last"))
        assert future.result() == b"last"
        assert draining.result(T)
        assert not server.http2.connections


def test_calls_go_on_while_connections_are_drained() -> None:
    """A client follows the GOAWAY to a new connection: no call fails."""
    with running() as server, grpc.insecure_channel(server.address) as channel:
        echo = channel.unary_unary("/test/Echo")
        for n in range(10):
            futures = [echo.future(b"%d" % m, timeout=T) for m in range(50)]
            for connection in tuple(server.http2.connections):
                server.call(connection.drain)
            assert [future.result() for future in futures] == [b"%d" % m for m in range(50)], n


def end_connections(server: Running) -> None:
    """As if each client had answered the warning."""
    for connection in server.http2.connections:
        connection.drain()
        connection._finish_drain()


def test_a_slow_reader_gets_all_of_its_answer_although_the_connection_is_drained() -> None:
    """Its window updates meet a socket that is still there: one that is closed would reset what it has not read."""
    size = 3_000_000
    windows = (
        raw(4, 0, 0, (4).to_bytes(2, "big") + (2**24).to_bytes(4, "big")) + WindowUpdateFrame(0, 2**24).serialize()
    )
    head = HeadersFrame(1, hpack.Encoder().encode(request_lines(b"/test/Size")), flags=["END_HEADERS"]).serialize()
    with running() as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(T)
        client.connect(("127.0.0.1", server.port))
        client.sendall(PREFACE + windows + head + data(1, message(b"%d" % size)).serialize())
        reader = client.makefile("rb")
        received, ended = 0, False
        while not ended:
            start = reader.read(9)
            payload = reader.read(int.from_bytes(start[:3], "big"))
            if start[3] == 0:
                if not received:
                    server.call(lambda: end_connections(server))
                received += len(payload)
                client.sendall(WindowUpdateFrame(0, len(payload)).serialize())
            ended = start[3] == 1 and bool(start[4] & 1)
        assert received == 5 + size
        reader.close()
        client.close()
        server.until(lambda: not server.http2.connections)


def test_nothing_is_held_after_all_of_this(server: Running) -> None:
    server.until(lambda: server.http2.held.bytes == 0)
    server.until(lambda: not any(connection.streams for connection in server.http2.connections))
    assert all(connection.outbox.unsent == 0 for connection in server.http2.connections)
