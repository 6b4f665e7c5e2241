"""The forms that a search may try of an exported program: how torch runs it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import cached_property
from itertools import product

from fairway.core.extras import require
from fairway.core.manifest import EngineSpec, PassRecord
from fairway.optimization.recipes import Recipe, Stage
from fairway.optimization.search.space import Axis, Choice, Point, Space
from fairway.optimization.settings import CANDIDATES, TORCH, OptimizationSettings

_PLAIN = {"device": "cpu", "mode": "eager", "precision": "fp32"}
"""How the engine runs what says nothing."""


class TorchForms:
    """Devices, modes and precisions, but for those that the bundle has already.

    What this machine lacks is no point: CUDA where torch finds no device, compiling without a C++ compiler. FP16 is tried on
    CUDA only: CPUs compute in it by converting.

    Parameters
    ----------
    settings : OptimizationSettings
    spec : EngineSpec
        Of the bundle that is given.
    """

    def __init__(self, settings: OptimizationSettings, spec: EngineSpec) -> None:
        self._settings = settings
        given = {name: str(spec.options.get(name, plain)) for name, plain in _PLAIN.items()}
        self._given = f"{given['device']}-{given['mode']}", given["precision"]
        self._shared = spec.options.get("parallel", "none") != "none"

    @cached_property
    def space(self) -> Space:
        """Every way that this machine can run, but the given one."""
        devices = ["cuda", "cpu"] if require("torch", extra="torch").cuda.is_available() else ["cpu"]
        compiles = any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))) and not self._shared
        modes = ["eager", "compiled", "aot"] if compiles else ["eager"]
        runs = tuple(f"{device}-{mode}" for device, mode in product(devices, modes))
        given_run, given_precision = self._given
        precisions = []
        for precision in ("bf16", "fp32", "fp16"):
            where = tuple(
                run
                for run in runs
                if (run, precision) != (given_run, given_precision) and (precision != "fp16" or run.startswith("cuda"))
            )
            precisions += [Choice(precision, {"run": where})] if where else []
        return Space(
            (Axis("run", tuple(map(Choice, runs)), kinds=True), Axis("precision", tuple(precisions), kinds=True))
        )

    @property
    def named(self) -> tuple[str, ...]:
        """What is tried first: what the settings name or, by default, each device and mode in BF16, then in FP32."""
        if self._settings.candidates != CANDIDATES:
            return self._settings.candidates
        points = [point for point in self.space.points() if point["precision"] != "fp16"]
        return tuple(_name(point) for point in sorted(points, key=lambda point: str(point["precision"])))

    def point(self, name: str) -> Point:
        """The point that a name stands for; one that this machine cannot run is tried, and says so."""
        device, _, rest = name.partition("-")
        mode, _, precision = rest.partition("-")
        return {"run": f"{device}-{mode}", "precision": precision} if name in TORCH else {"run": name}

    def recipe(self, point: Point) -> Recipe:
        """The pass that makes a point."""
        if "precision" not in point:  # a name for ONNX graphs: building it says so
            return Recipe(str(point["run"]), (Stage("graph", {"level": self._settings.level}),))
        device, _, mode = str(point["run"]).partition("-")
        return Recipe(
            _name(point), (Stage("torch", {"device": device, "mode": mode, "precision": point["precision"]}),)
        )

    def matching(self, records: Sequence[PassRecord]) -> Point | None:
        """The point that made what ``records`` tell of, if there is one."""
        if not records or records[-1].name != "torch":
            return None
        said = records[-1].parameters
        return {"run": f"{said.get('device')}-{said.get('mode')}", "precision": str(said.get("precision"))}


def _name(point: Point) -> str:
    return f"{point['run']}-{point['precision']}"
