"""HTTP/1.1 as clients and proxies really send it."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from fairway.testing.conformance.case import case, expect, expect_equal
from fairway.testing.conformance.rules.infer import ROWS, request, sample
from fairway.testing.conformance.target import HEADER_LENGTH, Target, outputs, refused
from fairway.testing.conformance.tensors import Tensor, join, same
from fairway.testing.conformance.wire import Connection, Reply

_SPLIT_S = 0.02  # lets the pieces of a request arrive in packets of their own


def _body(target: Target) -> bytes:
    return json.dumps({"inputs": [given.as_json() for given in sample(target)]}).encode()


def _message(target: Target, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A POST to the infer route of any model."""
    sizes = [f"content-length: {len(body) if length is None else length}"] if length != -1 else []
    lines = [
        f"POST /v2/models/{target.any.name}/infer HTTP/1.1",
        f"host: {target.host}",
        "content-type: application/json",
        *sizes,
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _health(target: Target) -> bytes:
    return f"GET /v2/health/live HTTP/1.1\r\nhost: {target.host}\r\n\r\n".encode()


def _still_serves(target: Target, connection: Connection) -> None:
    connection.send(_health(target))
    expect_equal(target.noted(connection.reply()).status, 200, "the next request on this connection")


@case("http.keep_alive")
def keep_alive(target: Target) -> None:
    """A connection takes one request after another (RFC 9112, 9.3)."""
    message = _message(target, _body(target))
    with target.connection() as connection:
        target.note("three good requests on one connection")
        for _ in range(3):
            connection.send(message)
            expect_equal(target.noted(connection.reply()).status, 200, "the status")


@case("http.keep_alive.errors", level="extension")
def keep_alive_after_errors(target: Target) -> None:
    """A refusal does not end the connection: the next request on it is answered."""
    with target.connection() as connection:
        for wrong in (b"{", b'{"inputs": 7}'):
            target.note(f"{wrong!r}, then a good request on the same connection")
            connection.send(_message(target, wrong))
            refused(target.noted(connection.reply()))
            _still_serves(target, connection)


@case("http.close")
def close(target: Target) -> None:
    """Connection: close is kept: an answer, then the end (RFC 9112, 9.6)."""
    with target.connection() as connection:
        target.note("a good request with Connection: close")
        connection.send(_message(target, _body(target), "connection: close"))
        expect_equal(target.noted(connection.reply()).status, 200, "the status")
        expect(connection.closed(), "the server did not close")


@case("http.1_0")
def http_1_0(target: Target) -> None:
    """HTTP/1.0 is answered, and the connection closed (RFC 9112, 9.3)."""
    with target.connection() as connection:
        target.note("GET /v2/health/live HTTP/1.0")
        connection.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
        expect_equal(target.noted(connection.reply()).status, 200, "the status")
        expect(connection.closed(), "the server did not close")


@case("http.pipelined")
def pipelined(target: Target) -> None:
    """Requests sent without waiting are answered in their order (RFC 9112, 9.3.2)."""
    bodies = [json.dumps({"id": f"p{i}", **json.loads(_body(target))}).encode() for i in range(8)]
    with target.connection() as connection:
        target.note("eight pipelined requests, p0 to p7")
        connection.send(b"".join(_message(target, body) for body in bodies))
        found = [target.noted(connection.reply()).json.get("id") for _ in bodies]
        expect_equal(found, [f"p{i}" for i in range(8)], "the order of the answers")


@case("http.chunked")
def chunked(target: Target) -> None:
    """A chunked body is read (RFC 9112, 7.1)."""
    _chunks(target, "")


@case("http.chunked.extensions", level="robust")
def chunk_extensions(target: Target) -> None:
    """Chunk extensions are ignored (RFC 9112, 7.1.1)."""
    _chunks(target, ';note="x"')


def _chunks(target: Target, extension: str) -> None:
    body = _body(target)
    pieces = [body[:5], body[5:6], body[6:]]
    text = b"".join(f"{len(p):x}{extension}\r\n".encode() + p + b"\r\n" for p in pieces) + b"0\r\n\r\n"
    with target.connection() as connection:
        target.note(f"a good request in three chunks{extension}")
        connection.send(_message(target, text, "transfer-encoding: chunked", length=-1))
        expect_equal(target.noted(connection.reply()).status, 200, "the status")
        _still_serves(target, connection)


@case("http.split.body")
def split_body(target: Target) -> None:
    """A body may come in many packets."""
    message = _message(target, _body(target))
    cut = message.index(b"\r\n\r\n") + 4
    _pieces(target, [message[:cut], *(message[i : i + 11] for i in range(cut, len(message), 11))])


@case("http.split.head", level="robust")
def split_head(target: Target) -> None:
    """A request's head may come in many packets: the request line too."""
    message = _message(target, _body(target))
    _pieces(target, [message[:3], message[3:14], message[14:30], message[30:]])


def _pieces(target: Target, pieces: list[bytes]) -> None:
    with target.connection() as connection:
        target.note(f"a good request in {len(pieces)} packets, the first {pieces[0]!r}")
        for piece in pieces:
            connection.send(piece, pause_s=_SPLIT_S)
        expect_equal(target.noted(connection.reply()).status, 200, "the status")


@case("http.continue", level="extension")
def expect_continue(target: Target) -> None:
    """Expect: 100-continue gets 100, or the answer, before the body is sent (RFC 9110, 10.1.1)."""
    message = _message(target, _body(target), "expect: 100-continue")
    cut = message.index(b"\r\n\r\n") + 4
    with target.connection() as connection:
        target.note("a head with Expect: 100-continue; the body only after 100")
        connection.send(message[:cut])
        expect_equal(target.noted(connection.reply()).status, 100, "the interim status")
        connection.send(message[cut:])
        expect_equal(target.noted(connection.reply()).status, 200, "the status")


@case("http.header_case")
def header_case(target: Target) -> None:
    """Header names are the same in any case (RFC 9110, 5.1)."""
    with target.connection() as connection:
        target.note("a good request with HEADERS IN CAPITALS")
        head, _, body = _message(target, _body(target)).partition(b"\r\n\r\n")
        line, *headers = head.split(b"\r\n")
        shouted = [name.upper() + b":" + value for name, _, value in (h.partition(b":") for h in headers)]
        connection.send(b"\r\n".join([line, *shouted]) + b"\r\n\r\n" + body)
        expect_equal(target.noted(connection.reply()).status, 200, "the status")


@case("http.length.short", level="robust")
def short_body(target: Target) -> None:
    """A body cut short by the client's leaving gets no 200, and the server goes on."""
    body = _body(target)
    with target.connection() as connection:
        target.note("half a body, then the end of the stream")
        connection.send(_message(target, body[: len(body) // 2], length=len(body)))
        connection.half_close()
        connection.closed()
    expect(target.alive(), "the server no longer answers")


@case("http.length.conflict", level="robust")
def conflicting_lengths(target: Target) -> None:
    """Two Content-Lengths that differ, or one beside chunked, are refused: they smuggle (RFC 9112, 6.3)."""
    body = _body(target)
    for extra in ("content-length: 3", "transfer-encoding: chunked"):
        with target.connection() as connection:
            target.note(f"Content-Length {len(body)} and {extra}")
            connection.send(_message(target, body, extra))
            status = _status_or_close(target, connection)
            expect(status is None or 400 <= status < 500, f"answered {status}")


@case("http.length.wrong", level="robust")
def wrong_lengths(target: Target) -> None:
    """A Content-Length that is no number is refused (RFC 9112, 6.3)."""
    for length in ("-1", "+5", "abc", "0x10", "99999999999999999999999"):
        with target.connection() as connection:
            target.note(f"Content-Length: {length}")
            connection.send(_message(target, b"{}", f"content-length: {length}", length=-1))
            status = _status_or_close(target, connection)
            expect(status is None or 400 <= status < 500, f"{length!r} was answered with {status}")


def _status_or_close(target: Target, connection: Connection) -> int | None:
    from fairway.testing.conformance.case import Unmet

    try:
        return target.noted(connection.reply()).status
    except Unmet:
        return None


@case("http.garbage", level="robust")
def garbage(target: Target) -> None:
    """What is not HTTP gets a 400 or the end of the connection, and the server goes on."""
    for data in (b"\0\1\2\3\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"):
        with target.connection() as connection:
            target.note(f"{data!r}")
            connection.send(data)
            connection.half_close()
            status = _status_or_close(target, connection)
            expect(status is None or status >= 400, f"answered {status}")
    expect(target.alive(), "the server no longer answers")


@case("http.body.on_get", level="robust")
def body_on_get(target: Target) -> None:
    """A GET with a body is answered, and its body does not become the next request."""
    with target.connection() as connection:
        target.note("GET with a body of 5 bytes")
        connection.send(
            f"GET /v2/health/live HTTP/1.1\r\nhost: {target.host}\r\ncontent-length: 5\r\n\r\nhello".encode()
        )
        expect(target.noted(connection.reply()).status in (200, 400), "neither 200 nor 400")
        _still_serves(target, connection)


# -- content encodings


def _encoded(target: Target, body: bytes, encoding: str, **headers: str) -> Reply:
    return target.infer(target.standard("identity_fp32").name, body, {"content-encoding": encoding, **headers})


WHOLE = json.dumps(request()).encode()
WANTED = Tensor("y", "FP32", ROWS.array)
RAW_DEFLATE = zlib.compressobj(wbits=-15)


@case("encoding.gzip", level="extension")
def gzip_request(target: Target) -> None:
    """Triton, compression: a body in gzip is read."""
    same(outputs(_encoded(target, gzip.compress(WHOLE), "gzip"))["y"], WANTED)


@case("encoding.deflate", level="extension")
def deflate_request(target: Target) -> None:
    """Triton, compression: deflate is the zlib form (RFC 9110, 8.4.1.2)."""
    same(outputs(_encoded(target, zlib.compress(WHOLE), "deflate"))["y"], WANTED)


@case("encoding.identity", level="extension")
def identity_request(target: Target) -> None:
    """Content-Encoding: identity changes nothing."""
    same(outputs(_encoded(target, WHOLE, "identity"))["y"], WANTED)


@case("encoding.binary", level="extension", extensions=["binary_tensor_data"])
def binary_encoded(target: Target) -> None:
    """The binary header's length counts the JSON before compression: decompress first."""
    entry, blob = ROWS.as_binary()
    body, length = join({"inputs": [entry]}, [blob])
    for encoding, squeezed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        headers: dict[str, Any] = {HEADER_LENGTH: str(length)}
        same(outputs(_encoded(target, squeezed, encoding, **headers))["y"], WANTED)


def _accepting(target: Target, encoding: str) -> Reply:
    wide = {"name": "x", "datatype": "FP32", "shape": [1, 4000], "data": [0.25] * 4000}
    reply = target.infer(target.standard("identity_fp32").name, {"inputs": [wide]}, {"accept-encoding": encoding})
    expect_equal(outputs(reply)["y"].shape, [1, 4000], "the shape")  # httpx has decompressed it
    return reply


@case("encoding.accept.gzip", level="extension")
def gzip_answer(target: Target) -> None:
    """Triton, compression: Accept-Encoding gzip gets an answer in gzip."""
    expect_equal(_accepting(target, "gzip").headers.get("content-encoding"), "gzip", "Content-Encoding")


@case("encoding.accept.deflate", level="extension")
def deflate_answer(target: Target) -> None:
    """Triton, compression: Accept-Encoding deflate gets an answer in deflate."""
    expect_equal(_accepting(target, "deflate").headers.get("content-encoding"), "deflate", "Content-Encoding")


@case("encoding.accept.none")
def plain_answer(target: Target) -> None:
    """An answer in an encoding that was not asked for cannot be read: none without Accept-Encoding."""
    expect(_accepting(target, "identity").headers.get("content-encoding", "identity") == "identity", "it is encoded")


@case("encoding.accept.zero", level="robust")
def refused_encoding(target: Target) -> None:
    """gzip;q=0 refuses gzip (RFC 9110, 12.5.3)."""
    expect(_accepting(target, "gzip;q=0").headers.get("content-encoding", "identity") == "identity", "it is encoded")


@case("encoding.unknown", level="extension")
def unknown_encoding(target: Target) -> None:
    """An encoding that the server does not know is refused: 415 or 501."""
    refused(_encoded(target, WHOLE, "snappy"), 400, 415, 501)


@case("encoding.broken", level="robust")
def broken_encoding(target: Target) -> None:
    """A body that is not in its encoding, or cut short, is refused."""
    squeezed = gzip.compress(WHOLE)
    refused(_encoded(target, WHOLE, "gzip"))
    refused(_encoded(target, squeezed[:-9], "gzip"))
    refused(_encoded(target, squeezed, "deflate"))
    refused(_encoded(target, b"", "gzip"))


@case("encoding.bomb", level="robust")
def bomb(target: Target) -> None:
    """A small body that unpacks into gigabytes is refused, and costs no gigabytes."""
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(2**20)
    packed = b"".join(packer.compress(zeros) for _ in range(1024)) + packer.flush()
    refused(_encoded(target, packed, "gzip"))
