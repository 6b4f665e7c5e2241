"""Properties of the HTTP/2 server: any bytes, in any pieces."""

from __future__ import annotations

import hpack
import hpack.table
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fairway.serving.transports.http2.connection import _HTTP1
from fairway.serving.transports.http2.frames import ConnectionFault
from fairway.serving.transports.http2.framing import escape, line, parse_timeout
from fairway.serving.transports.http2.headers import HeaderBlocks
from fairway.serving.transports.http2.hpack import Decoder, Lines
from fairway.serving.transports.http2.limits import Limits
from tests.serving.http2_peer import (
    END_HEADERS,
    END_STREAM,
    GREETING,
    Peer,
    data,
    goaway_code,
    message,
    peer,
    request_lines,
)
from tests.serving.test_http2_spec import raw

LENIENT = Limits(resets=10**6, controls=10**6, dribbles=10**6)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

texts = st.binary(max_size=40)
names = st.sampled_from([b":path", b":method", b"te", b"key", b"traceparent", b"x-bin"]) | texts
header_lists = st.lists(st.tuples(names, texts), max_size=8)


def outcome(decode: object, block: bytes) -> Lines | None:
    try:
        return [(bytes(line[0]), bytes(line[1])) for line in decode(block)]  # type: ignore[operator]
    except (hpack.HPACKError, ConnectionFault):
        return None


def reference() -> hpack.Decoder:
    decoder = hpack.Decoder(max_header_list_size=65536)
    decoder.max_allowed_table_size = 4096
    return decoder


# -- HPACK: ours against the library's


@quick
@given(st.lists(st.tuples(header_lists, st.booleans(), st.sampled_from([None, 0, 50, 200, 4096])), max_size=12))
def test_what_the_library_encodes_is_decoded_as_the_library_does(blocks: list[tuple[Lines, bool, int | None]]) -> None:
    encoder, ours, theirs = hpack.Encoder(), Decoder(65536), reference()
    for lines, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(lines, huffman=huffman)
        assert ours.decode(block) == lines == outcome(lambda b: theirs.decode(b, raw=True), block)


pieces = st.one_of(
    st.integers(0x80, 0xFF).map(lambda b: bytes((b,))),
    st.tuples(st.sampled_from([0x00, 0x0F, 0x10, 0x40, 0x41, 0x7F, 0x7E]), texts, texts).map(
        lambda t: bytes((t[0], len(t[1]))) + t[1] + bytes((len(t[2]),)) + t[2]
    ),
    st.sampled_from([b"\x20", b"\x3f\x11", b"\x3f\xe1\x1f", b"\xff\x00", b"\x7f\x00"]),
    st.binary(max_size=6),
)


@settings(quick, max_examples=400)
@given(st.lists(st.lists(pieces, max_size=6).map(b"".join), max_size=6))
def test_any_bytes_are_decoded_as_the_library_does(blocks: list[bytes]) -> None:
    ours, theirs = Decoder(65536), reference()
    for block in blocks:
        expected = outcome(lambda b: theirs.decode(b, raw=True), block)
        assert outcome(ours.decode, block) == expected
        if expected is None:
            return  # neither is of use any more
        assert ours._bytes <= 4096
        assert ours._table == [(bytes(n), bytes(v)) for n, v in theirs.header_table.dynamic_entries]


@quick
@given(st.lists(header_lists, min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=30), st.data())
def test_kept_blocks_mean_what_decoding_them_would_give(
    lists: list[Lines], order: list[int], source: st.DataObject
) -> None:
    encoder, plain = hpack.Encoder(), Decoder(65536)
    blocks: HeaderBlocks[Lines] = HeaderBlocks(list, 65536)
    for index in order:
        if source.draw(st.booleans()):
            block = encoder.encode(lists[index % len(lists)])
        else:  # nothing indexed: the same bytes each time, which leave the table as it is
            block = b"".join(line(*pair) for pair in lists[index % len(lists)])
        kept = blocks.kept.get(block)
        assert (kept if kept is not None else blocks(block)) == plain.decode(block)


# -- the connection


