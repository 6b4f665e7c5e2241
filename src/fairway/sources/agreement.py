"""The check that every conversion passes: the bundle answers what the original answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairway.core.errors import ConversionMismatch, FairwayError, InvalidSource
from fairway.core.manifest import Prediction
from fairway.core.tensors import Datatype, Tensor, Tensors, is_float
from fairway.model import Model
from fairway.sources.candidate import Original
from fairway.sources.rows import BATCH_ROWS, Rows


@dataclass(frozen=True)
class Tolerance:
    """Numbers agree when ``|bundle - original| <= rtol * |original| + atol * size``.

    ``size`` is the root mean square of the original's output over the checked rows, so that the tolerance does not
    depend on the output's unit.
    """

    rtol: float
    atol: float


TOLERANCES: Mapping[Datatype, Tolerance] = {
    Datatype.BF16: Tolerance(rtol=2e-2, atol=2e-2),
    Datatype.FP16: Tolerance(rtol=1e-2, atol=1e-2),
    Datatype.FP32: Tolerance(rtol=1e-3, atol=1e-4),
    Datatype.FP64: Tolerance(rtol=1e-6, atol=1e-6),
}
"""By the datatype of the bundle's output. All other datatypes must be equal."""


@dataclass(frozen=True)
class Agreement:
    """A check that was passed: over how many rows, and the largest difference at each output of numbers."""

    rows: int
    real: bool
    differences: Mapping[str, float]


def check_agreement(original: Original, model: Model, rows: Rows) -> Agreement:
    """Compare ``model`` with ``original`` on ``rows``, in batches and, if the model batches, one row alone.

    Raises
    ------
    ConversionMismatch
        Saying by how much, at which output and in which row they differ.
    InvalidSource
        If the original cannot answer these rows.
    """
    batching = model.manifest.engine.batching
    size = BATCH_ROWS if batching else max(1, *(spec.shape[0] for spec in model.inputs if spec.shape))
    parts = list(rows.batches(size, exact=not batching))
    if not parts:
        raise InvalidSource(
            f"the graph takes exactly {size} rows at a time, but there are {rows.count}; give more data"
        )
    wanted = _joined([_ask(original, part) for part in parts])
    got = _joined([_run(model, part) for part in parts])
    numbers = np.concatenate([part.numbers for part in parts])
    differences = compare(wanted, got, model.manifest.prediction, numbers)
    if batching and len(numbers) > 1:
        alone = _run(model, rows.part(slice(1)))
        # beside longer rows, a row is filled up: what is compared is the row's own
        own = {name: array[(slice(1), *map(slice, alone[name].shape[1:]))] for name, array in wanted.items()}
        compare(own, alone, model.manifest.prediction, numbers[:1])
    return Agreement(len(numbers), rows.real, differences)


def compare(
    wanted: Tensors, got: Tensors, prediction: Prediction | None = None, numbers: Tensor | None = None
) -> dict[str, float]:
    """The largest difference at each output of numbers, or :class:`ConversionMismatch` where one is too large.

    Labels must be equal, except in rows where the two best scores of the original differ by less than the tolerance.

    Parameters
    ----------
    wanted, got : mapping of output name to array
        Of the original and of the bundle.
    prediction : Prediction, optional
        Names the scores that decide ties.
    numbers : array of int, optional
        Row numbers for the message.

    Examples
    --------
    >>> compare({"y": np.array([1.0, 2.0])}, {"y": np.array([1.0, 2.0001], np.float32)})["y"] < 2e-4
    True
    """
    ties = _ties(wanted, got, prediction)
    differences: dict[str, float] = {}
    for name, want in wanted.items():
        have = got[name]
        if want.shape != have.shape:
            raise ConversionMismatch(
                f"output {name!r} has shape {list(have.shape)} in the bundle, but {list(want.shape)} in the original"
            )
        rows = np.arange(len(want)) if numbers is None else numbers
        if is_float(have):
            differences[name] = _compare_numbers(name, want.astype(np.float64), have, rows)
        else:
            _compare_labels(name, want, have, rows, ties)
    return differences


