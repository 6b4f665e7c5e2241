"""Does a request fit the model? Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from fairway.core.errors import InvalidRequest
from fairway.core.tensors import Tensor, Tensors, TensorSpec

_SMALL = 4096


class Signature:
    """What a version takes: checks a request's inputs, and says which requests may share an engine call.

    Parameters
    ----------
    specs : sequence of TensorSpec
    batching : bool
        Whether the first axis is rows.
    """

    def __init__(self, specs: Sequence[TensorSpec], *, batching: bool) -> None:
        self._specs: Mapping[str, TensorSpec] = {spec.name: spec for spec in specs}
        self._batching = batching
        self.fixed = all(-1 not in spec.shape[1:] for spec in specs)
        self._plain = tuple((spec, spec.datatype.dtype, spec.shape[1:], _finite_only(spec)) for spec in specs)
        self._only = self._plain[0] if len(specs) == 1 and batching and self.fixed else None

    @property
    def batching(self) -> bool:
        """Whether the first axis is rows."""
        return self._batching

    def check(self, inputs: Tensors, finite_known: bool = False) -> int:
        """The request's rows, or :class:`InvalidRequest` saying what does not fit and what would.

        ``finite_known``: see :attr:`InferRequest.finite`.
        """
        if self._only is not None and len(inputs) == 1:  # most models, most requests: one look, in half of the time
            spec, dtype, tail, finite = self._only
            array = inputs.get(spec.name)
            if array is not None and array.dtype == dtype:
                shape = array.shape
                if shape[1:] == tail and shape and shape[0] and (not finite or finite_known or _surely_finite(array)):
                    rows: int = shape[0]
                    return rows
        if inputs.keys() != self._specs.keys():
            raise InvalidRequest(self._mismatch(inputs))
        rows = 1
        for spec, dtype, tail, finite in self._plain:
            array = inputs[spec.name]
            if not (self._batching and self.fixed and array.dtype == dtype and array.shape[1:] == tail and array.ndim):
                spec.check(array)  # the common case above needs no look at each size
            elif finite and not _surely_finite(array):
                spec.check(array)
            if self._batching:
                rows = array.shape[0]
        if self._batching:
            self._check_rows(inputs, rows)
        return rows

    def of(self, inputs: Tensors) -> tuple[Hashable, ...]:
        """Requests with equal results may be joined along the first axis."""
        return () if self.fixed else tuple(inputs[name].shape[1:] for name in self._specs)

    def _check_rows(self, inputs: Tensors, rows: int) -> None:
        if rows == 0:
            raise InvalidRequest("the request has no rows: the first size of every shape must be 1 or more")
        if len(inputs) > 1 and len({array.shape[0] for array in inputs.values()}) > 1:
            found = ", ".join(f"{name!r} {array.shape[0]}" for name, array in inputs.items())
            raise InvalidRequest(f"inputs differ in rows ({found}); every input's first size must be the same")

    def _mismatch(self, inputs: Tensors) -> str:
        unknown = [name for name in inputs if name not in self._specs]
        missing = [name for name in self._specs if name not in inputs]
        said = [f"no input is called {unknown[0]!r}"] if unknown else []
        said += [f"input {missing[0]!r} is missing"] if missing else []
        takes = ", ".join(f"{spec.name!r} {spec.datatype} {list(spec.shape)}" for spec in self._specs.values())
        return f"{' and '.join(said)}; the model takes {takes}"


def _surely_finite(array: Tensor) -> bool:
    """Whether all numbers are finite. ``False`` may be wrong: for huge numbers, whose squares are not.

    A dot product takes a fifth of the time of ``np.isfinite(array).all()`` on a small array; on a large one it would take
    threads.
    """
    return math.isfinite(np.vdot(array, array)) if array.size <= _SMALL else bool(np.isfinite(array).all())


def _finite_only(spec: TensorSpec) -> bool:
    return spec.datatype.is_float and not spec.allow_nan


def select(outputs: Tensors, wanted: Sequence[str] | None) -> Tensors:
    """The outputs asked for, in alphabetical order as Triton gives them; all of them in the model's order if ``None``."""
    if wanted is None:
        return outputs
    return {name: outputs[name] for name in sorted(set(wanted))}


def check_outputs(known: Sequence[TensorSpec], wanted: Sequence[str] | None) -> None:
    """Raise :class:`InvalidRequest` where a wanted output does not exist."""
    names = {spec.name for spec in known}
    for name in wanted or ():
        if name not in names:
            raise InvalidRequest(f"no output is called {name!r}; the model gives {', '.join(sorted(names))}")
