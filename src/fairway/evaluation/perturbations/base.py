"""A perturbation: a change of inputs that leaves the truth as it is, at five strengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fairway.core.tensors import Tensor

LEVELS = 5
Apply: TypeAlias = Callable[[Tensor, float, np.random.Generator], Tensor]


class Perturbation(NamedTuple):
    """One way to change inputs.

    Attributes
    ----------
    name : str
    strengths : tuple of float
        Of levels 1 to 5, in ``unit``.
    unit : str
        What a strength is, for people.
    apply : callable of (values, strength, generator)
        Gives values of the same shape and dtype.
    """

    name: str
    strengths: tuple[float, ...]
    unit: str
    apply: Apply

    def at(self, values: Tensor, level: int, seed: int) -> Tensor:
        """The values at a level from 0, which changes nothing, to 5. The same arguments give the same values.

        What is drawn is the same at every level, so that a stronger one hits the same places harder, and more.
        """
        if level == 0:
            return values
        changed = self.apply(values.copy(), self.strengths[level - 1], np.random.default_rng(seed))
        return changed if changed.dtype == values.dtype else as_dtype(changed, values.dtype)


def as_dtype(values: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """Rounded and clipped where the type is one of integers."""
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        return np.clip(np.rint(values), ends.min, ends.max).astype(dtype)
    return values.astype(dtype)
