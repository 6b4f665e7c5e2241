"""How torch runs an exported program: operator by operator or compiled, in which precision, on which device."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairway.core.errors import FairwayError
from fairway.core.manifest import EngineSpec
from fairway.engines.base import load_engine
from fairway.optimization.passes.base import Needs, NothingToDo, Parameter, Pass, Sample


def _apply(source: Path, destination: Path, parameters: Mapping[str, Any], _sample: Sample) -> None:
    """Check that this machine runs the program so; the program stays as it is."""
    try:
        load_engine(EngineSpec("torch", source.name, options=dict(parameters)), source.parent).close()
    except FairwayError as error:
        raise NothingToDo(str(error)) from error
    shutil.copyfile(source, destination)


def _engine(spec: EngineSpec, parameters: Mapping[str, Any]) -> EngineSpec:
    return msgspec.structs.replace(spec, options={**spec.options, **parameters})


PASS = Pass(
    name="torch",
    summary="an exported program, run by torch in another way",
    lossless=False,
    apply=_apply,
    needs=Needs(extras=("torch",), libraries=("torch",)),
    changes=frozenset({"engine"}),
    parameters={
        "device": Parameter("where it is computed", "cpu", choices=("cpu", "cuda")),
        "mode": Parameter("operator by operator, or compiled", "eager", choices=("eager", "compiled", "aot")),
        "precision": Parameter("what products are computed in", "fp32", choices=("fp32", "bf16", "fp16")),
    },
    engine=_engine,
)
