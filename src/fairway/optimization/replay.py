"""A bundle's recipe, applied once more to what it was made from: the same digests, or what differs and why."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidBundle, MissingExtra, UnsupportedMachine
from fairway.core.manifest import PassRecord
from fairway.optimization.build import current_environment, engine_after
from fairway.optimization.graphs import copy_graph, graph_digest
from fairway.optimization.passes.base import NothingToDo, Pass, Sample
from fairway.optimization.registry import missing_extras, passes

DATA = "data"
"""The parameter of a pass that holds the digest of the reference rows which it used."""

Draw = Callable[[int, int], Sample]
"""Draws reference rows: how many, and by which seed."""


class StageOutcome(StrEnum):
    """Of one stage, and of a whole replay."""

    SAME = "same"
    DIFFERS = "differs"
    NOT_MADE = "could not be made"


class StageReplay(msgspec.Struct, frozen=True, omit_defaults=True):
    """One pass, applied again.

    Attributes
    ----------
    name : str
    outcome : StageOutcome
    recorded, made : str
        Digests of the graph after it, then and now; ``made`` is empty if there is none.
    reason : str
        Why it could not be made.
    """

    name: str
    outcome: StageOutcome
    recorded: str
    made: str = ""
    reason: str = ""


class Replay(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of applying a recipe again.

    Attributes
    ----------
    model, bundle, source : str
        The name, and the digests of the bundle replayed and of what it was made from.
    outcome : StageOutcome
    stages : tuple of StageReplay
        Up to the first that is not the same: what comes after it would differ for that reason alone.
    causes : tuple of str
        What is otherwise than it was, and may be why; empty where the digests are the same.
    left : int
        Stages that were not applied again.
    """

    model: str
    bundle: str
    source: str
    outcome: StageOutcome
    stages: tuple[StageReplay, ...]
    causes: tuple[str, ...] = ()
    left: int = 0

    @property
    def same(self) -> bool:
        """Whether the recipe made the same graph again."""
        return self.outcome is StageOutcome.SAME

    def as_json(self) -> bytes:
        """UTF-8 JSON, which ``msgspec`` reads back as :class:`Replay`."""
        return msgspec.json.encode(self)

    def as_text(self) -> str:
        """Stage by stage, for the terminal."""
        from fairway.optimization.replay_text import replay_text

        return replay_text(self)


class Reference(msgspec.Struct, frozen=True):
    """Reference rows as they are now.

    Attributes
    ----------
    draw : callable or None
        ``None`` where there are none.
    digest : str
        Of all reference data.
    """

    draw: Draw | None = None
    digest: str = ""


def own_records(bundle: Bundle, source: Bundle) -> tuple[PassRecord, ...]:
    """The passes that made ``bundle`` from ``source``. Raises :class:`InvalidBundle` if it cannot come from there."""
    before, recipe = source.manifest.recipe, bundle.manifest.recipe
    if recipe[: len(before)] != before:
        raise InvalidBundle(
            f"the recipe of {bundle.path} does not go on from that of {source.path}; give the bundle that it was made from"
        )
    return recipe[len(before) :]


def replay(bundle: Bundle, source: Bundle, reference: Reference, workdir: Path) -> Replay:
    """Apply the recipe of ``bundle`` to ``source`` again, and compare the graph's digest after every pass.

    Parameters
    ----------
    bundle, source : Bundle
    reference : Reference
        Where the rows that calibrated are drawn from.
    workdir : Path
        For graphs, which are gone afterwards.

    Raises
    ------
    InvalidBundle
        If ``bundle`` cannot have been made from ``source``.
    """
    records = own_records(bundle, source)
    graph = source.file(source.manifest.engine.file)
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".replay.", dir=workdir) as scratch:
        stages = _stages(graph, records, reference, Path(scratch))
    last = records[-1].after if records else graph_digest(graph)
    held = graph_digest(bundle.file(bundle.manifest.engine.file))
    if all(stage.outcome is StageOutcome.SAME for stage in stages) and held != last:
        changed = "the bundle's graph is not the one that its recipe ends with: it was changed afterwards"
        stages = (*stages, StageReplay("bundle", StageOutcome.DIFFERS, last, held, changed))
    elif all(stage.outcome is StageOutcome.SAME for stage in stages) and (
        other := _engine_differs(bundle, source, records)
    ):
        stages = (*stages, StageReplay("bundle", StageOutcome.DIFFERS, last, held, other))
    outcome = next((stage.outcome for stage in stages if stage.outcome is not StageOutcome.SAME), StageOutcome.SAME)
    same = outcome is StageOutcome.SAME
    return Replay(
        bundle.manifest.name,
        bundle.digest,
        source.digest,
        outcome,
        stages,
        () if same else _causes(bundle, source, records, reference),
        0 if same else max(0, len(records) - len(stages)),
    )


