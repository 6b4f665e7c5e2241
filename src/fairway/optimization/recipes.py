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
        return passes()[self.stages[-1].name].summary if self.stages else "a way to run programs of torch"


def recipes(settings: OptimizationSettings, sample: dict[str, Any]) -> tuple[Recipe, ...]:
    """The recipes that ``settings`` ask for. ``sample`` says which rows calibrate; it is part of their parameters."""
    weights = {"per_channel": settings.per_channel, "reduce_range": settings.reduce_range}
    lowered = Stage("lower")
    # Quantization knows standard operators only, so it starts from standard ones, with constants already folded.
    standard = (lowered, Stage("graph", {"level": "basic"}))
    minmax = {**weights, "method": "minmax", **sample}
    percentile = {**weights, "method": "percentile", "percentile": settings.percentile, **sample}
    fused = (Stage("simplify"), Stage("attention"), Stage("narrow"))
    fewer = (Stage("simplify"), Stage("attention"), _stage("tokens", sample), Stage("narrow"))
    smooth = _stage("smooth", sample)
    pruned = (Stage("simplify"), Stage("attention"), _stage("prune", sample), Stage("narrow"))
    known = {
        "fp16-weights": (Stage("fp16-weights"),),
        "fused": (*fused, Stage("graph", {"level": settings.level})),
        "cuda": (Stage("cuda"),),
        "tensorrt": (Stage("tensorrt"),),
        "openvino": (Stage("openvino"),),
        "openvino-bf16": (Stage("openvino-bf16"),),
        "fused-int8-dynamic": (*fused, Stage("int8-dynamic", weights)),
        "fused-int8-smooth": (*fused, smooth, Stage("int8-static", minmax)),
        "fused-int8-mixed": (*fused, smooth, Stage("int8-mixed", {**minmax, "float_share": 0.1})),
        "openvino-int8": (_stage("opset"), _stage("int8-nncf", sample), _stage("openvino-int8", {})),
        "fused-openvino-int8": (*fused, Stage("unfuse"), _stage("int8-nncf", sample), _stage("openvino-int8", {})),
        "fewer-tokens": (*fewer, Stage("graph", {"level": settings.level})),
        "fewer-tokens-openvino-int8": (
            *fewer,
            Stage("unfuse"),
            _stage("int8-nncf", sample),
            _stage("openvino-int8", {}),
        ),
        "fewer-tokens-int8": (*fewer, Stage("int8-dynamic", weights)),
        "pruned": (*pruned, Stage("graph", {"level": settings.level})),
        "pruned-int8": (*pruned, Stage("int8-static", minmax)),
        "int4-weights": (_stage("int4-weights"),),
        "graph": (lowered, Stage("graph", {"level": settings.level})),
        "int8-dynamic": (*standard, Stage("int8-dynamic", weights)),
        "int8-static": (*standard, Stage("int8-static", minmax)),
        "int8-percentile": (*standard, Stage("int8-static", percentile)),
    }
    begun = beginning(settings, sample)
    return tuple(Recipe(name, (*begun, *known[name])) for name in settings.candidates)


def beginning(settings: OptimizationSettings, sample: dict[str, Any]) -> tuple[Stage, ...]:
    """What every recipe begins with."""
    return (_stage("shapes", sample), Stage("simplify")) if settings.fixed_shapes else ()


def _stage(name: str, sample: dict[str, Any] | None = None) -> Stage:
    """A pass with its defaults, and which rows it works with."""
    return Stage(name, {**passes()[name].settings(), **(sample or {})})
