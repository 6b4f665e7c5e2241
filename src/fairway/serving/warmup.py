"""Make a loaded model as fast on its first request as on its hundredth, and learn what it costs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Hashable, Mapping

import numpy as np

from fairway.bundle.format import Bundle
from fairway.bundle.samples import SAMPLES, read_samples
from fairway.core.errors import InferenceFailed, InvalidBundle
from fairway.core.tensors import Datatype, Tensor, Tensors, TensorSpec, is_float
from fairway.model import Model
from fairway.serving.cost import BLOCKING_US, CostCurve
from fairway.serving.validation import Signature

log = logging.getLogger(__name__)

_ROUNDS = 5
_BUDGET_S = 0.5
_PROBES = 4
_ROUNDING = 1e-3
"""Relative: far above FP32's rounding of sums in another order, far below one step of int8."""
_HALVES = {"bf16": 4e-2, "fp16": 5e-3}
"""The same for engines that compute in half precision: ten steps of it."""
_HALF_ANSWERS = {Datatype.BF16.dtype: _HALVES["bf16"], Datatype.FP16.dtype: _HALVES["fp16"]}
"""Nor does an answer in half precision tell finer differences."""


class Warmed:
    """What warm-up found out.

    Attributes
    ----------
    batching : bool
        Whether requests may share an engine call: declared so, and every output seen to follow the rows.
    curves : dict of signature to CostCurve
    """

    def __init__(self, batching: bool, curves: dict[Hashable, CostCurve]) -> None:
        self.batching = batching
        self.curves = curves


def warm_up(model: Model, bundle: Bundle) -> Warmed:
    """Run the bundle's recorded rows, or made-up ones, at a few batch sizes.

    Raises
    ------
    InferenceFailed
        If the model cannot answer its own recorded rows.
    """
    recorded = sample_rows(bundle)
    rows = recorded if recorded is not None else made_up_rows(model.inputs)
    batching = declared_batching(model)
    try:
        if not batching:
            free = all(spec.shape[:1] == (-1,) for spec in model.inputs)
            return Warmed(False, _learn(model, take(rows, 1) if free else rows, None))
        if reason := _unjoinable(model, rows):
            log.warning("%s: %s; requests run one by one", model.manifest.name, reason)
            return Warmed(False, _learn(model, take(rows, 1), None))
        return Warmed(True, _learn(model, rows, model.manifest.engine.max_batch))
    except Exception as error:
        if recorded is None:  # made-up rows may be nonsense to the model: that says nothing about it
            log.info("%s could not be warmed up on made-up rows: %s", model.manifest.name, error)
            return Warmed(batching, {})
        raise InferenceFailed(f"{model.manifest.name} fails on its own recorded rows ({SAMPLES}): {error}") from error


def declared_batching(model: Model) -> bool:
    """Whether manifest and graph both say that the first axis is rows, of any number."""
    specs = (*model.inputs, *model.outputs, *model.raw_inputs)
    return model.manifest.engine.batching and all(spec.shape[:1] == (-1,) for spec in specs)


def sample_rows(bundle: Bundle) -> dict[str, Tensor] | None:
    """The bundle's recorded rows as model inputs, or ``None`` if it has none that fit."""
    try:
        found = read_samples(bundle)
    except InvalidBundle as error:
        log.warning("not warmed up on recorded rows: %s", error)
        return None
    return found if found and all(len(array) for array in found.values()) else None


def made_up_rows(specs: tuple[TensorSpec, ...]) -> dict[str, Tensor]:
    """One row of zeros, or of a word where the model takes text; free sizes are 1."""
    made: dict[str, Tensor] = {}
    for spec in specs:
        shape = tuple(1 if size == -1 else size for size in spec.shape)
        fill: object = b"warm" if spec.datatype is Datatype.BYTES else 0
        made[spec.name] = np.full(shape, fill, dtype=spec.datatype.dtype)
    return made


def take(rows: Mapping[str, Tensor], count: int, start: int = 0) -> dict[str, Tensor]:
    """``count`` rows from ``start`` on, beginning anew where they run out."""
    return {name: array[np.arange(start, start + count) % len(array)] for name, array in rows.items()}


def _unjoinable(model: Model, rows: Mapping[str, Tensor]) -> str:
    """Why requests must not share a call of this model, whatever its manifest says; empty if they may."""
    if not _follows_rows(model, rows):
        return "an output's first size is not the rows"
    if not all(_stands_alone(model, take(rows, 1, start), take(rows, 3, start + 1)) for start in range(_PROBES)):
        return "a row's answer depends on the rows beside it"
    return ""


def _stands_alone(model: Model, row: Tensors, others: Tensors) -> bool:
    """Whether a row is answered the same alone and beside rows of a larger scale, within what rounding explains."""
    least = _HALVES.get(str(model.manifest.engine.options.get("precision")), _ROUNDING)
    loud = {name: array * 8 if is_float(array) else array for name, array in others.items()}
    alone = model.infer(row)
    beside = model.infer({name: np.concatenate([row[name], loud[name]]) for name in row})
    return all(
        _alike(beside[name][:1], array, max(least, _HALF_ANSWERS.get(array.dtype, 0.0)))
        for name, array in alone.items()
        if is_float(array)
    )


def _alike(one: Tensor, other: Tensor, rounding: float) -> bool:
    return np.allclose(one, other, rtol=rounding, atol=rounding * float(np.abs(other).max(initial=0)))


def _follows_rows(model: Model, rows: Mapping[str, Tensor]) -> bool:
    return all(array.shape[:1] == (count,) for count in (1, 2, 3) for array in model.infer(take(rows, count)).values())


def _learn(model: Model, rows: Mapping[str, Tensor], max_batch: int | None) -> dict[Hashable, CostCurve]:
    curve = CostCurve(BLOCKING_US)
    if max_batch is None:
        sizes = [1]
    elif model.manifest.engine.accelerated:  # each size that it will meet is planned now
        sizes = [2**n for n in range((max_batch - 1).bit_length() + 1)]
    else:
        sizes = sorted({1, min(8, max_batch), max_batch})
    until = time.perf_counter() + _BUDGET_S
    for size in sizes:
        feed: Tensors = dict(rows) if max_batch is None else take(rows, size)
        model.infer(feed)  # the first call of a shape allocates and plans
        best = math.inf
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            model.infer(feed)
            best = min(best, time.perf_counter() - started)  # the rest is other threads' doing
            if time.perf_counter() > until:
                break
        curve.learn(min(size, max_batch or 1), best * 1e6)
    key = None if max_batch is None else Signature(model.inputs, batching=True).of(rows)
    return {key: curve}
