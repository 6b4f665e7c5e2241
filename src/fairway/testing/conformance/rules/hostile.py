"""Requests that have crashed servers. They run last."""

from __future__ import annotations

import json

from fairway.testing.conformance.case import case, expect
from fairway.testing.conformance.rules.infer import identity, request
from fairway.testing.conformance.rules.shared_memory import infer_from, region
from fairway.testing.conformance.target import HEADER_LENGTH, Target, refused
from fairway.testing.conformance.tensors import join

BINARY = ("binary_tensor_data",)


def _survives(target: Target) -> None:
    expect(target.alive(), "the server no longer answers")


@case("hostile.shape.huge", level="robust")
def huge_shape(target: Target) -> None:
    """A shape of 10**12 elements with little data is refused: sizes are checked before memory is taken."""
    refused(target.infer(identity(target), request(shape=[10**6, 10**6])))
    _survives(target)


@case("hostile.shape.overflow", level="robust")
def overflowing_shape(target: Target) -> None:
    """A shape whose size overflows 64 bits is refused."""
    for shape in ([2**62, 2], [2**32, 2**32], [2**63, 1], [2**64 + 1, 1], [10**30, 1]):
        refused(target.infer(identity(target), request(shape=shape)))
    _survives(target)


@case("hostile.shape.long", level="robust")
def long_shape(target: Target) -> None:
    """A shape of 100,000 sizes is refused."""
    refused(target.infer(identity(target), request(shape=[1] * 100_000)))
    _survives(target)


@case("hostile.shape.binary", level="robust", extensions=BINARY)
def binary_shapes(target: Target) -> None:
    """The same shapes with binary data are refused."""
    for shape in ([10**6, 10**6], [2**62, 4], [2**32, 2**32], [2**63, 2]):
        entry = {"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": 8}}
        body, length = join({"inputs": [entry]}, [bytes(8)])
        refused(target.infer(identity(target), body, {HEADER_LENGTH: str(length)}))
    _survives(target)


@case("hostile.nested", level="robust")
def nested_brackets(target: Target) -> None:
    """200,000 nested brackets are refused: nesting is bounded."""
    deep = b"[" * 200_000 + b"]" * 200_000
    refused(target.infer(identity(target), deep))
    refused(
        target.infer(identity(target), b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":%b}]}' % deep)
    )
    refused(target.infer(identity(target), b'{"parameters":%b,%b' % (deep, json.dumps(request()).encode()[1:])))
    _survives(target)


@case("hostile.number", level="robust")
def long_number(target: Target) -> None:
    """A number of 100,000 digits is refused with a body, or read."""
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[%b]}]}' % (b"9" * 100_000)
    reply = target.infer(identity(target), body)
    if reply.status != 200:
        refused(reply)
    _survives(target)


@case("hostile.keys", level="robust")
def doubled_keys(target: Target) -> None:
    """A key that is given twice is refused with a body, or one of the two is taken."""
    body = json.dumps(request()).encode()
    reply = target.infer(identity(target), b'{"inputs":[],%b' % body[1:])
    if reply.status != 200:
        refused(reply)


@case("hostile.inputs", level="robust")
def many_inputs(target: Target) -> None:
    """10,000 inputs are refused."""
    entry = request()["inputs"][0]
    refused(target.infer(identity(target), {"inputs": [{**entry, "name": f"x{i}"} for i in range(10_000)]}))


@case("hostile.outputs", level="robust")
def many_outputs(target: Target) -> None:
    """10,000 wanted outputs that do not exist are refused."""
    refused(target.infer(identity(target), {**request(), "outputs": [{"name": f"y{i}"} for i in range(10_000)]}))


@case("hostile.name", level="robust")
def long_name(target: Target) -> None:
    """A name of 60,000 letters in the path is refused, or the connection closed."""
    try:
        reply = target.get(f"/v2/models/{'m' * 60_000}")
    except target.connection_errors:
        pass
    else:
        expect(400 <= reply.status < 500, f"answered {reply.status}")
    _survives(target)


@case("hostile.traversal", level="robust")
def traversal(target: Target) -> None:
    """A name that climbs out of its folder is unknown: refused."""
    for name in ("..%2F..%2Fetc%2Fpasswd", "%2e%2e", "..%5c..", "%00"):
        reply = target.get(f"/v2/models/{name}")
        expect(400 <= reply.status < 500, f"{name!r} was answered with {reply.status}")


@case("hostile.shared_memory", level="robust", extensions=["system_shared_memory"])
def shrunk_region(target: Target) -> None:
    """A region whose memory shrank after it was registered does not end the server."""
    with region(target, 8192) as (name, file):
        with file.open("r+b") as opened:
            opened.truncate(0)
        infer_from(target, name)
        _survives(target)
