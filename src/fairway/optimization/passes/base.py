"""What a pass is, said before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

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
        """Batches of one and the same size. Rows that do not fill another are left out; too few for one are repeated."""
        size = self.batch or min(size, self.rows)
        for start in range(0, max(self.rows - size, 0) + 1, size):
            rows = np.arange(start, start + size) % self.rows
            yield {name: array[rows] for name, array in self.feed.items()}


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
    independent_rows : bool
        Whether a row's answer is the same whichever rows share its call. If not, the server keeps requests apart.
    """

    name: str
    summary: str
    lossless: bool
    apply: Apply
    independent_rows: bool = True
