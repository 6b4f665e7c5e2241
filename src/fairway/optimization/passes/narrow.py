"""Where the answer reads one token (a classifier its first), the last layer computes that token only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairway.optimization.graphs import external_files, load, operators, save_data
from fairway.optimization.passes.base import NothingToDo, Pass, Sample
from fairway.optimization.rewrites.base import Rewriting
from fairway.optimization.rewrites.narrow import narrow


def _apply(source: Path, destination: Path, _parameters: Mapping[str, Any], _sample: Sample) -> None:
    if "Gather" not in {name for _, name in operators(source)}:
        raise NothingToDo("the graph chooses no single token")
    model = load(source, data=True)
    if not narrow(Rewriting(model)):
        raise NothingToDo("the answer does not come from a single token's row")
    save_data(model, destination, bool(external_files(source)))


PASS = Pass(
    name="narrow",
    summary="rows that the answer does not read are not computed",
    lossless=True,
    apply=_apply,
    changes=frozenset({"graph"}),
)