def _engine_differs(bundle: Bundle, source: Bundle, records: Sequence[PassRecord]) -> str:
    """How the bundle is run otherwise than its recipe says; empty if it is not."""
    wanted, held = engine_after(source.manifest.engine, records), bundle.manifest.engine
    if (wanted.name, wanted.options) == (held.name, held.options):
        return ""
    return (
        f"the bundle runs on {held.name} {held.options}, and its recipe ends with {wanted.name} {wanted.options}: it was "
        "changed afterwards"
    )


def _stages(graph: Path, records: Sequence[PassRecord], reference: Reference, scratch: Path) -> tuple[StageReplay, ...]:
    """Apply passes until one does not make what it made."""
    current = scratch / "source" / graph.name
    current.parent.mkdir()
    copy_graph(graph, current)
    if records and (found := graph_digest(current)) != records[0].before:
        reason = "the recipe began with another graph than this source's"
        return (StageReplay("source", StageOutcome.DIFFERS, records[0].before, found, reason),)
    stages: list[StageReplay] = []
    for number, record in enumerate(records):
        made = scratch / f"{number}-{record.name}" / graph.name
        made.parent.mkdir()
        stages.append(_stage(record, current, made, reference))
        if stages[-1].outcome is not StageOutcome.SAME:
            break
        current = made
    return tuple(stages)


def _stage(record: PassRecord, current: Path, made: Path, reference: Reference) -> StageReplay:
    def failed(reason: str) -> StageReplay:
        return StageReplay(record.name, StageOutcome.NOT_MADE, record.after, reason=reason)

    described = passes().get(record.name)
    if described is None:
        return failed("no pass of this name is installed")
    if missing := missing_extras(described):
        return failed(f"it needs pip install 'fairway[{','.join(missing)}]'")
    if described.needs.data and reference.draw is None:
        return failed("it used reference rows, and there are none here; name them in [data] reference")
    try:
        described.apply(current, made, record.parameters, _sample(record, described, reference))
    except NothingToDo as why:
        if isinstance(why.__cause__, UnsupportedMachine):
            return failed(str(why))
        return StageReplay(record.name, StageOutcome.DIFFERS, record.after, reason=f"it found nothing to do: {why}")
    except MissingExtra as why:
        return failed(str(why))
    except Exception as error:  # noqa: BLE001 (the libraries raise anything, and this is what is asked for)
        return failed(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    digest = graph_digest(made)
    outcome = StageOutcome.SAME if digest == record.after else StageOutcome.DIFFERS
    return StageReplay(record.name, outcome, record.after, digest)


def _sample(record: PassRecord, described: Pass, reference: Reference) -> Sample:
    """The rows that the pass used; none where it used none."""
    if not described.needs.data or reference.draw is None:
        return Sample({}, 0)
    return reference.draw(record.parameters["rows"], record.parameters["seed"])


def _causes(bundle: Bundle, source: Bundle, records: Sequence[PassRecord], reference: Reference) -> tuple[str, ...]:
    """What is otherwise than when the bundle was made."""
    found: list[str] = []
    if source.digest != bundle.manifest.lineage.parent:
        found.append(
            f"it was made from {bundle.manifest.lineage.parent or 'no known bundle'}, not from {source.digest}"
        )
    used = {record.parameters[DATA] for record in records if DATA in record.parameters}
    if reference.digest and (others := sorted(used - {reference.digest})):
        found.append(f"other reference data: {others[0]} then, {reference.digest} now")
    environment = bundle.manifest.lineage.environment
    known = [record.name for record in records if record.name in passes()]
    for name, now in current_environment(known).items():
        then = environment.get(name)
        if then is not None and then != now:
            found.append(f"{name}: {then} then, {now or 'not installed'} now")
    return tuple(found)