def calls(p: Peer) -> bytes:
    """A valid client: calls of all kinds, padding, CONTINUATION, settings, pings, cancellation."""
    large = message(b"c" * 66_000)
    first: list[Frame | bytes] = [
        p.call(1, b"one"),
        SettingsFrame(0, {4: 70_000, 3: 5}),
        p.head(3, request_lines(b"/test/Chat")),
    ]
    block = p.block([*request_lines(), (b"many", b"x" * 200)])
    whole: list[Frame | bytes] = [
        *first,
        data(3, message(b"a") + message(b"bb")[:3], end=False),
        PingFrame(0, b"12345678"),
        HeadersFrame(5, block[:7]),
        ContinuationFrame(5, block[7:9]),
        ContinuationFrame(5, block[9:], flags=[END_HEADERS]),
        data(3, message(b"bb")[3:], end=False),
        raw(0, 9, 5, b"\x05" + message(b"five") + bytes(5)),
        p.head(7, request_lines(b"/test/Wait")),
        RstStreamFrame(7),
        WindowUpdateFrame(0, 10**6),
        p.call(9, b"70", b"/test/Size"),
        p.head(11, request_lines(b"/test/Count")),
        data(11, message(b"3 10"), end=False),
        p.head(11, [(b"trailer", b"x")], END_STREAM),
        *[data(3, large[at : at + 15_000], end=at + 15_000 >= len(large)) for at in range(0, len(large), 15_000)],
        p.call(13, b"no", b"/test/Fail"),
    ]
    return b"".join(piece if isinstance(piece, bytes) else piece.serialize() for piece in whole)


def result(p: Peer) -> object:
    p.turn(40)
    statuses = {stream: p.status(stream) for stream in p.headers}
    return statuses, p.bodies, p.transport.closed, sorted(p.connection.streams)


@quick
@given(st.lists(st.integers(1, 3000), max_size=60))
def test_however_it_is_cut_a_stream_of_bytes_gives_the_same_calls(sizes: list[int]) -> None:
    with peer(limits=LENIENT) as whole:
        whole.send(calls(whole))
        expected = result(whole)
        assert expected[0] == dict.fromkeys((1, 3, 5, 9, 11), "0") | {13: "3"}  # type: ignore[index]
    with peer(limits=LENIENT) as p:
        stream, at = calls(p), 0
        for size in sizes:
            p.send(stream[at : at + size])
            at += size
        p.send(stream[at:])
        assert result(p) == expected


def test_byte_by_byte_too() -> None:
    with peer(limits=LENIENT) as whole, peer(limits=LENIENT, greet=False) as p:
        whole.send(calls(whole))
        for byte in GREETING + calls(p):
            p.connection.data_received(bytes((byte,)))
        assert result(p) == result(whole)


def survives(p: Peer, frames: list[Frame]) -> None:
    """Either it goes on or it ends in a GOAWAY; what is written are whole frames (the peer checks that)."""
    frames += p.turn(5)
    assert not p.transport.closed or goaway_code(frames) is not None
    assert p.http2.held.bytes <= p.http2.held.limit
    assert len(p.connection._buffer) <= 65536 + 9
    assert p.connection.outbox.unsent < 10**7


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    return caplog


@settings(quick, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_survived(logged: pytest.LogCaptureFixture, noise: bytes, greet: bool) -> None:
    assume(greet or not noise.startswith(_HTTP1))
    with peer(greet=greet) as p:
        survives(p, p.send(noise))
    assert "http2_failed" not in logged.text


frames = st.tuples(
    st.integers(0, 11),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1, 2**31 + 1]),
    st.binary(max_size=60),
).map(lambda t: raw(*t))


@settings(quick, max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(frames | st.integers(0, 4), min_size=1, max_size=30))
def test_any_frames_are_survived(logged: pytest.LogCaptureFixture, sent: list[bytes | int]) -> None:
    with peer() as p:
        number = 1
        for frame in sent:
            if isinstance(frame, bytes):
                came = p.send(frame)
            else:
                path = [b"/test/Echo", b"/test/Chat", b"/test/Deaf", b"/test/Wait", b"/no/Such"][frame]
                came = p.send(p.head(number, request_lines(path)))
                number += 2
            survives(p, came)
            if p.transport.closed:
                break
    assert "http2_failed" not in logged.text


@settings(quick, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255), st.sampled_from(["set", "drop", "add"])), max_size=6)
)
def test_damaged_calls_are_survived(logged: pytest.LogCaptureFixture, changes: list[tuple[float, int, str]]) -> None:
    with peer(limits=LENIENT) as p:
        stream = bytearray(calls(p))
        for where, byte, how in changes:
            at = int(where * len(stream))
            stream[at : at + (how != "add")] = b"" if how == "drop" else bytes((byte,))
        survives(p, p.send(bytes(stream)))
    assert "http2_failed" not in logged.text


# -- small things


@given(st.text(max_size=3000))
def test_a_text_escaped_is_ascii_and_reads_back(text: str) -> None:
    from urllib.parse import unquote_to_bytes

    escaped = escape(text)
    assert all(0x20 <= byte < 0x7F for byte in escaped)
    assert len(escaped) <= 2048
    back = unquote_to_bytes(escaped).decode("utf-8", "strict")
    assert text.encode("utf-8", "replace").decode().startswith(back)


@given(st.integers(0, 99_999_999), st.sampled_from("HMSmun"))
def test_every_timeout_of_grpc_is_read(value: int, unit: str) -> None:
    seconds = parse_timeout(f"{value}{unit}".encode())
    assert seconds == pytest.approx(value * {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}[unit])
