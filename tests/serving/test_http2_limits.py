"""What a rude client of HTTP/2 can cost: floods, bombs, slowness. Time is a number here, not a wait."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from hyperframe.frame import (
    GoAwayFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from fairway.serving.settings import ServeSettings
from fairway.serving.transports.http2.limits import Bucket, Limits
from tests.serving.http2_peer import (
    Peer,
    data,
    goaway_code,
    message,
    peer,
    request_lines,
    reset_codes,
)
from tests.serving.test_http2_spec import raw

CALM = 11
NEVER = Limits(resets=20, resets_per_s=0.001, controls=20, controls_per_s=0.001, dribbles=20, dribbles_per_s=0.001)

FLOODS: dict[str, Callable[[Peer, int], list[Any]]] = {
    "PING": lambda p, n: [PingFrame(0, b"12345678")],
    "SETTINGS": lambda p, n: [SettingsFrame(0)],
    "ACK of nothing": lambda p, n: [SettingsFrame(0, flags=["ACK"])],
    "PRIORITY": lambda p, n: [PriorityFrame(1, 0, 5)],
    "unknown frames": lambda p, n: [raw(77, 0, 0)],
    "window updates of one byte": lambda p, n: [WindowUpdateFrame(0, 1)],
    "empty DATA": lambda p, n: [p.head(1)] * (n == 0) + [data(1, end=False)],
    "DATA of nothing but padding": lambda p, n: [p.head(1)] * (n == 0) + [raw(0, 8, 1, b"\x03abc")],
    "DATA after the server's RST_STREAM": lambda p, n: (
        [p.head(1, request_lines(te=b"x"))] * (n == 0) + [data(1, b"x", end=False)]
    ),
    "calls that are reset (CVE-2023-44487)": lambda p, n: [
        p.call(2 * n + 1, path=b"/test/Wait"),
        RstStreamFrame(2 * n + 1),
    ],
    "calls that make the server reset (CVE-2025-8671)": lambda p, n: [
        p.call(2 * n + 1, path=b"/test/Wait"),
        raw(8, 0, 2 * n + 1, bytes(4)),
    ],
    "malformed calls": lambda p, n: [p.head(2 * n + 1, request_lines(te=b"x"))],
    "GOAWAY": lambda p, n: [p.call(1, path=b"/test/Wait")] * (n == 0) + [GoAwayFrame(0)],
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_the_connection(flood: str) -> None:
    with peer(limits=NEVER) as p:
        frames = []
        for n in range(15):
            frames += p.send(*FLOODS[flood](p, n))
        assert goaway_code(frames) in (None, 0), "a few are no flood"
        for n in range(15, 60):
            frames += p.send(*FLOODS[flood](p, n))
            if p.transport.closed:
                break
        assert goaway_code(frames) == CALM
        assert p.transport.closed
        assert not p.connection.streams


def test_resets_of_calls_that_had_their_time_are_no_flood() -> None:
    """Callers whose deadlines pass reset their calls; that is no attack."""
    with peer(limits=NEVER) as p:
        for n in range(100):
            p.send(p.call(2 * n + 1, path=b"/test/Wait"))
            p.connection.streams[2 * n + 1].began -= 1
            p.send(RstStreamFrame(2 * n + 1))
        assert p.works()
        assert p.service.cancelled == 100


def test_a_ping_for_each_answer_is_no_flood() -> None:
    """Clients that measure the line do so (grpc-go)."""
    with peer(limits=NEVER) as p:
        for n in range(100):
            p.send(p.call(2 * n + 1))
            p.send(PingFrame(0, b"12345678"), WindowUpdateFrame(0, 10))
            assert not p.transport.closed


def test_window_updates_that_make_the_server_send_crumbs_are_a_flood() -> None:
    with peer(limits=NEVER) as p:
        p.send(SettingsFrame(0, {4: 0}), p.call(1, b"1000", b"/test/Size"))
        frames = []
        for _ in range(30):
            frames += p.send(WindowUpdateFrame(1, 1))
        assert goaway_code(frames) == CALM
        assert len(p.bodies[1]) == 20


def test_a_bucket_fills_again_and_never_above_its_size() -> None:
    bucket = Bucket(3, 2)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5), bucket.take(0.5)] == [True, False]
    assert [bucket.take(1000) for _ in range(4)] == [True, True, True, False]


def test_a_small_block_that_stands_for_huge_headers() -> None:
    with peer() as p:
        p.send(p.head(1, [*request_lines(), (b"x", b"y" * 3900)]))
        bomb = raw(1, 4, 3, b"\xbe" * 10_000)
        assert goaway_code(p.send(bomb)) == CALM


def test_the_dynamic_table_never_grows_above_its_size() -> None:
    with peer() as p:
        decoder = p.connection._blocks._decoder
        for n in range(200):
            p.send(p.head(2 * n + 1, [*request_lines(), (b"x", b"%d" % n * 300)]), RstStreamFrame(2 * n + 1))
            assert decoder._bytes == sum(len(a) + len(b) + 32 for a, b in decoder._table) <= 4096
        assert p.works()


def test_what_is_kept_of_headers_stays_small() -> None:
    with peer() as p:
        for n in range(1000):
            lines = b"".join(b"\x00" + bytes((len(a),)) + a + bytes((len(b),)) + b for a, b in request_lines())
            block = lines + b"\x00\x01n" + bytes((len(str(n)),)) + str(n).encode()
            p.send(raw(1, 4, 2 * n + 1, block), data(2 * n + 1, message(b"x")))
            assert p.status(2 * n + 1) == "0"
        assert len(p.connection._heads) <= 64


def test_a_compressed_bomb_is_held_to_the_limit() -> None:
    with peer(ServeSettings(max_body_bytes=10**6)) as p:
        bomb = gzip.compress(bytes(50 * 10**6))
        assert len(bomb) < 60_000
        p.send(p.head(1, request_lines(grpc_encoding=b"gzip")), data(1, message(bomb, 1)))
        assert p.status(1) == "8"
        assert p.works()


def test_compressed_messages_that_nobody_takes_are_counted_as_large_as_they_are() -> None:
    with peer(limits=Limits(held_bytes=3 * 10**6)) as p:
        bomb = message(gzip.compress(bytes(10**6)), 1)
        p.send(p.head(1, request_lines(b"/test/Deaf", grpc_encoding=b"gzip")))
        p.send(data(1, bomb, end=False), data(1, bomb, end=False))
        assert p.http2.held.bytes > 2 * 10**6
        p.send(data(1, bomb, end=False))
        assert p.status(1) == "8"
        assert p.http2.held.bytes == 0
        assert p.works()


def test_unfinished_messages_of_all_connections_share_one_account() -> None:
    with peer(limits=Limits(held_bytes=100_000)) as p:
        for number in (1, 3, 5):
            p.send(p.head(number), data(number, message(bytes(60_000))[:30_000], end=False))
        assert p.http2.held.bytes == 90_000
        p.send(p.head(7), data(7, message(bytes(60_000))[:30_000], end=False))
        assert p.status(7) == "8"
        assert dict(p.headers[7][0])["retry-after"] == "1"
        assert p.http2.held.bytes == 90_000
        p.send(RstStreamFrame(1))
        assert p.http2.held.bytes == 60_000
        p.send(data(3, message(bytes(60_000))[30_000:]))
        assert p.answer(3) == bytes(60_000)
        assert p.http2.held.bytes == 30_000


def test_a_client_that_leaves_its_answers_unread_gets_no_new_calls_and_then_errors() -> None:
    with peer(ServeSettings(max_body_bytes=100_000)) as p:
        p.send(SettingsFrame(0, {4: 0}))
        refused: dict[int, int] = {}
        for n in range(4):
            refused |= reset_codes(p.send(p.call(2 * n + 1, b"60000", b"/test/Size")))
        assert refused == {5: 7, 7: 7}
        assert p.connection.outbox.unsent < 200_000
        p.send(SettingsFrame(0, {4: 2**20}), WindowUpdateFrame(0, 2**20))
        assert len(p.answer(1)) == len(p.answer(3)) == 60_000
        assert p.connection.outbox.unsent == 0
        assert p.works()


def test_answers_above_all_measure_become_errors() -> None:
    with peer(ServeSettings(max_body_bytes=100_000)) as p:
        p.send(SettingsFrame(0, {4: 0}))
        p.send(*(p.call(2 * n + 1, b"%d" % n, b"/test/Wait") for n in range(10)))
        for call in p.service.waiting:
            call.reply(bytes(90_000))
        p.turn()
        assert p.connection.outbox.unsent <= 500_000
        assert [p.status(2 * n + 1) for n in range(10)].count("8") >= 4


def test_a_socket_that_is_full_holds_answers_back() -> None:
    with peer() as p:
        p.send(WindowUpdateFrame(0, 2**24), SettingsFrame(0, {4: 2**24}))
        p.connection.pause_writing()
        p.send(p.call(1, b"300000", b"/test/Size"))
        assert 1 not in p.bodies
        assert p.connection.outbox.unsent == 300_005
        p.connection.resume_writing()
        p.turn()
        assert len(p.answer(1)) == 300_000
        assert p.works()


def test_a_stream_waits_for_its_reader() -> None:
    with peer() as p:
        p.send(p.head(1, request_lines(b"/test/Count")), data(1, message(b"1000 1000")))
        p.turn(50)
        assert p.connection.outbox.unsent <= 1009
        assert len(p.bodies[1]) <= 65535
        for _ in range(200):
            p.send(WindowUpdateFrame(0, 10**4), WindowUpdateFrame(1, 10**4))
        assert len(p.bodies[1]) == 1000 * 1009
        assert p.status(1) == "0"


# -- slowness


def later(p: Peer, seconds: float) -> float:
    now: float = p.connection.now + seconds
    p.http2.check(now)
    return now


def test_a_client_that_says_nothing_is_left() -> None:
    with peer(ServeSettings(read_timeout_s=5), greet=False) as p:
        later(p, 4)
        assert not p.transport.closed
        later(p, 6)
        assert p.transport.closed


@pytest.mark.parametrize("part", ["head of a frame", "frame", "header block"])
def test_a_byte_a_second_is_too_slow(part: str) -> None:
    with peer(ServeSettings(read_timeout_s=5)) as p:
        p.send(
            {
                "head of a frame": b"\x00\x00",
                "frame": b"\x00\x00\x08\x06\x00\x00\x00\x00\x00abc",
                "header block": raw(1, 0, 1, p.block()),
            }[part]
        )
        later(p, 4)
        assert not p.transport.closed
        later(p, 6)
        assert p.transport.closed


def test_a_byte_a_second_does_not_reset_the_time() -> None:
    with peer(ServeSettings(read_timeout_s=5)) as p:
        clock = p.clock()
        for _ in range(6):
            p.send(b"\x00")
            p.http2.check(clock.now)
            clock.now += 1.1
        assert p.transport.closed


def test_an_upload_that_goes_on_is_not_too_slow() -> None:
    """However long it takes, and though each piece ends in the middle of a frame."""
    with peer(ServeSettings(read_timeout_s=5)) as p:
        clock = p.clock()
        stream = b"".join(data(1, bytes(1000), end=False).serialize() for _ in range(20))
        p.send(p.head(1, request_lines(b"/test/Deaf")), stream[:100])
        for at in range(100, len(stream), 1500):
            p.send(stream[at : at + 1500])
            clock.now += 2
            p.http2.check(clock.now)
        assert not p.transport.closed


def test_a_request_that_does_not_arrive_is_answered_so() -> None:
    with peer(ServeSettings(read_timeout_s=5)) as p:
        p.send(p.head(1), data(1, message(b"hello")[:-1], end=False), p.head(3, request_lines(b"/test/Deaf")))
        later(p, 6)
        frames = p.turn()
        assert p.status(1) == "4"
        assert reset_codes(frames) == {1: 0}
        assert p.http2.held.bytes == 0
        assert 3 in p.connection.streams, "a stream may be quiet"


def test_a_message_of_a_stream_that_does_not_arrive_is_answered_so() -> None:
    """It would else hold a part of what the whole server may hold, for as long as its client likes."""
    with peer(ServeSettings(read_timeout_s=5)) as p:
        p.send(p.head(1, request_lines(b"/test/Chat")), data(1, message(b"hello") + message(b"hello")[:-1], end=False))
        now = later(p, 4)
        p.http2.check(now + 4)
        assert p.status(1) is None
        p.http2.check(now + 6)
        frames = p.turn()
        assert p.status(1) == "4"
        assert reset_codes(frames) == {1: 0}
        assert p.http2.held.bytes == 0


def test_a_stream_that_brings_a_message_now_and_then_is_not_too_slow() -> None:
    with peer(ServeSettings(read_timeout_s=5)) as p:
        clock = p.clock()
        p.send(p.head(1, request_lines(b"/test/Chat")), data(1, message(b"hello")[:-1], end=False))
        for _ in range(5):
            p.http2.check(clock.now)
            clock.now += 3
            p.send(data(1, b"o" + message(b"hello")[:-1], end=False))
        assert p.status(1) is None


def test_an_idle_connection_is_drained() -> None:
    with peer(ServeSettings(keep_alive_s=10)) as p:
        assert p.works(1)
        later(p, 9)
        assert not p.turn()
        now = later(p, 11)
        warning, _ping = p.turn()
        assert isinstance(warning, GoAwayFrame)
        p.http2.check(now + 2)
        assert goaway_code(p.turn()) == 0
        assert p.transport.closed


def test_a_client_that_vanished_is_found_out() -> None:
    with peer(ServeSettings(read_timeout_s=5)) as p:
        p.send(p.head(1, request_lines(b"/test/Deaf")))
        now = later(p, 6)
        (ping,) = p.turn()
        assert isinstance(ping, PingFrame)
        p.http2.check(now + 4)
        assert not p.transport.closed
        p.http2.check(now + 6)
        assert p.transport.closed


def test_a_client_that_does_not_read_is_left_also_when_the_connection_is_closing() -> None:
    with peer(ServeSettings(read_timeout_s=5)) as p:
        p.send(SettingsFrame(0, {4: 0}), p.call(1))
        now = later(p, 0)
        p.http2.check(now + 4)
        p.send(WindowUpdateFrame(1, 1))
        p.http2.check(now + 6)
        assert not p.transport.closed, "it took a byte"
        p.http2.check(now + 12)
        assert p.transport.closed


def test_a_stopping_server_sends_its_clients_elsewhere() -> None:
    with peer() as p:
        assert p.works(1)
        p.stopping = True
        later(p, 0)
        warning, _ping = p.turn()
        assert isinstance(warning, GoAwayFrame)
        assert warning.last_stream_id == 2**31 - 1


def test_a_half_closed_client_still_gets_its_answers() -> None:
    with peer() as p:
        p.send(p.call(1, path=b"/test/Wait"))
        assert p.connection.eof_received() is True
        p.service.waiting[0].reply(b"last")
        p.turn()
        assert p.answer(1) == b"last"
        assert p.transport.closed


def test_a_reply_in_the_same_turn_and_later_ones_share_writes() -> None:
    with peer() as p:
        writes: list[int] = []
        write = p.transport.write

        def count(data: bytes) -> None:
            writes.append(len(data))
            write(data)

        p.transport.write = count  # type: ignore[method-assign]
        p.send(*(p.call(2 * n + 1) for n in range(20)))
        assert len(writes) == 1
        p.send(*(p.call(2 * n + 41, path=b"/test/Wait") for n in range(20)))
        for call in p.service.waiting:
            call.reply(b"x")
        p.turn()
        assert len(writes) == 2
        assert all(p.status(2 * n + 1) == "0" for n in range(40))
