"""V2 JSON answers of requests that ran together: all their rows become text in one go, and each caller gets its own.

What it gives is, byte for byte, what ``v2json`` would give for each alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from fairway.core.messages import InferResponse
from fairway.core.tensors import Datatype, Tensor
from fairway.serving.joining import Joined, Rows

_NOTE = "v2json"
_MAX_CELLS = 4096
"""Of an answer; a larger one costs so much that what lies around it does not count."""
_NAMES = {kind.dtype: kind.value for kind in Datatype if kind not in (Datatype.BYTES, Datatype.BF16)}
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def encode_rows(response: InferResponse, answer: Rows) -> bytes | None:
    """The body, or ``None`` where it takes a look at each value: text, NaN and infinities, large answers."""
    if answer.rows != 1:
        return None
    notes = answer.joined.notes
    texts = notes.get(_NOTE)
    if texts is None:
        texts = notes[_NOTE] = _Texts.of(response, answer.joined)
    if isinstance(texts, _Texts):
        return texts.body(answer.start, response.id)
    return None


class _Texts:
    """Every row of every output as text, with what stands between, the same for all answers of one row."""

    def __init__(self, between: list[bytes], rows: list[list[bytes]]) -> None:
        self._between = between
        self._rows = rows

    @classmethod
    def of(cls, response: InferResponse, joined: Joined) -> _Texts | str:
        """Or why there can be none."""
        rows: list[list[bytes]] = []
        empty: list[dict[str, Any]] = []
        for name, tensor in joined.outputs.items():
            datatype = _NAMES.get(tensor.dtype)
            if datatype is None or not 0 < tensor.size <= _MAX_CELLS * len(tensor):
                return "not plain numbers, or many of them"
            texts = _rows_of(tensor)
            if texts is None:
                return "not finite"
            rows.append(texts)
            empty.append({"name": name, "shape": (1, *tensor.shape[1:]), "datatype": datatype, "data": []})
        message = {"model_name": response.model, "model_version": response.version, "outputs": empty}
        between = orjson.dumps(message)
        cut = between.split(b'"data":[]')
        if len(cut) != len(rows) + 1:
            return "an output's name looks like data"
        return cls([*(part + b'"data":[' for part in cut[:-1]), cut[-1][:-1]], rows)

    def body(self, row: int, identity: str | None) -> bytes:
        """The answer of one row."""
        end = b"}" if not identity else b',"id":%b}' % orjson.dumps(identity)
        if len(self._rows) == 1:
            return b"%b%b]%b%b" % (self._between[0], self._rows[0][row], self._between[1], end)
        parts: list[bytes] = []
        for between, texts in zip(self._between, self._rows, strict=False):
            parts += (between, texts[row], b"]")
        return b"".join([*parts, self._between[-1], end])


def _rows_of(tensor: Tensor) -> list[bytes] | None:
    """The numbers of each row, with commas between; ``None`` if any is not finite."""
    flat = tensor.reshape(len(tensor), -1)
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        return None
    return orjson.dumps(flat if flat.flags.c_contiguous else np.ascontiguousarray(flat), option=_NUMPY)[2:-2].split(
        b"],["
    )
