"""``samples.npz``: a few real rows as model inputs, for warm-up and checks."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidBundle
from fairway.core.tensors import Datatype, Tensor, Tensors

SAMPLES = "samples.npz"


def encode_samples(feed: Tensors) -> bytes:
    """The file's bytes; equal feeds give equal bytes.

    BYTES tensors are kept as UTF-8 in two arrays, ``name`` (all elements joined, as bytes) and ``name/lengths``, since
    a NumPy file holds objects only by pickling them. Of BF16 it holds the bytes, and not what they are.
    """
    arrays: dict[str, Tensor] = {}
    for name, array in feed.items():
        if array.dtype == object:
            items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
            arrays[name] = np.frombuffer(b"".join(items), np.uint8)
            arrays[f"{name}/lengths"] = np.array([len(item) for item in items], np.int64).reshape(array.shape)
        else:
            arrays[name] = array
    stream = io.BytesIO()
    # Not np.savez_compressed: it would take some names for its own arguments.
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return stream.getvalue()


def read_samples(bundle: Bundle) -> dict[str, Tensor]:
    """The bundle's sample rows by input name; empty if it has none.

    Raises
    ------
    InvalidBundle
        If the file does not hold the bundle's inputs.
    """
    if SAMPLES not in bundle.manifest.files:
        return {}
    try:
        with np.load(bundle.file(SAMPLES), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return {
            spec.name: _texts(arrays[spec.name], arrays[f"{spec.name}/lengths"])
            if spec.datatype is Datatype.BYTES
            else _typed(arrays[spec.name], spec.datatype)
            for spec in bundle.manifest.inputs
        }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidBundle(f"{SAMPLES} in {bundle.path} is damaged ({error}); pack the model again") from None


def _typed(array: Tensor, datatype: Datatype) -> Tensor:
    return array.view(datatype.dtype) if array.dtype.kind == "V" else array.astype(datatype.dtype, copy=False)


def _texts(joined: Tensor, lengths: Tensor) -> Tensor:
    ends = np.cumsum(lengths.ravel())
    whole = joined.tobytes()
    texts = np.empty(lengths.size, dtype=object)
    texts[:] = [whole[end - size : end] for end, size in zip(ends, lengths.ravel(), strict=True)]
    return texts.reshape(lengths.shape)
