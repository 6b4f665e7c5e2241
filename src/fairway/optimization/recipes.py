"""Candidates by name: which passes, in which order, with which parameters."""

from __future__ import annotations

from typing import Any

import msgspec

from fairway.optimization.registry import passes
from fairway.optimization.settings import OptimizationSettings


class Stage(msgspec.Struct, frozen=True):
    """One pass with its parameters."""

    name: str
    parameters: dict[str, Any] = {}


class Recipe(msgspec.Struct, frozen=True):
    """Stages in order. Where the last one has nothing to do, there is no candidate."""

    name: str
    stages: tuple[Stage, ...]

    @property
    def summary(self) -> str:
        """What the last stage is."""
        return passes()[self.stages[-1].name].summary


def recipes(settings: OptimizationSettings, sample: dict[str, Any]) -> tuple[Recipe, ...]:
    """The recipes that ``settings`` ask for. ``sample`` says which rows calibrate; it is part of their parameters."""
    weights = {"per_channel": settings.per_channel, "reduce_range": settings.reduce_range}
    lowered = Stage("lower")
    # Quantization knows standard operators only, so it starts from standard ones, with constants already folded.
    standard = (lowered, Stage("graph", {"level": "basic"}))
    minmax = {**weights, "method": "minmax", **sample}
    percentile = {**weights, "method": "percentile", "percentile": settings.percentile, **sample}
    known = {
        "graph": (lowered, Stage("graph", {"level": settings.level})),
        "int8-dynamic": (*standard, Stage("int8-dynamic", weights)),
        "int8-static": (*standard, Stage("int8-static", minmax)),
        "int8-percentile": (*standard, Stage("int8-static", percentile)),
    }
    return tuple(Recipe(name, known[name]) for name in settings.candidates)
