"""Which point to try next, where none is given: one choice away from the best, or where its like were good."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from fairway.core.extras import require
from fairway.optimization.search.journal import Plan
from fairway.optimization.search.model import Model
from fairway.optimization.search.space import Axis, Point, Space, Value
from fairway.optimization.search.trials import Trial, best

_ASKED = 4
"""Points that the sampler is asked for, of which the one is tried that promises most."""

New = Callable[[Point], bool]


def neighbour(space: Space, found: Mapping[str, Trial], plan: Plan, new: New) -> Point | None:
    """The most promising new point that differs from the best so far in one choice, if it promises to better it.

    Where nothing keeps the limits yet, the best is the fastest that was made: something less aggressive may keep them.
    """
    model, leader = Model(list(found.values())), best(found.values(), plan.rungs)
    center = leader or _fastest(found)
    near = [point for point in space.neighbours(center.point) if new(point)] if center else []
    most = min(near, key=model.promise, default=None)
    if most and leader and leader.ratio and model.promise(most) >= math.log(leader.ratio):
        return None
    return most


def _fastest(found: Mapping[str, Trial]) -> Trial | None:
    measured = [trial for trial in found.values() if trial.ratio is not None]
    return min(measured, key=lambda trial: trial.ratio or 0.0, default=None)


def scout(space: Space, found: Mapping[str, Trial], new: New) -> Point | None:
    """The first new point that is of a kind not yet tried: all else about it is as it would be by itself."""
    tried = {choice for trial in found.values() for choice in trial.point.items()}
    kinds = {axis.name for axis in space.axes if axis.kinds}

    def unknown(point: Point) -> bool:
        return any(name in kinds and (name, value) not in tried for name, value in point.items())

    return next((point for point in space.points() if unknown(point) and new(point)), None)


def promising(space: Space, found: Mapping[str, Trial], new: New) -> Point | None:
    """Of all new points, the one that promises most."""
    left = [point for point in space.points() if new(point)]
    return min(left, key=Model(list(found.values())).promise, default=None)


def sampled(space: Space, found: Mapping[str, Trial], plan: Plan, new: New) -> Point | None:
    """A new point where good ones are dense and bad ones are not: Optuna's TPE, constrained by the limits on quality.

    References
    ----------
    J. Bergstra, R. Bardenet, Y. Bengio, B. Kegl, "Algorithms for Hyper-Parameter Optimization", NIPS 2011.
    """
    optuna = require("optuna", extra="optimize")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=plan.seed + len(found), n_startup_trials=0)
    study = optuna.create_study(sampler=sampler)
    scales = {axis.name: _Scale(optuna, axis) for axis in space.axes}
    for trial in found.values():
        if trial.ratio:
            study.add_trial(_told(optuna, trial, scales))
    asked = (_asked(study.ask(), space, scales) for _ in range(_ASKED))
    return min(filter(new, asked), key=Model(list(found.values())).promise, default=None)


def _told(optuna: Any, trial: Trial, scales: Mapping[str, _Scale]) -> Any:
    told = [(name, scales[name], value) for name, value in trial.point.items()]
    return optuna.trial.create_trial(
        params={name: scale.code(value) for name, scale, value in told},
        distributions={name: scale.distribution for name, scale, _ in told},
        value=math.log(trial.ratio or 1.0),
        constraints={"quality": (trial.harm or 0.0) - 1.0},
    )


def _asked(trial: Any, space: Space, scales: Mapping[str, _Scale]) -> Point:
    point: Point = {}
    for axis in space.axes:
        if values := axis.open_in(point):
            value = scales[axis.name].suggest(trial)
            point[axis.name] = value if value in values else values[0]
    return point


class _Scale:
    """An axis as Optuna knows it: values in order by their place, others by their number."""

    def __init__(self, optuna: Any, axis: Axis) -> None:
        values = [choice.value for choice in axis.choices]
        self._name, self._ordered = axis.name, axis.ordered
        self._values: list[Any] = sorted(values) if axis.ordered else values
        last = len(values) - 1
        distributions = optuna.distributions
        self.distribution = (
            distributions.IntDistribution(0, last)
            if axis.ordered
            else distributions.CategoricalDistribution(tuple(range(last + 1)))
        )

    def code(self, value: Value) -> int:
        return self._values.index(value)

    def suggest(self, asked: Any) -> Value:
        count = len(self._values)
        if self._ordered:
            return cast(Value, self._values[asked.suggest_int(self._name, 0, count - 1)])
        return cast(Value, self._values[asked.suggest_categorical(self._name, tuple(range(count)))])
