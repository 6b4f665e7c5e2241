"""System shared memory: tensors that lie in a region both sides have mapped. Needs the server on the same machine."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fairway.testing.conformance.case import Check, NotOffered, case, expect, expect_equal
from fairway.testing.conformance.rules.management import granted
from fairway.testing.conformance.target import Target, head, outputs, refused
from fairway.testing.conformance.wire import Reply

EXTENSION = ("system_shared_memory",)
FOLDER = Path("/dev/shm")  # noqa: S108 (where Linux keeps POSIX shared memory)
ROW = np.array([1.5, -2.0, 3.25, 4.0], "<f4")


def shared(name: str, *, robust: bool = False) -> Callable[[Check], Check]:
    """A case of this extension."""
    return case(f"shared_memory{name}", level="robust" if robust else "extension", extensions=EXTENSION)


@contextmanager
def region(target: Target, size: int = 64, **changes: int) -> Iterator[tuple[str, Path]]:
    """A region that holds ``ROW``, registered under a name of its own; and the file behind it."""
    if not os.access(FOLDER, os.W_OK) or target.host.split(":")[0] not in ("127.0.0.1", "localhost", "[::1]"):
        raise NotOffered("shared memory needs the server on this machine, and Linux")
    name = f"conformance-{uuid.uuid4().hex[:12]}"
    file = FOLDER / name
    file.write_bytes(ROW.tobytes().ljust(size, b"\0"))
    try:
        granted(_register(target, name, f"/{name}", **{"byte_size": size, **changes}))
        yield name, file
    finally:
        file.unlink()  # what is mapped stays so
        sent, came = target.sent, target.came
        target.post(f"/v2/systemsharedmemory/region/{name}/unregister")
        target.sent, target.came = sent, came


def _register(target: Target, name: str, key: str, offset: int = 0, byte_size: int = 64) -> Reply:
    body = {"key": key, "offset": offset, "byte_size": byte_size}
    return target.post(f"/v2/systemsharedmemory/region/{name}/register", body)


def infer_from(target: Target, name: str, size: Any = 16, offset: Any = None, **output: Any) -> Reply:
    """Infer with the input in a region; ``output``: the parameters of the output."""
    where = {"shared_memory_region": name, "shared_memory_byte_size": size}
    where |= {} if offset is None else {"shared_memory_offset": offset}
    body: dict[str, Any] = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": where}]}
    if output:
        body["outputs"] = [{"name": "y", "parameters": output}]
    return target.infer(target.standard("identity_fp32").name, body)


@shared(".status")
def status(target: Target) -> None:
    """The status lists every region with name, key, offset and byte_size."""
    with region(target) as (name, _):
        for path in ("/v2/systemsharedmemory/status", f"/v2/systemsharedmemory/region/{name}/status"):
            entries = [entry for entry in target.get(path).json if entry["name"] == name]
            expect_equal(entries, [{"name": name, "key": f"/{name}", "offset": 0, "byte_size": 64}], "the status")


@shared(".input")
def region_input(target: Target) -> None:
    """An input is read from its region."""
    with region(target) as (name, _):
        expect_equal(outputs(infer_from(target, name))["y"].array.ravel().tolist(), ROW.tolist(), "the output")


@shared(".offset")
def offset(target: Target) -> None:
    """An input's offset counts from the region's start."""
    with region(target, 64) as (name, file):
        file.write_bytes(bytes(32) + ROW.tobytes() + bytes(16))
        expect_equal(
            outputs(infer_from(target, name, offset=32))["y"].array.ravel().tolist(), ROW.tolist(), "the output"
        )


@shared(".output")
def region_output(target: Target) -> None:
    """An output is written into its region; the answer has its datatype and shape, and no data."""
    with region(target) as (name, file):
        reply = infer_from(target, name, shared_memory_region=name, shared_memory_byte_size=16, shared_memory_offset=32)
        (output,) = head(reply)["outputs"]
        expect_equal((output["datatype"], output["shape"], "data" in output), ("FP32", [1, 4], False), "the output")
        expect_equal(np.frombuffer(file.read_bytes()[32:48], "<f4").tolist(), ROW.tolist(), "the region")


@shared(".unregister")
def unregister(target: Target) -> None:
    """After it is unregistered a region cannot be used; unregistering the unknown succeeds."""
    with region(target) as (name, _):
        for _ in range(2):
            expect_equal(target.post(f"/v2/systemsharedmemory/region/{name}/unregister").status, 200, "the status")
        refused(infer_from(target, name))


@shared(".unknown")
def unknown(target: Target) -> None:
    """A region that is not registered, or a key that does not exist, is refused."""
    with region(target) as (name, _):
        refused(infer_from(target, "no-such-region"))
        refused(_register(target, f"{name}-2", "/no-such-key"))


@shared(".twice")
def twice(target: Target) -> None:
    """A name that is in use cannot be registered again: refused."""
    with region(target) as (name, _):
        refused(_register(target, name, f"/{name}"))


@shared(".outside", robust=True)
def outside(target: Target) -> None:
    """What lies outside of the region is not read: refused (Triton adds the offset twice)."""
    with region(target, 64, byte_size=16) as (name, _):
        for size, at in ((32, 0), (16, 8), (16, 16), (16, 2**62), (16, -8)):
            refused(infer_from(target, name, size, at))


@shared(".outside.output", robust=True)
def outside_output(target: Target) -> None:
    """What lies outside of the region is not written: an error, and the bytes beyond stay."""
    with region(target, 64, byte_size=16) as (name, file):
        reply = infer_from(target, name, shared_memory_region=name, shared_memory_byte_size=16, shared_memory_offset=8)
        expect(reply.status >= 400, f"answered {reply.status}")
        expect(not any(file.read_bytes()[16:]), "bytes beyond the region were written")


@shared(".small")
def small(target: Target) -> None:
    """A region, or a size within it, that is not the tensor's is refused."""
    with region(target) as (name, _):
        refused(infer_from(target, name, 12))
        refused(infer_from(target, name, 12, shared_memory_region=name, shared_memory_byte_size=12))


@shared(".register.wrong", robust=True)
def wrong_register(target: Target) -> None:
    """A region larger than its memory, or of negative or no size, is refused."""
    with region(target) as (name, _):
        for at, size in ((0, 2**40), (2**40, 16), (-1, 16), (0, -1), (0, 0), (60, 16)):
            refused(_register(target, f"{name}-{at}-{size}", f"/{name}", at, size))


@shared(".traversal", robust=True)
def traversal(target: Target) -> None:
    """A key is the name of shared memory, not a path to any file."""
    with region(target) as (name, _):
        for key in ("/../../etc/passwd", "../../etc/passwd", "/a/../../etc/passwd", ""):
            refused(_register(target, f"{name}-t", key, 0, 16))
