"""What a pass is, said before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from fairway.core.tensors import Tensors


class NothingToDo(Exception):
    """The pass does not apply to this graph; the message says why. An answer, which never leaves this package."""


class Sample(msgspec.Struct, frozen=True, eq=False):
    """Rows that the graph really gets: pre-processed reference rows.

    Attributes
    ----------
    feed : mapping of name to array
        The graph's own inputs, all rows.
    rows : int
    batch : int or None
        The only batch size that the graph takes; ``None`` is any.
    """

    feed: Tensors
    rows: int
    batch: int | None = None

    def batches(self, size: int = 16) -> Iterator[Tensors]:
        """Batches of one and the same size; rows that do not fill one are left out, unless there is no other."""
        size = self.batch or min(size, self.rows)
        for start in range(0, self.rows - size + 1, size):
            yield {name: array[start : start + size] for name, array in self.feed.items()}


class Apply(Protocol):
    """How a pass is run."""

    def __call__(self, source: Path, destination: Path, parameters: Mapping[str, Any], sample: Sample, /) -> None:
        """Write ``destination`` from ``source``; both lie in directories of their own, with any external data beside.

        The same arguments give the same bytes. Raises :class:`NothingToDo`.
        """
        ...


class Pass(msgspec.Struct, frozen=True):
    """A description of one pass.

    Attributes
    ----------
    name, summary : str
    lossless : bool
        Outputs stay the same within float rounding; this is checked on the sample's rows whenever it is applied.
    apply : callable
    """

    name: str
    summary: str
    lossless: bool
    apply: Apply
