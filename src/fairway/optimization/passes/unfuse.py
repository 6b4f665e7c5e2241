"""Attention in the standard's operators again: what other engines and quantizers know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairway.optimization.graphs import external_files, load, operators, save_data
from fairway.optimization.passes.base import NothingToDo, Pass, Sample
from fairway.optimization.rewrites.attention import MICROSOFT
from fairway.optimization.rewrites.base import Rewriting
from fairway.optimization.rewrites.unfuse import unfuse_attention


def _apply(source: Path, destination: Path, _parameters: Mapping[str, Any], _sample: Sample) -> None:
    if (MICROSOFT, "MultiHeadAttention") not in operators(source):
        raise NothingToDo("the graph has no attention in one operator")
    model = load(source, data=True)
    rewriting = Rewriting(model)
    if not unfuse_attention(rewriting):
        raise NothingToDo("the graph's attention does more than the standard's operators would say plainly")
    rewriting.forget_domain(MICROSOFT)
    save_data(model, destination, bool(external_files(source)))


PASS = Pass(
    name="unfuse",
    summary="attention in the standard's operators, for engines and quantizers that know only these",
    lossless=True,
    apply=_apply,
    changes=frozenset({"graph"}),
)
