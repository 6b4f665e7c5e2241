"""What RFC 9113 and RFC 7541 oblige a server to enforce, section by section."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hpack
import pytest
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from fairway.serving.transports.http2.limits import Limits
from tests.serving.http2_peer import (
    END_HEADERS,
    END_STREAM,
    GREETING,
    PREFACE,
    Peer,
    data,
    goaway_code,
    message,
    peer,
    request_lines,
    reset_codes,
)

PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11
Make = Callable[[Peer], Any]


def raw(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def opened(p: Peer, *rest: Frame | bytes) -> list[Frame | bytes]:
    """Stream 1, open, then the rest."""
    return [p.head(1), *rest]


def finished(p: Peer, *rest: Frame | bytes) -> list[Frame | bytes]:
    """Stream 1, answered, then the rest."""
    p.send(p.call(1))
    return list(rest)


def half_closed(p: Peer, *rest: Frame | bytes) -> list[Frame | bytes]:
    """Stream 1, sent whole and not answered, then the rest."""
    p.send(p.call(1, path=b"/test/Wait"))
    return list(rest)


def in_three(block: bytes) -> list[bytes]:
    """A header block in three frames."""
    return [raw(1, 0, 1, block[:5]), raw(9, 0, 1, block[5:9]), raw(9, 4, 1, block[9:])]


CONNECTION_ERRORS: dict[str, tuple[int, Make]] = {
    "3.4 settings come first": (PROTOCOL, lambda p: [PREFACE, PingFrame(0, b"12345678")]),
    "3.4 settings come first, an ACK is none": (PROTOCOL, lambda p: [PREFACE, SettingsFrame(0, flags=["ACK"])]),
    "3.4 the preface is exact": (PROTOCOL, lambda p: [b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n", SettingsFrame(0)]),
    "4.2 DATA above the frame size": (SIZE, lambda p: opened(p, raw(0, 0, 1, bytes(65537)))),
    "4.2 HEADERS above the frame size": (SIZE, lambda p: [raw(1, 4, 1, bytes(65537))]),
    "4.2 SETTINGS above the frame size": (SIZE, lambda p: [raw(4, 0, 0, bytes(65538))]),
    "4.3 a block that is no HPACK": (COMPRESSION, lambda p: [raw(1, 5, 1, b"\xff\xff\xff\xff\xff\xff")]),
    "4.3 a block with PRIORITY inside": (PROTOCOL, lambda p: [raw(1, 0, 1, p.block()), PriorityFrame(1)]),
    "4.3 a block with other HEADERS inside": (PROTOCOL, lambda p: [raw(1, 0, 1, p.block()), p.head(3)]),
    "4.3 a block with an unknown frame inside": (PROTOCOL, lambda p: [raw(1, 0, 1, p.block()), raw(99, 0, 1)]),
    "4.3 a block that another stream continues": (PROTOCOL, lambda p: [raw(1, 0, 1, p.block()), raw(9, 4, 3)]),
    "5.1 DATA on an idle stream": (PROTOCOL, lambda p: [data(1)]),
    "5.1 RST_STREAM on an idle stream": (PROTOCOL, lambda p: [RstStreamFrame(1)]),
    "5.1 WINDOW_UPDATE on an idle stream": (PROTOCOL, lambda p: [WindowUpdateFrame(1, 100)]),
    "5.1 CONTINUATION on an idle stream": (PROTOCOL, lambda p: [raw(9, 4, 1, p.block())]),
    "5.1 CONTINUATION on a half-closed stream": (PROTOCOL, lambda p: half_closed(p, raw(9, 4, 1))),
    "5.1 DATA on a closed stream": (CLOSED, lambda p: finished(p, data(1))),
    "5.1 HEADERS on a closed stream": (CLOSED, lambda p: [p.call(1), p.head(1)]),
    "5.1 DATA after the client's RST_STREAM": (CLOSED, lambda p: opened(p, RstStreamFrame(1), data(1))),
    "5.1.1 an even number": (PROTOCOL, lambda p: [p.head(2)]),
    "5.1.1 a number below an earlier one": (PROTOCOL, lambda p: [p.call(5), p.head(3)]),
    "5.1.1 DATA below an earlier number": (PROTOCOL, lambda p: [p.call(5), data(3)]),
    "6.1 DATA on stream 0": (PROTOCOL, lambda p: [raw(0, 0, 0, b"x")]),
    "6.1 DATA with padding as long as itself": (PROTOCOL, lambda p: opened(p, raw(0, 8, 1, b"\x04abc"))),
    "6.1 DATA padded, and empty": (PROTOCOL, lambda p: opened(p, raw(0, 8, 1))),
    "6.2 HEADERS on stream 0": (PROTOCOL, lambda p: [raw(1, 5, 0, p.block())]),
    "6.2 HEADERS with padding as long as itself": (PROTOCOL, lambda p: [raw(1, 0xD, 1, b"\x06abcde")]),
    "6.2 HEADERS without room for its priority": (SIZE, lambda p: [raw(1, 0x25, 1, b"abc")]),
    "6.3 PRIORITY on stream 0": (PROTOCOL, lambda p: [raw(2, 0, 0, bytes(5))]),
    "6.4 RST_STREAM on stream 0": (PROTOCOL, lambda p: [raw(3, 0, 0, bytes(4))]),
    "6.4 RST_STREAM of 3 bytes": (SIZE, lambda p: opened(p, raw(3, 0, 1, bytes(3)))),
    "6.5 SETTINGS on a stream": (PROTOCOL, lambda p: [raw(4, 0, 1)]),
    "6.5 SETTINGS of 3 bytes": (SIZE, lambda p: [raw(4, 0, 0, bytes(3))]),
    "6.5 an ACK with settings": (SIZE, lambda p: [raw(4, 1, 0, bytes(6))]),
    "6.5.2 ENABLE_PUSH of 2": (PROTOCOL, lambda p: [SettingsFrame(0, {2: 2})]),
    "6.5.2 INITIAL_WINDOW_SIZE of 2**31": (FLOW, lambda p: [SettingsFrame(0, {4: 2**31})]),
    "6.5.2 MAX_FRAME_SIZE of 16383": (PROTOCOL, lambda p: [SettingsFrame(0, {5: 16383})]),
    "6.5.2 MAX_FRAME_SIZE of 2**24": (PROTOCOL, lambda p: [SettingsFrame(0, {5: 2**24})]),
    "6.6 PUSH_PROMISE": (PROTOCOL, lambda p: opened(p, raw(5, 4, 1, bytes(4)))),
    "6.7 PING on a stream": (PROTOCOL, lambda p: [raw(6, 0, 1, bytes(8))]),
    "6.7 PING of 6 bytes": (SIZE, lambda p: [raw(6, 0, 0, bytes(6))]),
    "6.8 GOAWAY on a stream": (PROTOCOL, lambda p: [raw(7, 0, 1, bytes(8))]),
    "6.8 GOAWAY of 7 bytes": (SIZE, lambda p: [raw(7, 0, 0, bytes(7))]),
    "6.9 WINDOW_UPDATE of 0 on the connection": (PROTOCOL, lambda p: [raw(8, 0, 0, bytes(4))]),
    "6.9 WINDOW_UPDATE of 3 bytes": (SIZE, lambda p: [raw(8, 0, 0, bytes(3))]),
    "6.9.1 the connection's window above 2**31-1": (FLOW, lambda p: [WindowUpdateFrame(0, 2**31 - 1)]),
    "6.9.2 a setting that makes a window too large": (
        FLOW,
        lambda p: opened(p, WindowUpdateFrame(1, 2**31 - 1 - 65535), SettingsFrame(0, {4: 65536})),
    ),
    "6.10 CONTINUATION on stream 0": (PROTOCOL, lambda p: [raw(9, 4, 0)]),
    "6.10 CONTINUATION after END_HEADERS": (PROTOCOL, lambda p: opened(p, raw(9, 4, 1))),
    "6.10 CONTINUATION without end": (CALM, lambda p: [raw(1, 0, 1, p.block()), *[raw(9, 0, 1, b"")] * 1000]),
    "6.10 a block without end": (CALM, lambda p: [raw(1, 0, 1, p.block()), *[raw(9, 0, 1, bytes(60_000))] * 2]),
    "7541 2.3.3 line 0": (COMPRESSION, lambda p: [raw(1, 5, 1, b"\x80")]),
    "7541 2.3.3 a line that is not there": (COMPRESSION, lambda p: [raw(1, 5, 1, b"\xff\x00")]),
    "7541 4.2 a table larger than allowed": (COMPRESSION, lambda p: [raw(1, 5, 1, b"\x3f\xe2\x1f" + p.block())]),
    "7541 4.2 a table update after a line": (COMPRESSION, lambda p: [raw(1, 5, 1, p.block() + b"\x20")]),
    "7541 5.1 a number above all bounds": (COMPRESSION, lambda p: [raw(1, 5, 1, b"\x7f" + b"\x80" * 20 + b"\x00")]),
    "7541 5.2 a string that is cut": (COMPRESSION, lambda p: [raw(1, 5, 1, b"\x00\x05abc")]),
    "7541 5.2 Huffman padding above 7 bits": (COMPRESSION, lambda p: [raw(1, 5, 1, b"\x00\x01a\x82\x1f\xff")]),
    "7541 5.2 Huffman padding of zeros": (COMPRESSION, lambda p: [raw(1, 5, 1, b"\x00\x01a\x81\x18")]),
    "7541 5.2 Huffman with EOS": (COMPRESSION, lambda p: [raw(1, 5, 1, b"\x00\x01a\x84\xff\xff\xff\xfc")]),
}


@pytest.mark.parametrize("case", CONNECTION_ERRORS)
def test_breaking_this_rule_ends_the_connection(case: str) -> None:
    code, make = CONNECTION_ERRORS[case]
    with peer(greet=not case.startswith("3.4")) as p:
        frames = p.send(*make(p))
        assert goaway_code(frames) == code
        assert p.transport.closed
        assert frames[-1].type == GoAwayFrame.type


STREAM_ERRORS: dict[str, tuple[int, Make]] = {
    "5.1 DATA on a half-closed stream": (CLOSED, lambda p: half_closed(p, data(1))),
    "5.1 HEADERS on a half-closed stream": (CLOSED, lambda p: [p.call(1, path=b"/test/Wait"), p.head(1)]),
    "6.3 PRIORITY of 4 bytes": (SIZE, lambda p: opened(p, raw(2, 0, 1, bytes(4)))),
    "6.9 WINDOW_UPDATE of 0 on a stream": (PROTOCOL, lambda p: opened(p, raw(8, 0, 1, bytes(4)))),
    "6.9.1 a stream's window above 2**31-1": (FLOW, lambda p: opened(p, WindowUpdateFrame(1, 2**31 - 1))),
    "8.1 trailers without END_STREAM": (PROTOCOL, lambda p: [p.head(1), p.head(1, [(b"a", b"b")])]),
    "8.1 trailers with a pseudo-header": (PROTOCOL, lambda p: [p.head(1), p.head(1, [(b":path", b"/")], END_STREAM)]),
    "8.1.1 content-length above DATA": (
        PROTOCOL,
        lambda p: [p.head(1, request_lines(content_length=b"20")), data(1, message(b"hello"))],
    ),
    "8.1.1 content-length below DATA": (
        PROTOCOL,
        lambda p: [p.head(1, request_lines(content_length=b"5")), data(1, message(b"hello"))],
    ),
    "8.1.1 content-length below DATA that goes on": (
        PROTOCOL,
        lambda p: [p.head(1, request_lines(content_length=b"5")), data(1, message(b"hello"), end=False)],
    ),
    "8.1.1 content-length and no DATA": (
        PROTOCOL,
        lambda p: [p.head(1, request_lines(content_length=b"5"), END_STREAM)],
    ),
    "8.1.1 content-length above DATA before trailers": (
        PROTOCOL,
        lambda p: [
            p.head(1, request_lines(content_length=b"20")),
            data(1, message(b"hello"), end=False),
            p.head(1, [(b"a", b"b")], END_STREAM),
        ],
    ),
}

MALFORMED: dict[str, list[tuple[bytes, bytes]]] = {
    "8.1.1 content-length that is no number": request_lines(content_length=b"+5"),
    "8.1.1 two content-lengths": [*request_lines(content_length=b"10"), (b"content-length", b"11")],
    "8.2.1 an upper-case name": [*request_lines(), (b"Key", b"value")],
    "8.2.1 a name with a space": [*request_lines(), (b"a key", b"value")],
    "8.2.1 a name with a colon": [*request_lines(), (b"a:key", b"value")],
    "8.2.1 a name outside ASCII": [*request_lines(), (b"k\xe9y", b"value")],
    "8.2.1 an empty name": [*request_lines(), (b"", b"value")],
    "8.2.1 a value with NUL": [*request_lines(), (b"key", b"a\x00b")],
    "8.2.1 a value with CR": [*request_lines(), (b"key", b"a\rb")],
    "8.2.1 a value with LF": [*request_lines(), (b"key", b"a\nb")],
    "8.2.1 a value that starts with a space": [*request_lines(), (b"key", b" a")],
    "8.2.1 a value that ends with a tab": [*request_lines(), (b"key", b"a\t")],
    "8.2.2 connection": [*request_lines(), (b"connection", b"keep-alive")],
    "8.2.2 keep-alive": [*request_lines(), (b"keep-alive", b"5")],
    "8.2.2 proxy-connection": [*request_lines(), (b"proxy-connection", b"close")],
    "8.2.2 transfer-encoding": [*request_lines(), (b"transfer-encoding", b"chunked")],
    "8.2.2 upgrade": [*request_lines(), (b"upgrade", b"h2c")],
    "8.2.2 te other than trailers": request_lines(te=b"trailers, deflate"),
    "8.3 an unknown pseudo-header": [(b":test", b"x"), *request_lines()],
    "8.3 a response's pseudo-header": [(b":status", b"200"), *request_lines()],
    "8.3 a late pseudo-header": [*request_lines(pseudo_path=None), (b":path", b"/test/Echo")],
    "8.3 a doubled pseudo-header": [(b":path", b"/test/Echo"), *request_lines()],
    "8.3.1 no :method": request_lines(pseudo_method=None),
    "8.3.1 no :scheme": request_lines(pseudo_scheme=None),
    "8.3.1 no :path": request_lines(pseudo_path=None),
    "8.3.1 an empty :path": request_lines(path=b""),
    "8.3.1 a host other than :authority": [*request_lines(), (b"host", b"elsewhere")],
}


def _malformed(lines: list[tuple[bytes, bytes]]) -> Make:
    return lambda p: [p.head(1, lines)]


STREAM_ERRORS |= {name: (PROTOCOL, _malformed(lines)) for name, lines in MALFORMED.items()}


@pytest.mark.parametrize("case", STREAM_ERRORS)
def test_breaking_this_rule_ends_the_stream_alone(case: str) -> None:
    code, make = STREAM_ERRORS[case]
    with peer() as p:
        frames = p.send(*make(p))
        assert reset_codes(frames) == {1: code}
        assert goaway_code(frames) is None
        assert not p.connection.streams
        assert p.works()


IGNORED: dict[str, Make] = {
    "4.1 an unknown type": lambda p: [raw(99, 0xFF, 0, b"whatever"), raw(99, 0, 1, b"")],
    "4.1 unknown flags": lambda p: [raw(6, 0xF6, 0, bytes(8))],
    "4.1 the reserved bit": lambda p: [raw(6, 0, 2**31, bytes(8))],
    "5.1 PRIORITY on an idle stream": lambda p: [PriorityFrame(1, 0, 5)],
    "5.1 PRIORITY on a closed stream": lambda p: finished(p, PriorityFrame(1, 0, 5)),
    "5.1 WINDOW_UPDATE on a closed stream": lambda p: finished(p, WindowUpdateFrame(1, 5)),
    "5.1 RST_STREAM on a closed stream": lambda p: finished(p, RstStreamFrame(1)),
    "5.1 DATA after the server's RST_STREAM": lambda p: [p.head(1, request_lines(te=b"x")), data(1, b"xyz")],
    "5.1 trailers after the server's RST_STREAM": lambda p: [
        p.head(1, request_lines(te=b"x")),
        p.head(1, [(b"new-in-the-table", b"b")], END_STREAM),
    ],
    "6.5.2 an unknown setting": lambda p: [SettingsFrame(0, {99: 5})],
    "6.5.3 an ACK": lambda p: [SettingsFrame(0, flags=["ACK"])],
    "6.7 an ACK of a PING": lambda p: [PingFrame(0, b"whatever", flags=["ACK"])],
    "7541 4.2 a table update": lambda p: [
        HeadersFrame(1, b"\x20" + p.block(), flags=[END_HEADERS]),
        RstStreamFrame(1),
    ],
}


@pytest.mark.parametrize("case", IGNORED)
def test_this_is_no_error(case: str) -> None:
    with peer() as p:
        made = IGNORED[case](p)
        frames = p.send(*made)
        assert goaway_code(frames) is None
        if case.startswith("7541"):
            p.encoder = hpack.Encoder()
            p.encoder.header_table_size = 0
        assert p.works()


GOOD: dict[str, Make] = {
    "6.1 padded DATA": lambda p: opened(p, DataFrame(1, message(b"x"), pad_length=200, flags=["PADDED", END_STREAM])),
    "6.2 padded HEADERS": lambda p: [
        HeadersFrame(1, p.block(), pad_length=100, flags=["PADDED", END_HEADERS]),
        data(1, message(b"x")),
    ],
    "6.2 HEADERS with a priority": lambda p: [
        HeadersFrame(1, p.block(), depends_on=0, stream_weight=5, flags=["PRIORITY", END_HEADERS]),
        data(1, message(b"x")),
    ],
    "6.10 HEADERS in three frames": lambda p: [
        *in_three(p.block()),
        data(1, message(b"x")),
    ],
    "8.1 a message in many frames": lambda p: opened(
        p, *[data(1, bytes((b,)), end=False) for b in message(b"x")], data(1)
    ),
    "8.1 trailers": lambda p: [
        p.head(1),
        data(1, message(b"x"), end=False),
        p.head(1, [(b"a", b"b")], END_STREAM),
    ],
    "8.1.1 a content-length that fits": lambda p: [
        p.head(1, request_lines(content_length=b"6")),
        data(1, message(b"x")),
    ],
    "8.2.2 no te": lambda p: [p.head(1, request_lines(te=None)), data(1, message(b"x"))],
    "8.2.3 cookies in two lines": lambda p: [
        p.head(1, [*request_lines(), (b"cookie", b"a=1"), (b"cookie", b"b=2")]),
        data(1, message(b"x")),
    ],
}


@pytest.mark.parametrize("case", GOOD)
def test_this_is_a_good_call(case: str) -> None:
    with peer() as p:
        p.send(*GOOD[case](p))
        assert (p.status(1), p.answer(1)) == ("0", b"x")
        assert p.works()


def test_3_4_the_server_sends_its_settings_first_and_acknowledges() -> None:
    with peer(greet=False) as p:
        assert [frame.type for frame in p.turn()] == [SettingsFrame.type, WindowUpdateFrame.type]
        acknowledged = p.send(GREETING)
        assert [(f.type, set(f.flags)) for f in acknowledged] == [(SettingsFrame.type, {"ACK"})]


def test_3_4_a_client_of_http_1_is_told_so() -> None:
    with peer(greet=False) as p:
        p.connection.data_received(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        written = bytes(p.transport.written)
        head, body = written[written.index(b"HTTP/1.1 505") :].split(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % len(body) in head + b"\r\n"
        assert p.transport.closed
        p._read = len(written)


def test_5_1_2_streams_above_the_limit_are_refused_and_others_go_on() -> None:
    with peer(limits=Limits(streams=3)) as p:
        waiting = [p.call(number, path=b"/test/Wait") for number in (1, 3, 5, 7, 9)]
        assert reset_codes(p.send(*waiting)) == {7: REFUSED, 9: REFUSED}
        p.service.waiting[0].reply(b"first")
        p.turn()
        assert p.answer(1) == b"first"
        assert p.works()


def test_6_5_3_settings_are_acknowledged_once_each() -> None:
    with peer() as p:
        frames = p.send(SettingsFrame(0, {4: 100}), SettingsFrame(0, {4: 200}))
        assert [set(frame.flags) for frame in frames if frame.type == SettingsFrame.type] == [{"ACK"}, {"ACK"}]


def test_6_7_a_ping_comes_back_with_its_bytes() -> None:
    with peer() as p:
        (pong,) = p.send(PingFrame(0, b"\x00\x01abc\xff\x00!"))
        assert isinstance(pong, PingFrame)
        assert (pong.opaque_data, set(pong.flags)) == (b"\x00\x01abc\xff\x00!", {"ACK"})


def test_6_8_after_the_clients_goaway_open_calls_are_answered_and_the_connection_closes() -> None:
    with peer() as p:
        p.send(p.call(1, path=b"/test/Wait"), GoAwayFrame(0, 0))
        assert not p.transport.closed
        p.service.waiting[0].reply(b"last")
        p.turn()
        assert p.answer(1) == b"last"
        assert p.transport.closed


def test_6_8_a_drained_connection_warns_then_ends() -> None:
    with peer() as p:
        p.send(p.call(1, path=b"/test/Wait"))
        p.connection.drain()
        first, ping = p.turn()
        assert isinstance(first, GoAwayFrame)
        assert isinstance(ping, PingFrame)
        assert (first.last_stream_id, first.error_code) == (2**31 - 1, 0)
        p.send(p.call(3))
        assert p.status(3) == "0", "calls on their way are answered"
        (final,) = p.send(PingFrame(0, ping.opaque_data, flags=["ACK"]))
        assert isinstance(final, GoAwayFrame)
        assert (final.last_stream_id, final.error_code) == (3, 0)
        assert reset_codes(p.send(p.call(5))) == {5: REFUSED}
        p.service.waiting[0].reply(b"last")
        p.turn()
        assert p.answer(1) == b"last"
        assert p.transport.closed


def test_6_9_1_an_answer_waits_for_the_window() -> None:
    with peer() as p:
        p.send(SettingsFrame(0, {4: 1}))
        p.send(p.call(1, b"hello"))
        assert p.bodies[1] == b"\x00"
        p.send(WindowUpdateFrame(1, 3))
        assert p.bodies[1] == b"\x00\x00\x00\x00"
        assert p.status(1) is None
        p.send(WindowUpdateFrame(1, 100))
        assert p.answer(1) == b"hello"
        assert p.status(1) == "0"


def test_6_9_2_a_setting_moves_the_windows_of_open_streams_also_below_zero() -> None:
    with peer() as p:
        p.send(SettingsFrame(0, {4: 10}))
        p.send(p.call(1, b"x" * 20))
        assert len(p.bodies[1]) == 10
        p.send(SettingsFrame(0, {4: 0}))
        p.send(WindowUpdateFrame(1, 10))
        assert len(p.bodies[1]) == 10, "the window was at -10"
        p.send(WindowUpdateFrame(1, 1))
        assert len(p.bodies[1]) == 11
        p.send(SettingsFrame(0, {4: 100}))
        assert p.answer(1) == b"x" * 20


def test_6_9_2_the_connections_window_binds_all_streams() -> None:
    with peer() as p:
        p.send(SettingsFrame(0, {4: 2**20}))
        p.send(p.call(1, b"60000", b"/test/Size"), p.call(3, b"60000", b"/test/Size"))
        assert sum(map(len, p.bodies.values())) == 65535
        p.send(WindowUpdateFrame(0, 2**20))
        assert (len(p.answer(1)), len(p.answer(3))) == (60000, 60000)
        assert p.works()


def test_6_9_data_above_a_streams_window() -> None:
    """A handler that takes nothing keeps its window shut."""
    with peer(limits=Limits(stream_window=40_000)) as p:
        p.send(p.head(1, request_lines(b"/test/Deaf")), data(1, message(bytes(30_000)), end=False))
        frames = p.send(data(1, message(bytes(30_000)), end=False))
        assert reset_codes(frames) == {1: FLOW}
        assert p.works()


def test_6_9_data_above_the_connections_window() -> None:
    with peer(limits=Limits(connection_window=66_000, frame_bytes=2**20)) as p:
        frames = p.send(p.head(1), data(1, bytes(66_001)))
        assert goaway_code(frames) == FLOW


def test_6_9_windows_are_opened_again_while_a_message_is_on_its_way() -> None:
    limits = Limits(stream_window=40_000, connection_window=66_000)
    with peer(limits=limits) as p:
        body = message(bytes(10**6))
        p.send(p.head(1, request_lines(b"/test/Sum")))
        streams, connection = 40_000, 66_000
        for at in range(0, len(body), 16_384):
            piece = body[at : at + 16_384]
            assert len(piece) <= min(streams, connection)
            for frame in p.send(data(1, piece, end=at + 16_384 >= len(body))):
                if isinstance(frame, WindowUpdateFrame):
                    streams += frame.window_increment if frame.stream_id else 0
                    connection += 0 if frame.stream_id else frame.window_increment
            streams, connection = streams - len(piece), connection - len(piece)
        assert p.answer(1) == b"1000000"


def test_6_5_2_frames_are_no_larger_than_the_client_takes() -> None:
    with peer() as p:
        p.send(SettingsFrame(0, {4: 2**24}), WindowUpdateFrame(0, 2**24))
        frames = p.send(p.call(1, b"100000", b"/test/Size"))
        assert max(len(f.data) for f in frames if isinstance(f, DataFrame)) == 16384
        frames = p.send(SettingsFrame(0, {5: 50_000}), p.call(3, b"100000", b"/test/Size"))
        assert max(len(f.data) for f in frames if isinstance(f, DataFrame)) == 50_000
        assert len(p.answer(3)) == 100_000


def test_7541_4_2_a_client_that_shrinks_the_table_is_told_that_it_is_empty() -> None:
    with peer() as p:
        frames = p.send(SettingsFrame(0, {1: 0}), p.call(1), p.call(3))
        blocks = [frame.data for frame in frames if isinstance(frame, HeadersFrame)]
        assert [block.startswith(b"\x20") for block in blocks] == [True, False, False, False]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (request_lines(pseudo_method=b"GET"), "405"),
        (request_lines(content_type=b"application/json"), "415"),
        (request_lines(content_type=b"application/grpc-web"), "415"),
        (request_lines(content_type=None), "415"),
        ([(b":method", b"CONNECT"), (b":authority", b"x:1")], "405"),
    ],
)
def test_what_is_not_grpc_gets_an_http_status(lines: list[tuple[bytes, bytes]], status: str) -> None:
    with peer() as p:
        frames = p.send(p.head(1, lines))
        assert p.headers[1] == [[(":status", status)]]
        assert reset_codes(frames) == {1: 0}, "and the rest of the request is not wanted"
        p.send(data(1, b"the rest"))
        assert p.works()


@pytest.mark.parametrize(
    "content_type", [b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=x"]
)
def test_content_types_of_grpc(content_type: bytes) -> None:
    with peer() as p:
        p.send(p.head(1, request_lines(content_type=content_type)), data(1, message(b"x")))
        assert p.answer(1) == b"x"


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        (request_lines(b"/no/Such"), message(b"x"), "12"),
        (request_lines(grpc_encoding=b"br"), message(b"x", 1), "12"),
        (request_lines(grpc_encoding=b"gzip"), message(b"no gzip", 1), "3"),
        (request_lines(), message(b"x", 1), "13"),
        (request_lines(), message(b"x", 7), "13"),
        (request_lines(), message(b"x") * 2, "12"),
        (request_lines(), b"", "13"),
        (request_lines(), b"\x00\x00\x00", "13"),
        (request_lines(), message(b"x")[:-1], "13"),
        (request_lines(), b"\x00\xff\xff\xff\xff", "8"),
        (request_lines(grpc_timeout=b"soon"), message(b"x"), "3"),
        (request_lines(grpc_timeout=b"123456789S"), message(b"x"), "3"),
        ([*request_lines(), (b"large", b"x" * 17_000)], message(b"x"), "8"),
    ],
)
def test_what_is_grpc_and_wrong_gets_a_status(lines: list[tuple[bytes, bytes]], body: bytes, status: str) -> None:
    with peer() as p:
        p.send(p.head(1, lines), data(1, body))
        assert p.status(1) == status
        assert dict(p.headers[1][0])[":status"] == "200"
        assert dict(p.headers[1][-1])["grpc-message"]
        assert p.works()
