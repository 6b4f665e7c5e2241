"""What a set of tensors is known by."""

from __future__ import annotations

from hashlib import blake2b

from fairway.core.tensors import Tensors


def digest(seed: bytes, feed: Tensors, raw: bool) -> bytes:
    """160 bits over everything that an answer depends on: the version (``seed``), processing or not, and each input's name,
    datatype, shape and data.

    The outputs that a caller wants are no part of it: all are kept, and each caller is given its own.
    """
    state = blake2b(seed, digest_size=20)
    state.update(b"\1" if raw else b"\0")
    for name in sorted(feed):
        array = feed[name]
        dtype = array.dtype
        kind = dtype.str if dtype.kind != "V" else dtype.name  # the name is a function in Python, and slow
        head = f"{name!r}{kind}{array.shape}".encode("utf-8", "surrogatepass")
        state.update(len(head).to_bytes(4, "little") + head)
        if dtype.kind == "O":
            for item in array.ravel().tolist():
                data = item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogatepass")
                state.update(len(data).to_bytes(8, "little") + data)
        elif dtype.kind != "V" and array.flags.c_contiguous:
            state.update(array.data)
        else:  # BF16 has no buffer of its own
            state.update(array.tobytes())
    return state.digest()
