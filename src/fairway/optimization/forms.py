"""The forms that a search may try: its space, and the recipe of each point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import msgspec
import numpy as np

from fairway.core.manifest import PassRecord
from fairway.optimization.passes.base import Parameter
from fairway.optimization.recipes import Recipe, Stage, beginning, recipes
from fairway.optimization.registry import passes, runs_here
from fairway.optimization.search.space import Axis, Choice, Point, Space, Value
from fairway.optimization.settings import CANDIDATES, MORE, OptimizationSettings

Condition: TypeAlias = dict[str, tuple[Value, ...]]

_PRODUCTS = ("int8-dynamic", "int8-static", "int8-mixed")
"""How products with constant weights become int8, where the operators are not those given."""
_CALIBRATED = ("int8-static", "int8-mixed")
_GIVEN: Condition = {"operators": ("given",)}
_TRANSFORMER: Condition = {"operators": ("transformer",)}
_PORTABLE: Condition = {"operators": ("given", "transformer")}
"""Whole graphs in the standard's operators, for other engines and quantizers."""
_GRID = 4
"""Values that are tried of a number between two bounds, beside its default."""


class Forms:
    """What may be made of a graph.

    ``operators`` says what the rest starts from: ``standard`` ones, a ``transformer``'s fused ones or those ``given``.
    Then come tokens left behind, ``weights``, outliers moved, and the ``engine``; parameters of a pass are axes that exist
    where the pass does. A recipe by name that is no point of these is one choice of ``operators``, with nothing else to
    choose.

    Parameters
    ----------
    settings : OptimizationSettings
        What it fixes is not searched: weights' bits and scales, and the level of graph optimizations.
    sample : dict
        Says which rows calibrate; it is part of the recipes' parameters.
    """

    def __init__(self, settings: OptimizationSettings, sample: dict[str, Any]) -> None:
        self._settings, self._sample = settings, sample
        every = msgspec.structs.replace(settings, candidates=(*CANDIDATES, *MORE))
        self._named = {recipe.name: recipe for recipe in recipes(every, sample)}

    @property
    def named(self) -> tuple[str, ...]:
        """What the settings name: it is tried first."""
        return self._settings.candidates

    @cached_property
    def space(self) -> Space:
        """Every form whose passes are installed."""
        searched = self._axes(())
        points = {_content(self._stages(point)) for point in Space(searched).points()}
        return Space(
            self._axes(
                name
                for name, recipe in self._named.items()
                if _content(recipe.stages) not in points and not any(_lacks_device(stage) for stage in recipe.stages)
            )
        )

    def point(self, name: str) -> Point:
        """The point that a recipe's name stands for."""
        if name not in self._points:  # an extra is missing: it is tried, and says so
            return {"operators": name}
        return self._points[name]

    def recipe(self, point: Point) -> Recipe:
        """What makes a point; where it has a name, by that name."""
        known = next((name for name, named in self._points.items() if named == point), None)
        alone = str(point["operators"])
        if known or alone in self._named:
            return self._named[known or alone]
        return Recipe(self._label(point), self._stages(point))

    def _label(self, point: Point) -> str:
        """A name for a point that has none: what is not as it would be by itself."""
        first = {axis.name: axis.choices[0].value for axis in self.space.axes}
        said = []
        for name, value in point.items():
            parameter = name.partition(".")[2]
            if value != first[name]:
                said.append(f"{parameter}{value}" if parameter and not isinstance(value, str) else str(value))
        return "-".join(said) or "given"

    def matching(self, records: Sequence[PassRecord]) -> Point | None:
        """The point that made what ``records`` tell of, if there is one; rows that calibrated may have been others."""
        made = [_content([Stage(record.name, self._without_sample(record.parameters))]) for record in records]
        best: tuple[int, Point] | None = None
        for point in self.space.points():
            stages = [Stage(s.name, self._without_sample(s.parameters)) for s in self.recipe(point).stages]
            if _within(made, [_content([stage]) for stage in stages]) and (best is None or len(stages) < best[0]):
                best = len(stages), point
        return best[1] if best and made else None

    @cached_property
    def _points(self) -> dict[str, Point]:
        """By name: the first point with the same stages."""
        names = {_content(recipe.stages): name for name, recipe in reversed(self._named.items())}
        found: dict[str, Point] = {}
        for point in self.space.points():
            alone = str(point["operators"])
            name = alone if alone in self._named else names.get(_content(self._stages(point)))
            if name:
                found.setdefault(name, point)
        return found

    def _axes(self, more: Iterable[str]) -> tuple[Axis, ...]:
        plain: Condition = {**_PORTABLE, "weights": ("float",)}
        nncf: Condition = {**_PORTABLE, "weights": ("int8-nncf",)}
        accelerated = {**plain, "operators": ("given",)}  # ONNX Runtime itself fuses what the accelerator has
        others = _installed(
            [
                *(Choice(name, plain) for name in ("openvino", "openvino-bf16")),
                Choice("openvino-int8", nncf),
                *(Choice(name, accelerated) for name in ("cuda", "tensorrt")),
            ]
        )
        alone = ("fp16-weights", "int4-weights")
        engines = (
            Choice("onnxruntime", {**_GIVEN, "weights": alone}),
            Choice("onnxruntime", {**_TRANSFORMER, "weights": ("float",)}),
            Choice("onnxruntime", nncf),
            *others,
        )
        # What is given, with its weights, on its engine: that is the original.
        as_float = (
            "standard",
            "transformer",
            *(["given"] if any(c.when["weights"] == ("float",) for c in others) else []),
        )
        weights = (
            Choice("float", {"operators": as_float}),
            *(Choice(name, {"operators": ("standard", "transformer")}) for name in _PRODUCTS),
            Choice("int8-nncf", _PORTABLE),
            *(Choice(name, _GIVEN) for name in alone),
        )
        smoothed: Condition = {**_TRANSFORMER, "weights": _CALIBRATED}
        axes = [
            Axis("operators", tuple(map(Choice, ("standard", "transformer", "given", *more))), kinds=True),
            Axis("tokens", (Choice("all", _TRANSFORMER), *_installed([Choice("tokens", _TRANSFORMER)])), kinds=True),
            *self._parameters("tokens", {"tokens": ("tokens",)}),
            Axis("weights", _installed(weights), kinds=True),
            *(axis for name in (*_PRODUCTS, "int4-weights") for axis in self._parameters(name, {"weights": (name,)})),
            Axis("outliers", (Choice("kept", smoothed), *_installed([Choice("smooth", smoothed)])), kinds=True),
            *self._parameters("smooth", {"outliers": ("smooth",)}),
            Axis("engine", engines, kinds=True),
            *self._parameters("openvino-int8", {"engine": ("openvino-int8",)}),
        ]
        return tuple(axes)

    def _parameters(self, name: str, when: Condition) -> list[Axis]:
        fixed = {"per_channel", "reduce_range", "level"}
        found = []
        for parameter, described in passes()[name].parameters.items():
            if parameter in fixed:
                continue
            there: Condition = {f"{name}.method": ("percentile",)} if parameter == "percentile" else when
            values = (self._settings.percentile, 99.9, 99.999) if parameter == "percentile" else grid(described)
            choices = tuple(Choice(value, there) for value in dict.fromkeys(values))
            found.append(Axis(f"{name}.{parameter}", choices, ordered=not described.choices))
        return found

    def _stages(self, point: Point) -> tuple[Stage, ...]:
        operators, weights, engine = (
            point["operators"],
            str(point.get("weights", "")),
            str(point.get("engine", "onnxruntime")),
        )
        whole = Stage("graph", {"level": self._settings.level})
        stages = list(beginning(self._settings, self._sample))
        if operators == "standard":
            # Quantization knows standard operators only, so it starts from standard ones, with constants already folded.
            stages += [Stage("lower"), whole if weights == "float" else Stage("graph", {"level": "basic"})]
        elif operators == "transformer":
            tokens = [self._stage("tokens", point)] if point["tokens"] == "tokens" else []
            stages += [Stage("simplify"), Stage("attention"), *tokens, Stage("narrow")]
            if weights == "int8-nncf" or engine != "onnxruntime":
                stages.append(Stage("unfuse"))
            elif weights == "float":
                stages.append(whole)
            stages += [self._stage("smooth", point)] if point.get("outliers") == "smooth" else []
        if weights == "int8-nncf" and operators == "given":
            stages.append(Stage("opset", passes()["opset"].settings()))
        if weights not in ("", "float"):
            stages.append(self._stage(weights, point))
        if engine != "onnxruntime":
            stages.append(self._stage(engine, point))
        return tuple(stages)

    def _stage(self, name: str, point: Mapping[str, Value]) -> Stage:
        """A pass with what the settings fix, what the point says, and the rows that calibrate."""
        described = passes()[name]
        if name in _PRODUCTS:
            fixed = {"per_channel": self._settings.per_channel, "reduce_range": self._settings.reduce_range}
        else:
            fixed = described.settings()
        chosen = {axis.removeprefix(f"{name}."): v for axis, v in point.items() if axis.startswith(f"{name}.")}
        return Stage(name, {**fixed, **chosen, **(self._sample if described.needs.data else {})})

    def _without_sample(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in parameters.items() if name not in self._sample}