def _compare_numbers(name: str, want: NDArray[np.float64], have: Tensor, rows: Tensor) -> float:
    for who, array in (("original", want), ("bundle", have)):
        if not np.isfinite(array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise ConversionMismatch(
                f"the {who} answers {array[where]} at output {name!r}, row {rows[where[0]]}; an answer must be a finite number"
            )
    tolerance = TOLERANCES[Datatype.of(have.dtype)]
    difference = np.abs(have.astype(np.float64) - want)
    allowed = tolerance.rtol * np.abs(want) + tolerance.atol * _size(want)
    if (difference > allowed).any():
        worst = np.unravel_index(int(np.argmax(difference - allowed)), want.shape)
        where = tuple(int(i) for i in worst)
        wrong = len(np.unique(np.argwhere(difference > allowed)[:, 0]))
        raise ConversionMismatch(
            f"output {name!r} differs by {difference[where]:.3g} in row {rows[where[0]]} (the original says "
            f"{want[where]:.6g}, the bundle {have[where]:.6g}; allowed is {allowed[where]:.3g}), and too much in {wrong} of "
            f"{len(want)} rows"
        )
    return float(difference.max(initial=0.0))


def _compare_labels(name: str, want: Tensor, have: Tensor, rows: Tensor, ties: NDArray[np.bool_]) -> None:
    same = np.array([_plain(a) == _plain(b) for a, b in zip(want.ravel(), have.ravel(), strict=True)], dtype=np.bool_)
    wrong = ~same.reshape(len(want), -1).all(axis=1) & ~ties
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ConversionMismatch(
            f"output {name!r} differs in row {rows[first]} (the original says {want[first]!r}, the bundle {have[first]!r}), "
            f"and in {int(wrong.sum())} of {len(want)} rows in all"
        )


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.bool_ | bool):
        return int(value)
    return value


def _ties(wanted: Tensors, got: Tensors, prediction: Prediction | None) -> NDArray[np.bool_]:
    rows = len(next(iter(wanted.values())))
    if prediction is None or prediction.output not in wanted or prediction.kind not in ("probabilities", "logits"):
        return np.zeros(rows, dtype=np.bool_)
    scores = wanted[prediction.output].astype(np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2:
        return np.zeros(rows, dtype=np.bool_)
    best = np.sort(scores, axis=1)
    tolerance = TOLERANCES.get(Datatype.of(got[prediction.output].dtype), TOLERANCES[Datatype.FP32])
    close: NDArray[np.bool_] = best[:, -1] - best[:, -2] <= 2 * tolerance.atol * _size(scores)
    return close


def _size(array: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(array)))) if array.any() else 1.0


def _ask(original: Original, part: Rows) -> Tensors:
    try:
        return original(part.feed, part.table)
    except FairwayError:
        raise
    except Exception as error:
        what = (
            "the reference rows" if part.real else "rows generated from its inputs' shapes; give a reference data file"
        )
        raise InvalidSource(f"the original model cannot answer {what}: {type(error).__name__}: {error}") from error


def _run(model: Model, part: Rows) -> Tensors:
    try:
        return model.infer(part.feed)
    except FairwayError:
        raise
    except Exception as error:
        raise ConversionMismatch(
            f"the bundle cannot answer {part.count} rows, which the original does: {error}"
        ) from error


def _joined(parts: Sequence[Tensors]) -> dict[str, Tensor]:
    """All batches; where rows differ in length, zeros fill up the shorter ones."""
    return {name: np.concatenate(_filled_up([part[name] for part in parts])) for name in parts[0]}


def _filled_up(arrays: Sequence[Tensor]) -> list[Tensor]:
    if len({array.ndim for array in arrays}) > 1:
        return list(arrays)
    longest = [max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True)]
    missing = [[(0, 0), *((0, want - have) for want, have in zip(longest, a.shape[1:], strict=True))] for a in arrays]
    return [
        np.pad(array, pads) if any(after for _, after in pads) else array
        for array, pads in zip(arrays, missing, strict=True)
    ]
