"""From a recipe to a bundle: apply the passes, check the lossless ones, write all or nothing."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from fairway.bundle.format import MANIFEST, Bundle, read_bundle, write_bundle
from fairway.core.errors import InvalidBundle
from fairway.core.manifest import EVIDENCE, EngineSpec, PassRecord
from fairway.core.processor import int8_sums, processor
from fairway.optimization.graphs import copy_graph, external_files, fixed_inputs, graph_digest, largest_difference
from fairway.optimization.passes.base import NothingToDo, Sample
from fairway.optimization.prefixes import Prefixes
from fairway.optimization.recipes import Recipe, Stage
from fairway.optimization.registry import missing_extras, passes

_REVISION = 3
"""Raised when a pass changes what it writes: finished candidates are then made again."""


_FILES = {"onnxruntime": ".onnx", "torch": ".pt2"}
"""What each engine's passes change."""


def recipe_key(source: Bundle, recipe: Recipe) -> str:
    """What a finished candidate is found by: the source, the passes and parameters, and the libraries that apply them."""
    libraries = library_versions(stage.name for stage in recipe.stages)
    parts = (_REVISION, source.digest, recipe.stages, libraries)
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def apply_recipe(
    graph: Path, stages: Sequence[Stage], sample: Sample, scratch: Path, prefixes: Prefixes | None = None
) -> tuple[Path, tuple[PassRecord, ...]]:
    """Apply ``stages`` to ``graph`` in order, each in a directory of its own below ``scratch``.

    A stage that has nothing to do is left out, unless it is the last. ``prefixes`` of the same graph and sample are gone on
    from, and added to.

    Returns
    -------
    tuple of Path and PassRecord
        The graph made, and what made it. The same arguments give the same digests.

    Raises
    ------
    NothingToDo
        Saying why the last stage does not apply.
    """
    current = scratch / "source" / graph.name
    current.parent.mkdir()
    known = prefixes.take(stages, current) if prefixes else None
    if known is None:
        copy_graph(graph, current)
    records = list(known.records if known else ())
    engine = engine_after(EngineSpec(), records)
    for number, stage in list(enumerate(stages))[known.stages if known else 0 :]:
        made = scratch / f"{number}-{stage.name}" / graph.name
        made.parent.mkdir()
        try:
            after = _apply(stage, current, made, sample, engine)
        except NothingToDo:
            if number == len(stages) - 1 and not (stage.name == "graph" and records):
                raise
        else:
            records.append(PassRecord(stage.name, stage.parameters, graph_digest(current), graph_digest(made)))
            current, engine = made, after
        if prefixes and number < len(stages) - 1:
            prefixes.keep(stages[: number + 1], current, records)
    return current, tuple(records)


def build_candidate(
    source: Bundle, recipe: Recipe, sample: Sample, destination: Path, prefixes: Prefixes | None = None
) -> Bundle:
    """Write the bundle that ``recipe`` makes of ``source`` at ``destination``, or return the one already there.

    Its processing, samples, labels and tuning are the source's; its parent is the source.

    Raises
    ------
    NothingToDo
        If the recipe does not change the graph.
    """
    if (destination / MANIFEST).is_file():
        return read_bundle(destination)
    spec = source.manifest.engine
    wanted = "torch" if all(stage.name == "torch" for stage in recipe.stages) else "onnxruntime"
    if spec.name != wanted or not spec.file.endswith(_FILES[wanted]):
        made_for = "exported programs that torch runs" if wanted == "torch" else "ONNX graphs on ONNX Runtime"
        raise NothingToDo(f"this bundle runs {spec.file!r} on engine {spec.name!r}; {recipe.name} is for {made_for}")
    graph = source.file(spec.file)
    with tempfile.TemporaryDirectory(prefix=".scratch.", dir=destination.parent) as scratch:
        made, records = apply_recipe(graph, recipe.stages, sample, Path(scratch), prefixes)
        before = source.manifest
        folder = Path(spec.file).parent
        replaced = {(folder / name).as_posix() for name in (graph.name, *external_files(graph))}
        kept = {name: source.path / name for name in before.files if name not in {*replaced, *EVIDENCE}}
        added = {(folder / name).as_posix(): made.parent / name for name in (made.name, *external_files(made))}
        if clash := sorted(set(kept) & set(added)):
            raise InvalidBundle(f"this bundle already has a file {clash[0]!r}; rename it and pack the bundle again")
        environment = before.lineage.environment | current_environment(record.name for record in records)
        lineage = msgspec.structs.replace(before.lineage, parent=source.digest, environment=environment)
        engine = msgspec.structs.replace(engine_after(spec, records), cost=None)
        recipe_so_far = (*before.recipe, *records)
        inputs = fixed_inputs(made, before.inputs) if _fixes_inputs(records) else before.inputs
        manifest = msgspec.structs.replace(before, recipe=recipe_so_far, lineage=lineage, engine=engine, inputs=inputs)
        return write_bundle(destination, manifest, {**kept, **added})


def engine_after(spec: EngineSpec, records: Sequence[PassRecord]) -> EngineSpec:
    """The engine that runs what ``records`` made of a graph that ran on ``spec``."""
    for record in records:
        described = passes()[record.name]
        if described.engine is not None:
            spec = described.engine(spec, record.parameters)
        if not described.independent_rows:
            spec = msgspec.structs.replace(spec, batching=False)
    return spec


def _fixes_inputs(records: Sequence[PassRecord]) -> bool:
    return any("inputs" in passes()[record.name].changes for record in records)


def _apply(stage: Stage, source: Path, destination: Path, sample: Sample, engine: EngineSpec) -> EngineSpec:
    """Apply one pass to what runs on ``engine``; returns what runs the outcome."""
    described = passes()[stage.name]
    if missing := missing_extras(described):
        raise NothingToDo(f"{stage.name} needs pip install 'fairway[{','.join(missing)}]'")
    described.apply(source, destination, stage.parameters, sample)
    after = engine if described.engine is None else described.engine(engine, stage.parameters)
    if described.lossless and (difference := largest_difference(source, destination, sample, (engine, after))):
        raise NothingToDo(f"{stage.name} is not exact for this graph: {difference}")
    return after


def current_environment(names: Iterable[str]) -> dict[str, str]:
    """What decides, beside rows and parameters, which bytes the passes called so write: libraries, and the processor."""
    return {**library_versions(names), "cpu": processor(), "int8_sums": int8_sums()}


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of what the passes called so work with."""
    used = {"onnx", "onnxruntime", *(library for name in names for library in passes()[name].needs.libraries)}
    return {name: _version(name) for name in sorted(used)}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
