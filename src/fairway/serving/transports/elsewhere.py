"""Inputs whose values are not in the JSON: raw bytes after it, or shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairway.core.errors import InvalidRequest, NotEnabled
from fairway.core.tensors import Datatype, Tensor
from fairway.serving.transports.v2 import Region, tensor_from_bytes

if TYPE_CHECKING:
    from fairway.serving.shared_memory import SharedMemory

BINARY_HEADER = "inference-header-content-length"
REGION = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
"""The parameters that name one."""


class Elsewhere:
    """Where the inputs of one request may be. One without ``blobs`` may be used for any number of requests.

    Parameters
    ----------
    memory : SharedMemory or None
        ``None``: requests that use it are refused.
    blobs : memoryview or None
        What follows the JSON: the inputs' values in the order of the inputs. ``None``: the whole body is JSON.
    """

    def __init__(self, memory: SharedMemory | None = None, blobs: memoryview | None = None) -> None:
        self._memory = memory
        self._blobs = blobs
        self._start = 0

    def read(self, name: str, datatype: Datatype, shape: tuple[int, ...], parameters: Any) -> Tensor:
        """The values of an input that has no ``data``.

        Raises
        ------
        InvalidRequest
            If its parameters do not say where they are, or they are not there.
        NotEnabled
            If they are in shared memory, which is off.
        """
        if type(parameters) is dict:
            if "binary_data_size" in parameters:
                return tensor_from_bytes(name, datatype, shape, self._take(name, parameters["binary_data_size"]))
            region = region_of(f"input {name!r}", parameters)
            if region is not None:
                self.check_enabled()
                assert self._memory is not None
                return self._memory.read(region, datatype, shape)
        raise InvalidRequest(f"input {name!r} has no data; send its values, nested or flat, as 'data'")

    def finish(self) -> None:
        """Raise :class:`InvalidRequest` if bytes are left that belong to no input."""
        left = len(self._blobs) - self._start if self._blobs is not None else 0
        if left:
            raise InvalidRequest(
                f"{left} bytes follow the last input's; give each binary input its 'binary_data_size' and no 'data', and "
                "send the blobs in the order of the inputs"
            )

    def check_enabled(self) -> None:
        """Raise :class:`NotEnabled` if this server takes no shared memory."""
        if self._memory is None:
            raise no_shared_memory()

    def _take(self, name: str, size: Any) -> memoryview:
        if type(size) is not int or size < 0:
            raise InvalidRequest(
                f"'binary_data_size' of input {name!r} is {size!r:.100}; it is a whole number of bytes"
            )
        if self._blobs is None:
            raise InvalidRequest(
                f"input {name!r} is sent as binary, but the request has no header Inference-Header-Content-Length, which "
                "says how many bytes of the body are JSON; send it, or send the values as 'data'"
            )
        start, end = self._start, self._start + size
        if end > len(self._blobs):
            raise InvalidRequest(
                f"input {name!r} has a 'binary_data_size' of {size}, but only {len(self._blobs) - start} bytes are left in "
                "the body"
            )
        self._start = end
        return self._blobs[start:end]


NOWHERE = Elsewhere()
"""For requests whose data is all in their JSON."""


def no_shared_memory() -> NotEnabled:
    """What is told to whom uses shared memory where it is off."""
    return NotEnabled(
        "this server takes no shared memory; set shared_memory = true in [serve], or send the data itself"
    )


def region_of(what: str, parameters: dict[str, Any]) -> Region | None:
    """The shared memory region that an input's or output's parameters name. ``what``: for the error's text."""
    region, byte_size, start = REGION
    name = parameters.get(region)
    if name is None:
        return None
    size, offset = parameters.get(byte_size), parameters.get(start, 0)
    if type(name) is not str or not name:
        raise InvalidRequest(f"{region!r} of {what} is {name!r:.100}; it is the name of a region")
    for key, value in ((byte_size, size), (start, offset)):
        if type(value) is not int or value < 0:
            raise InvalidRequest(f"{key!r} of {what} is {value!r:.100}; it is a whole number of bytes")
    assert size is not None
    return Region(name, size, offset)
