"""What a pass is, said before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import msgspec
import numpy as np

from fairway.core.manifest import EngineSpec
from fairway.core.tensors import Tensors

Part: TypeAlias = Literal["graph", "weights", "engine", "processing", "inputs"]
"""What of a bundle a pass can change; ``inputs`` are the shapes that requests may have."""


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
    made : frozenset of str
        Inputs that a step of the bundle's processing makes, and not the caller: their shapes may change with every batch.
    """

    feed: Tensors
    rows: int
    batch: int | None = None
    made: frozenset[str] = frozenset()

    def batches(self, size: int = 16) -> Iterator[Tensors]:
        """Batches of one and the same size. Rows that do not fill another are left out; too few for one are repeated."""
        size = self.batch or min(size, self.rows)
        for start in range(0, max(self.rows - size, 0) + 1, size):
            rows = np.arange(start, start + size) % self.rows
            yield {name: array[rows] for name, array in self.feed.items()}


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of a pass: what it is, and what a search may set it to.

    Attributes
    ----------
    summary : str
    default : Any
    choices : tuple
        Every value that there is; else ``low`` and ``high`` bound a number, both included.
    log : bool
        Whether the number is better drawn on a logarithmic scale.
    """

    summary: str
    default: Any
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = False

    def allows(self, value: Any) -> bool:
        """Whether ``value`` is one that a search may set.

        Examples
        --------
        >>> Parameter("weights of 7 bits", True, choices=(True, False)).allows("yes")
        False
        """
        if self.choices:
            return value in self.choices
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


class Needs(msgspec.Struct, frozen=True):
    """What a pass cannot do without.

    Attributes
    ----------
    extras : tuple of str
        Of this package.
    data : bool
        Reference rows, which calibrate.
    labels : bool
        The rows' labels, too.
    torch : bool
        The module that the graph was exported from.
    libraries : tuple of str
        Packages whose version decides what is made.
    provider : str
        Of ONNX Runtime, beside the CPU's.
    """

    extras: tuple[str, ...] = ("optimize",)
    data: bool = False
    labels: bool = False
    torch: bool = False
    libraries: tuple[str, ...] = ("onnx", "onnxruntime")
    provider: str = ""


class Apply(Protocol):
    """How a pass is run."""

    def __call__(self, source: Path, destination: Path, parameters: Mapping[str, Any], sample: Sample, /) -> None:
        """Write ``destination`` from ``source``; both lie in directories of their own, with any external data beside.

        The same arguments give the same bytes. Raises :class:`NothingToDo`.
        """
        ...


class Pass(msgspec.Struct, frozen=True):
    """A description of one pass, found through the entry-point group ``fairway.passes``.

    Attributes
    ----------
    name, summary : str
    lossless : bool
        Outputs stay the same within float rounding; this is checked on the sample's rows whenever it is applied.
    apply : callable
    independent_rows : bool
        Whether a row's answer is the same whichever rows share its call. If not, the server keeps requests apart.
    needs : Needs
    changes : frozenset of Part
    parameters : mapping of name to Parameter
    engine : callable, optional
        The engine that runs the outcome, given the one so far and the parameters. Without, it stays.
    """

    name: str
    summary: str
    lossless: bool
    apply: Apply
    independent_rows: bool = True
    needs: Needs = Needs()
    changes: frozenset[Part] = frozenset({"graph"})
    parameters: dict[str, Parameter] = {}
    engine: Callable[[EngineSpec, Mapping[str, Any]], EngineSpec] | None = None

    def settings(self, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Every parameter's value: ``given``, or its default. Raises ``ValueError`` for one that is not allowed.

        Names that the pass does not know are kept: they say which rows calibrated.
        """
        values = {name: parameter.default for name, parameter in self.parameters.items()} | dict(given or {})
        for name, parameter in self.parameters.items():
            if not parameter.allows(values[name]):
                raise ValueError(f"{self.name}: {name} cannot be {values[name]!r}")
        return values
