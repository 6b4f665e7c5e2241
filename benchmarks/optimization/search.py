"""The real search on real models: what it chooses by itself and how long it takes, beside a sweep of a small space."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

import fairway
from benchmarks.harness import Figure, figure
from benchmarks.optimization.forms import Form
from fairway.bundle.format import Bundle
from fairway.core.gate import Gate
from fairway.evaluation.settings import EvaluationSettings
from fairway.optimization.explore import Explorer
from fairway.optimization.forms import Forms
from fairway.optimization.making import Makers
from fairway.optimization.passes.base import Sample
from fairway.optimization.prefixes import Prefixes
from fairway.optimization.recipes import recipes
from fairway.optimization.rows import rungs
from fairway.optimization.scoring import Examiner
from fairway.optimization.search.journal import Began, Journal, Plan, Start
from fairway.optimization.search.space import Axis, Space
from fairway.optimization.search.trials import Trial, best
from fairway.optimization.settings import CANDIDATES, OptimizationSettings
from fairway.sources.tables import Table

FEW, PATIENCE = 5, 5
"""Forms that the search may try in the small space beside the :data:`CANDIDATES`."""
_OUTSIDE = ("transformer", "fp16-weights", "int4-weights")
"""What the small space leaves out: what is for transformers and for large language models."""


def automatic(
    title: str, source: Bundle, tables: Mapping[str, Any], gate: str, folder: Path
) -> tuple[Form, list[Figure]]:
    """``fairway optimize`` in a project of its own, from the beginning: the form that it chose, and the time it took.

    Parameters
    ----------
    tables : mapping
        Columns of the tables ``test`` and ``reference``, with the right answers as ``label``.
    gate : str
        Lines of the table ``[gate]``.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, table in tables.items():
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    (folder / "fairway.toml").write_text(
        f'[model]\nname = "{source.manifest.name}"\nsource = "unused.onnx"\ntask = "classification"\n'
        f'[data]\ntest = "test.parquet"\nreference = "reference.parquet"\nlabel = "label"\n[gate]\n{gate}\n'
        '[optimize]\nobjective = "throughput_rps"\ntime_budget = "10m"\n'
    )
    started = time.perf_counter()
    found = fairway.optimize(source, project=fairway.Project.find(folder))
    took = time.perf_counter() - started
    (folder / "found.txt").write_text(found.as_text())
    print(found.as_text(), flush=True)
    form = Form(f"chosen by the search, {found.findings.chosen}", found.chosen)
    return form, [figure(f"{title}: time of the search", [took], "s", "<= 600")]


def nothing_pays(source: Bundle, tables: Mapping[str, Any], gate: str, folder: Path) -> list[Figure]:
    """A model too small to gain from any form: the search ends with what was named."""
    form, figures = automatic("tiny", source, tables, gate, folder)
    kept = form.name.endswith("original")
    tried = len([line for line in (folder / "found.txt").read_text().splitlines() if line.startswith("search: none")])
    return [*figures, figure("tiny: original kept, and no other form tried", [float(kept and tried)], "", ">= 1")]


class _Small(Forms):
    """A part of the space, small enough to sweep."""

    @property
    def space(self) -> Space:
        named = {recipe.name for recipe in self._named.values()}
        axes = super().space.axes
        return Space(tuple(_without(axis, {*_OUTSIDE, *(named if axis.name == "operators" else ())}) for axis in axes))


def _without(axis: Axis, values: set[str]) -> Axis:
    return msgspec.structs.replace(axis, choices=tuple(c for c in axis.choices if c.value not in values))


def beside_a_sweep(
    title: str, source: Bundle, table: Table, gate: Gate, sample: Sample, folder: Path
) -> tuple[tuple[Form, Form], list[Figure]]:
    """The same space searched and swept, both from the beginning: what each finds best, and its share of the time."""
    described = {"rows": sample.rows, "seed": 0, "data": "benchmark"}
    small = _Small(OptimizationSettings(), described)
    every = tuple(Start(point) for point in small.space.points())
    named = tuple(Start(small.point(r.name)) for r in recipes(OptimizationSettings(candidates=CANDIDATES), described))
    parts = rungs(table, 0)
    plans = {
        "search": (Plan(starts=named, rungs=len(parts), trials=FEW, patience=PATIENCE), parts),
        "sweep": (Plan(starts=every, rungs=1, trials=0), (table,)),
    }
    took, found = dict[str, float](), dict[str, Form]()
    for name, (plan, growing) in plans.items():
        place = folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        started = time.perf_counter()
        with Makers(source, sample, place, place / ".stages") as makers:
            explorer = _explorer(source, small, (table, growing), gate, sample, place, plan, makers)
            explorer.run(lambda: float("inf"), "no budget")
        took[name] = time.perf_counter() - started
        winner: Trial | None = best(explorer.trials.values(), plan.rungs)
        assert winner is not None, f"the {name} found nothing"
        form = small.recipe(winner.point).name
        print(f"{title}, {name}: {form} of {len(explorer.trials)} in {took[name]:.0f} s", flush=True)
        found[name] = Form(f"best of the {name}, {form}", explorer.bundle(winner.point))
    share = figure(
        f"{title}: time of the search of a space of {small.space.size}", [took["search"] / took["sweep"]],
        "x a sweep's", "<= 0.25",
    )  # fmt: skip
    return (found["search"], found["sweep"]), [share]


def _explorer(
    source: Bundle,
    forms: Forms,
    rows: tuple[Table, Sequence[Table]],
    gate: Gate,
    sample: Sample,
    place: Path,
    plan: Plan,
    makers: Makers,
) -> Explorer:
    table, parts = rows
    journal = Journal(place / "journal.jsonl")
    journal.append(Began(plan))
    settings = EvaluationSettings()
    examiner = Examiner(
        source, table, label="label", gate=gate, slices=(), settings=settings, directory=place, progress=None
    )
    return Explorer(
        source,
        forms=forms,
        journal=journal,
        examiner=examiner,
        rungs=parts,
        sample=sample,
        gate=gate,
        objective="throughput_rps",
        workdir=place,
        prefixes=Prefixes(place / ".stages"),
        makers=makers,
        progress=lambda *_: None,
    )
