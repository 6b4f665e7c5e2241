"""Memory that a client on this machine shares with the server: tensors need not cross the socket.

Regions are read and written by position instead of being mapped: whatever their owner does to them meanwhile, be it to
cut them off, the server gets fewer bytes and says so. Touching a mapping that was cut off would kill it.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from fairway.core.errors import InvalidConfig, InvalidRequest, RegionNotFound, RequestTooLarge
from fairway.core.tensors import Datatype, Tensor
from fairway.serving.transports.v2 import Region, tensor_from_bytes

MAX_REGIONS = 256
MAX_BYTES = 2**40
_FOLDER = Path("/dev/shm")  # noqa: S108 (where POSIX shared memory lies on Linux)
_KEY = re.compile(r"/?[A-Za-z0-9_][A-Za-z0-9._-]{0,253}")
_MAX_NAME = 1024
_MAX_PREAD = 2**31 - 4096  # Linux reads no more at a time


class _Registered(msgspec.Struct, frozen=True):
    name: str
    key: str
    offset: int
    byte_size: int
    descriptor: int


class SharedMemory:
    """The regions that clients have registered. For the event loop's thread only.

    Parameters
    ----------
    max_tensor_bytes : int
        Larger tensors are not read.
    folder : Path
        Where the operating system shows shared memory as files.

    Raises
    ------
    InvalidConfig
        If this system has no such folder.
    """

    def __init__(self, max_tensor_bytes: int, folder: Path = _FOLDER) -> None:
        if not folder.is_dir():
            raise InvalidConfig(
                f"shared_memory needs {folder}, which {sys.platform} does not have; turn it off in [serve]"
            )
        self._limit = min(max_tensor_bytes, _MAX_PREAD)
        self._folder = folder
        self._regions: dict[str, _Registered] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Take ``byte_size`` bytes from ``offset`` on, of the POSIX shared memory object ``key``, as region ``name``.

        Raises
        ------
        InvalidRequest
            If the name is taken, the key is none or has no object, or the object ends before the region does.
        """
        if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
            raise InvalidRequest(f"a region's name has 1 to {_MAX_NAME} characters")
        if name in self._regions:
            raise InvalidRequest(f"region {name!r} is registered already; unregister it first")
        self._check_limits(offset, byte_size)
        descriptor = self._open(key)
        try:
            _check_fits(name, _size(descriptor), offset, byte_size)
        except BaseException:
            os.close(descriptor)
            raise
        self._regions[name] = _Registered(name, key, offset, byte_size, descriptor)

    def unregister(self, name: str | None) -> None:
        """Forget a region, or all. One that is not registered is no error."""
        for found in [name] if name is not None else list(self._regions):
            region = self._regions.pop(found, None)
            if region is not None:
                os.close(region.descriptor)

    def status(self, name: str | None) -> list[dict[str, Any]]:
        """Name, key, offset and byte_size of one region, or of all. Raises :class:`RegionNotFound`."""
        regions = list(self._regions.values()) if name is None else [self._find(name)]
        return [{"name": r.name, "key": r.key, "offset": r.offset, "byte_size": r.byte_size} for r in regions]

    def read(self, region: Region, datatype: Datatype, shape: Sequence[int]) -> Tensor:
        """A tensor from a part of a region, copied, so that its owner may go on writing.

        Raises
        ------
        RegionNotFound
            If it is not registered.
        InvalidRequest
            If the part is not inside of the region, the region was cut off, or its bytes are no such tensor.
        RequestTooLarge
            If it is above the limit for a tensor.
        """
        if region.byte_size > self._limit:
            raise RequestTooLarge(
                f"{region.byte_size} bytes of region {region.name!r} are more than this server takes ({self._limit:,}); "
                "send fewer rows at a time, or raise max_body_bytes in [serve]"
            )
        start, found = self._part(region, region.byte_size)
        content = os.pread(found.descriptor, region.byte_size, start)
        if len(content) != region.byte_size:
            raise _cut_off(region.name)
        return tensor_from_bytes(region.name, datatype, shape, content)

    def write(self, region: Region, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` at the start of a part of a region.

        Raises
        ------
        RegionNotFound
            If it is not registered.
        InvalidRequest
            If there is less room, the part is not inside of the region, or the region was cut off.
        """
        data = memoryview(data).cast("B")
        if len(data) > region.byte_size:
            raise InvalidRequest(
                f"the output has {len(data)} bytes and its part of region {region.name!r} {region.byte_size}; give it more"
            )
        start, found = self._part(region, len(data))
        if _size(found.descriptor) < start + len(data):  # a write past its end would make it grow
            raise _cut_off(region.name)
        while data:
            written = os.pwrite(found.descriptor, data, start)
            data, start = data[written:], start + written

    def close(self) -> None:
        """Forget every region."""
        self.unregister(None)

    def _check_limits(self, offset: int, byte_size: int) -> None:
        for what, value, low in (("offset", offset, 0), ("byte_size", byte_size, 1)):
            if type(value) is not int or not low <= value <= MAX_BYTES:
                raise InvalidRequest(
                    f"{what!r} is {value!r}; it is a whole number of bytes from {low} to {MAX_BYTES:,}"
                )
        if len(self._regions) >= MAX_REGIONS:
            raise InvalidRequest(f"{MAX_REGIONS} regions are registered, which is the most; unregister some first")
        if sum(region.byte_size for region in self._regions.values()) + byte_size > MAX_BYTES:
            raise InvalidRequest(
                f"the regions would have more than {MAX_BYTES:,} bytes together; unregister some first"
            )

    def _open(self, key: str) -> int:
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise InvalidRequest(
                f"{key!r} is not a key of shared memory; it is a name such as 'input_data', with letters, digits and ._- only"
            )
        path = self._folder / key.removeprefix("/")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise InvalidRequest(f"shared memory {key!r} cannot be opened: {error.strerror}; create it first") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise InvalidRequest(f"{key!r} is not shared memory")
        return descriptor

    def _find(self, name: str) -> _Registered:
        region = self._regions.get(name)
        if region is None:
            raise RegionNotFound(f"no region {name!r} is registered; registered: {', '.join(self._regions) or 'none'}")
        return region

    def _part(self, region: Region, size: int) -> tuple[int, _Registered]:
        found = self._find(region.name)
        if region.offset < 0 or size < 0 or region.offset + region.byte_size > found.byte_size:
            raise InvalidRequest(
                f"{region.byte_size} bytes from offset {region.offset} on are not inside of region {region.name!r}, "
                f"which has {found.byte_size}"
            )
        return found.offset + region.offset, found


def _size(descriptor: int) -> int:
    return os.fstat(descriptor).st_size


def _check_fits(name: str, size: int, offset: int, byte_size: int) -> None:
    if offset + byte_size > size:
        raise InvalidRequest(
            f"region {name!r} would end at byte {offset + byte_size}, but its shared memory has {size}; make it larger"
        )


def _cut_off(name: str) -> InvalidRequest:
    return InvalidRequest(f"region {name!r} has become smaller since it was registered; register it again")