def grid(parameter: Parameter) -> tuple[Value, ...]:
    """Values worth trying, the default first.

    Examples
    --------
    >>> grid(Parameter("a share", 0.5, low=0.1, high=0.9))
    (0.5, 0.1, 0.37, 0.63, 0.9)
    >>> grid(Parameter("layers", 2, low=1, high=24, log=True))
    (2, 1, 3, 8, 24)
    """
    if parameter.choices or parameter.low is None or parameter.high is None:
        return tuple(dict.fromkeys((parameter.default, *parameter.choices)))
    spaced = np.geomspace if parameter.log else np.linspace
    numbers = [float(f"{number:.2g}") for number in spaced(parameter.low, parameter.high, _GRID)]
    whole = isinstance(parameter.default, int)
    return tuple(dict.fromkeys((parameter.default, *(round(n) if whole else n for n in numbers))))


def _installed(choices: Iterable[Choice]) -> tuple[Choice, ...]:
    known = passes()
    return tuple(c for c in choices if c.value not in known or runs_here(known[str(c.value)]))


def _lacks_device(stage: Stage) -> bool:
    described = passes()[stage.name]
    return bool(described.needs.provider) and not runs_here(described)


def _content(stages: Sequence[Stage]) -> bytes:
    return msgspec.json.encode(stages, order="sorted")


def _within(few: Sequence[bytes], many: Sequence[bytes]) -> bool:
    """Whether ``few`` are among ``many``, in order, the last of both being the same."""
    rest = iter(many)
    return all(each in rest for each in few) and list(few[-1:]) == list(many[-1:])
