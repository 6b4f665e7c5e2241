"""Run several requests as one engine call, and give every caller its own rows back. Pure but for the engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from time import perf_counter
from typing import Any, TypeAlias, cast

import msgspec
import numpy as np

from fairway.core.errors import FairwayError, InferenceFailed
from fairway.core.tensors import Tensor, Tensors

log = logging.getLogger(__name__)

Answer: TypeAlias = Tensors | FairwayError
Infer: TypeAlias = Callable[[Tensors], Tensors]


class Run(msgspec.Struct, frozen=True, eq=False):
    """One engine call.

    ``members`` are positions in the list of feeds; ``answers`` are theirs, in the same order. ``outputs`` is ``None``
    when the engine raised. ``started`` is on :func:`time.perf_counter`; then come the seconds for joining the feeds, in the
    engine, and for cutting its outputs apart.
    """

    members: range
    feed: Tensors
    outputs: Tensors | None
    answers: Sequence[Answer]
    started: float = 0.0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0


def run_joined(infer: Infer, feeds: Sequence[Tensors], rows: Sequence[int]) -> list[Run]:
    """Answer every feed, all in one call if the engine can.

    If the joined call raises, or its outputs do not have the joined rows, each feed runs alone, so that a bad one
    fails alone.
    """
    if len(feeds) == 1:
        return [run_alone(infer, feeds[0], 0)]
    started = perf_counter()
    try:
        feed = {name: np.concatenate([part[name] for part in feeds]) for name in feeds[0]}
        joined = perf_counter()
        outputs = infer(feed)
        inferred = perf_counter()
        answers = split(outputs, rows)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (whatever it was, running alone finds whose it is)
        log.debug("a batch of %d failed and runs one by one: %s", len(feeds), error)
        return [run_alone(infer, part, position) for position, part in enumerate(feeds)]
    times = (started, joined - started, inferred - joined, perf_counter() - inferred)
    return [Run(range(len(feeds)), feed, outputs, answers, *times)]


def run_alone(infer: Infer, feed: Tensors, position: int) -> Run:
    """Answer one feed; whatever the engine raises becomes its answer."""
    members = range(position, position + 1)
    started = perf_counter()
    try:
        outputs = infer(feed)
    except FairwayError as error:
        return Run(members, feed, None, [error], started)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (an engine may raise anything: a panic of Rust code is no Exception)
        failure = InferenceFailed(f"the model raised {type(error).__name__}: {error}")
        return Run(members, feed, None, [failure], started)
    return Run(members, feed, outputs, [outputs], started, 0.0, perf_counter() - started)


class Joined:
    """The outputs of a joined call. ``notes`` is for whoever reads them row by row, to do once what serves all callers."""

    __slots__ = ("notes", "outputs")

    def __init__(self, outputs: Tensors) -> None:
        self.outputs = outputs
        self.notes: dict[str, Any] = {}


class Rows(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One caller's rows of joined outputs: ``rows`` of them from ``start`` on. Its arrays are cut when asked for."""

    joined: Joined
    start: int
    rows: int

    def __getitem__(self, name: str) -> Tensor:
        """The output called ``name``."""
        rows: Tensor = self.joined.outputs[name][self.start : self.start + self.rows]
        return rows

    def __iter__(self) -> Iterator[str]:
        """The names of the outputs."""
        return iter(self.joined.outputs)

    def __len__(self) -> int:
        """How many outputs there are."""
        return len(self.joined.outputs)

    # What Mapping makes of the three above. It cannot be a base: a struct is made in half of a class's time.
    __contains__ = Mapping.__contains__
    get = Mapping.get
    keys = Mapping.keys
    values = Mapping.values
    items = Mapping.items


Mapping.register(Rows)


def split(outputs: Tensors, rows: Sequence[int]) -> Sequence[Tensors]:
    """Cut joined outputs into pieces of ``rows`` rows. Raises ``ValueError`` if they have another number in all."""
    total = sum(rows)
    for name, array in outputs.items():
        if array.shape[:1] != (total,):
            raise ValueError(f"output {name!r} has shape {list(array.shape)} for {total} rows")
    joined = Joined(outputs)
    if total == len(rows) and min(rows) == 1:
        pieces = [Rows(joined, row, 1) for row in range(total)]
    else:
        pieces = [Rows(joined, end - count, count) for end, count in zip(accumulate(rows), rows, strict=True)]
    return cast("Sequence[Tensors]", pieces)


def concatenate(parts: Sequence[Tensors]) -> Tensors:
    """The answers of one request's pieces, in order, as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
