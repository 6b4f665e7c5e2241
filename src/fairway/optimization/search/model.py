"""What points not yet tried promise: gains multiply and harms add, nearly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fairway.optimization.search.space import Point
from fairway.optimization.search.trials import Trial

_RIDGE = 0.1
"""How much an effect is drawn to none: a choice seen once is believed for the most part."""
_PENALTY = 2.0
"""What harm beyond the limit weighs against the logarithm of the gain."""
_HOPE = 0.05
"""What is expected of a point with a choice that was never tried: to cost less by so much."""


class Model:
    """The effect of each choice, by ridge regression over what was tried; the original is the origin.

    Examples
    --------
    >>> halves = [Trial(point={"int8": on}, origin="", ratio=ratio) for on, ratio in ((True, 0.5), (False, 1.0))]
    >>> Model(halves).promise({"int8": True}) < Model(halves).promise({"int8": False})
    True
    """

    def __init__(self, tried: Sequence[Trial]) -> None:
        self._tried = {choice for trial in tried if trial.ratio for choice in trial.point.items()}
        self._gain = _effects([(t.point, math.log(t.ratio)) for t in tried if t.ratio])
        self._harm = _effects([(t.point, t.harm) for t in tried if t.harm is not None])

    def promise(self, point: Point) -> float:
        """The logarithm of what it is expected to cost, and a penalty for what it is expected to break. Low is good."""
        hope = 0.0 if all(choice in self._tried for choice in point.items()) else _HOPE
        return self._gain(point) - hope + _PENALTY * max(0.0, self._harm(point) - 1.0)


def _effects(seen: Sequence[tuple[Point, float]]) -> Callable[[Point], float]:
    """A sum over choices, fitted to what was seen; a choice never seen adds nothing."""
    choices = {choice: number for number, choice in enumerate(dict.fromkeys(c for p, _ in seen for c in p.items()))}
    design = np.zeros((len(seen), len(choices)))
    for row, (point, _) in enumerate(seen):
        design[row, [choices[choice] for choice in point.items()]] = 1.0
    values = np.array([value for _, value in seen])
    mean = float(values.mean()) if seen else 0.0
    found = np.linalg.solve(design.T @ design + _RIDGE * np.eye(len(choices)), design.T @ (values - mean))

    def predict(point: Point) -> float:
        return mean + float(sum(found[choices[c]] for c in point.items() if c in choices))

    return predict
