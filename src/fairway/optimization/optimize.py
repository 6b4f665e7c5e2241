"""The search for a cheaper form: try forms, measure the best in turn, choose one, and judge it on rows it was not chosen on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.errors import InvalidData
from fairway.core.gate import Gate, check_gate
from fairway.core.manifest import Cost, PassRecord
from fairway.core.metrics import Measurement
from fairway.evaluation.environment import describe_environment
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.model import Model
from fairway.optimization.choice import Choice, Contestant, choose
from fairway.optimization.cost import measure_cost
from fairway.optimization.explore import Explorer
from fairway.optimization.files import exclusive, write_atomic
from fairway.optimization.forms import Forms
from fairway.optimization.front import DIMENSIONS, on_front
from fairway.optimization.honest import Judges, appoint
from fairway.optimization.passes.base import Sample
from fairway.optimization.recipes import Recipe
from fairway.optimization.report import ORIGINAL, Candidate, Findings, Optimization, Status, quality_metric
from fairway.optimization.rows import rungs
from fairway.optimization.scoring import Examiner, Measure, Rounds, measure_rounds, on_quality, score, verdict
from fairway.optimization.search.journal import Began, Journal, Plan, Round
from fairway.optimization.search.trials import Trial, fastest
from fairway.optimization.settings import OptimizationSettings
from fairway.optimization.warm import starts
from fairway.sources.tables import Table

_REVISION = 1
"""Raised when a journal of before cannot be gone on with."""


def optimize(
    bundle: Bundle,
    *,
    table: Table,
    reference: Table,
    label: str,
    gate: Gate,
    workdir: Path,
    measure: Measure,
    slices: Sequence[SliceSettings] = (),
    settings: OptimizationSettings | None = None,
    evaluation: EvaluationSettings | None = None,
    earlier: Sequence[Path] = (),
    known: Sequence[Sequence[PassRecord]] = (),
    root: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Optimization:
    """Find a cheaper form of ``bundle`` that keeps the gate.

    Forms are tried in the order of :func:`~fairway.optimization.search.decide.decide`: each is made, timed shortly, and
    examined on growing parts of ``table`` with paired differences to the original. The fastest are measured in interleaved
    rounds, the best that passes is chosen and judged again on rows held out of the search; the original is kept where none
    is better beyond the noise. All that is done is written to a journal in ``workdir``, so a run that was cut off goes on
    where it was.

    Parameters
    ----------
    bundle : Bundle
    table : Table
        Labelled rows that quality is measured on. They must not be among those that calibrate.
    reference : Table
        Rows that calibrate static quantization; no label is needed.
    label : str
        The column of ``table`` that holds the answer.
    gate : mapping of metric name to Limit
        ``max_drop`` and ``max_rise`` are against the original.
    workdir : Path
        Belongs to the search; made if absent.
    measure : callable
        Takes a bundle, gives its performance at the gate's loads. Called ``repeats`` times per finalist.
    slices, settings, evaluation
        See :class:`SliceSettings`, :class:`OptimizationSettings`, :class:`EvaluationSettings`.
    earlier : sequence of Path
        Journals of earlier searches; the best form of each is tried first.
    known : sequence of recipes
        Of earlier bundles of the family, such as the champion's; these are tried first, too.
    root : Path, optional
        Where metrics of the user's own are imported from; by default the working directory.
    progress : callable, optional
        Told the step, how much of it is done, and out of how much.
    clock : callable
        Seconds; what the time budget is measured by.

    Returns
    -------
    Optimization
        ``chosen`` is a new bundle whose parent is ``bundle``, with its measured cost; where the original is kept, its
        graph is unchanged and only the cost is new.

    Raises
    ------
    InvalidConfig
        If the gate is malformed.
    InvalidData
        If a table does not fit the model.
    Conflict
        If another search is running in ``workdir``.
    MissingExtra
        If ``fairway[optimize]`` is not installed.
    """
    check_gate(gate)
    with exclusive(workdir):
        examiner = Examiner(
            bundle,
            table,
            label=label,
            gate=gate,
            slices=slices,
            settings=evaluation or EvaluationSettings(),
            directory=workdir,
            root=root,
            progress=progress,
        )
        search = _Search(
            bundle,
            table=table,
            examiner=examiner,
            gate=gate,
            workdir=workdir,
            settings=settings or OptimizationSettings(),
            progress=progress or _silent,
            clock=clock,
        )
        identity = (bundle.digest, table.digest, label, gate, slices, evaluation)
        return search.run(reference, measure, identity, (earlier, known))


class _Search:
    """One run: what it has found so far."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        table: Table,
        examiner: Examiner,
        gate: Gate,
        workdir: Path,
        settings: OptimizationSettings,
        progress: Callable[[str, int, int], None],
        clock: Callable[[], float],
    ) -> None:
        self.original, self.table, self.examiner, self.gate = bundle, table, examiner, gate
        self.workdir, self.settings = workdir, settings
        self.progress, self.clock, self.started = progress, clock, clock()
        self.bundles: dict[str, Bundle] = {ORIGINAL: bundle}
        self.qualities: dict[str, tuple[Measurement, ...]] = {}
        self.candidates: dict[str, Candidate] = {}

    def run(
        self,
        reference: Table,
        measure: Measure,
        identity: tuple[Any, ...],
        warm: tuple[Sequence[Path], Sequence[Sequence[PassRecord]]],
    ) -> Optimization:
        sample, described = self._sample(reference)
        forms = Forms(self.settings, described)
        judges = appoint(self.examiner, self.original, self.table, self.gate, self.settings)
        journal = self._journal((*identity, described))
        parts = rungs(judges.search, self.settings.seed)
        if not journal.events:
            journal.append(Began(self._plan(forms, len(parts), warm)))
        assert isinstance(journal.events[0], Began)
        plan = journal.events[0].plan
        explorer = Explorer(
            self.original,
            forms=forms,
            journal=journal,
            plan=plan,
            examiner=self.examiner,
            rungs=parts,
            sample=sample,
            gate=self.gate,
            objective=self.settings.objective,
            workdir=self.workdir,
            progress=self.progress,
        )
        ended = explorer.run(self._time_left, self.settings.time_budget)
        found = explorer.trials
        self._gather(explorer, found, [forms.recipe(start.point) for start in plan.starts], ended)
        rounds, finished = self._measure(measure, journal, judges)
        choice = self._judged(rounds, judges, sum(bool(trial.outcomes) for trial in found.values()))
        self._settle(choice)
        chosen = self._tuned(self.bundles[choice.name], sample)
        return Optimization(chosen, self._findings(choice, finished, sample.rows, judges, len(parts), ended))

    def _journal(self, identity: tuple[Any, ...]) -> Journal:
        """That of this search: another model, data, gate, settings or machine has another; more time has the same."""
        settings = msgspec.structs.replace(self.settings, time_budget="0s")
        parts = (_REVISION, *identity, settings, describe_environment())
        key = hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
        return Journal(self.workdir / f"journal-{key[:16]}.jsonl")

    def _plan(self, forms: Forms, parts: int, warm: tuple[Sequence[Path], Sequence[Sequence[PassRecord]]]) -> Plan:
        settings, limits = self.settings, on_quality(self.gate)
        return Plan(
            starts=starts(forms, settings, *warm),
            rungs=parts,
            trials=settings.trials,
            patience=settings.patience,
            min_gain=settings.min_gain,
            original_keeps=not limits or verdict(limits, self.examiner.quality(self.original)).passed,
            seed=settings.seed,
        )

    def _sample(self, reference: Table) -> tuple[Sample, dict[str, Any]]:
        """Reference rows as the graph gets them, and what says which they are."""
        if not reference.rows:
            raise InvalidData("the reference data has no rows; calibration needs some")
        count = min(self.settings.calibration_rows, reference.rows)
        drawn = np.sort(np.random.default_rng(self.settings.seed).choice(reference.rows, count, replace=False))
        with Model(self.original) as model:
            feed = model.prepare(reference.feed(model.inputs, drawn))
            fixed = {spec.shape[0] for spec in model.raw_inputs if spec.shape and spec.shape[0] > 0}
        batch = fixed.pop() if len(fixed) == 1 else None
        described = {"rows": count, "seed": self.settings.seed, "data": reference.digest}
        return Sample(feed, count, batch), described

    def _time_left(self) -> float:
        return self.settings.time_budget_s - (self.clock() - self.started)

    def _gather(self, explorer: Explorer, found: dict[str, Trial], given: Sequence[Recipe], ended: str) -> None:
        """All forms tried or asked for, and which of them are finalists."""
        self.candidates[ORIGINAL] = Candidate(ORIGINAL, "as given", Status.REFUSED, **_where(self.original))
        for recipe in given:
            self.candidates[recipe.name] = Candidate(recipe.name, recipe.summary, Status.NOT_TRIED, ended)
        for name, trial in found.items():
            self.candidates[name] = explorer.candidate(name, trial)
        finalists = fastest(found.values(), len(explorer.rungs), self.settings.finalists)
        for name, trial in found.items():
            if any(trial is finalist for finalist in finalists):
                self.bundles[name], self.qualities[name] = explorer.bundle(trial.point), explorer.quality(trial)
            elif self.candidates[name].status is Status.OUTPACED and not trial.outpaced:
                reason = f"{trial.ratio:.2f} of the original's cost at first sight; the finalists take less"
                self.candidates[name] = _with(self.candidates[name], reason=reason)

    def _measure(self, measure: Measure, journal: Journal, judges: Judges) -> tuple[dict[str, Rounds], int]:
        """Measure the finalists, and judge them on all that the search looked at."""
        names = tuple(self.bundles)
        known = [event for event in journal.events if isinstance(event, Round) and event.finalists == names]
        rounds, dropped, finished = measure_rounds(
            self.bundles,
            measure,
            repeats=self.settings.repeats,
            seed=self.settings.seed,
            time_left=self._time_left,
            progress=self.progress,
            known=known,
            record=journal.append,
        )
        for name, reason in dropped.items():
            del self.bundles[name]
            self.candidates[name] = _with(self.candidates[name], status=Status.FAILED, reason=reason)
        self.qualities[ORIGINAL] = self.examiner.quality(self.original, judges.search)
        for name in self.bundles:
            found = score(name, self.qualities[name], rounds[name], rounds[ORIGINAL])
            # The original was not chosen for what it showed, so all rows may judge it.
            whole = self.examiner.quality(self.original)
            judged = score(name, whole, rounds[name], rounds[name]) if name == ORIGINAL else found
            said = verdict(self.gate, judged)
            status = Status.PASSED if said.passed else Status.REFUSED
            reason = "" if said.passed else f"{said.outcome.value}: {'; '.join(said.reasons)}"
            self.candidates[name] = _with(
                self.candidates[name], measurements=found, verdict=said, status=status, reason=reason
            )
        return rounds, finished

    def _judged(self, rounds: dict[str, Rounds], judges: Judges, examined: int) -> Choice:
        """Choose, and let rows judge the choice that did not make it; whom they refuse is not chosen."""
        while (choice := self._choose(rounds)).name != ORIGINAL:
            name = choice.name
            quality = judges.quality(self.bundles[name], examined)
            said = verdict(self.gate, score(name, quality, rounds[name], rounds[ORIGINAL]))
            held_out = quality if judges.held_out is not None else ()
            self.candidates[name] = _with(self.candidates[name], verdict=said, held_out=held_out)
            if said.passed:
                break
            reason = f"{said.outcome.value} {judges.where(examined)}: {'; '.join(said.reasons)}"
            self.candidates[name] = _with(self.candidates[name], status=Status.REFUSED, reason=reason)
        if judges.held_out is not None:
            original = self.examiner.quality(self.original, judges.held_out, paired=True)
            self.candidates[ORIGINAL] = _with(self.candidates[ORIGINAL], held_out=original)
        return choice

    def _choose(self, rounds: dict[str, Rounds]) -> Choice:
        def contestant(name: str) -> Contestant:
            said = self.candidates[name].verdict
            objective = next((tuple(r) for key, r in rounds[name].items() if key[0] == self.settings.objective), ())
            return Contestant(name, said is not None and said.passed, objective, self.bundles[name].size_bytes)

        original, *others = (contestant(name) for name in self.bundles)
        if not original.rounds:
            return Choice(ORIGINAL, f"{self.settings.objective} was not measured, so nothing can be compared by it")
        return choose(original, [c for c in others if len(c.rounds) == len(original.rounds)], self.settings)

    def _settle(self, choice: Choice) -> None:
        for name, reason in choice.others.items():
            self.candidates[name] = _with(self.candidates[name], reason=reason)
        self.candidates[choice.name] = _with(self.candidates[choice.name], status=Status.CHOSEN, reason=choice.reason)

    def _tuned(self, bundle: Bundle, sample: Sample) -> Bundle:
        """The bundle with its measured cost. It is measured once per ``workdir``, so that a rerun has the same digest."""
        path = self.workdir / f"cost-{bundle.digest.removeprefix('sha256:')[:24]}.json"
        if path.is_file():
            cost = msgspec.json.decode(path.read_bytes(), type=Cost)
        else:
            with Model(bundle) as model:
                cost = measure_cost(model, sample)
            write_atomic(path, msgspec.json.encode(cost))
        before = bundle.manifest
        lineage = msgspec.structs.replace(before.lineage, parent=self.original.digest)
        engine = msgspec.structs.replace(before.engine, cost=cost)
        manifest = msgspec.structs.replace(before, engine=engine, lineage=lineage)
        name = f"chosen-{manifest.digest.removeprefix('sha256:')[:12]}"
        return write_bundle(self.workdir / name, manifest, {file: bundle.path / file for file in before.files})

    def _findings(
        self, choice: Choice, finished: int, calibrated: int, judges: Judges, parts: int, ended: str
    ) -> Findings:
        quality = quality_metric(self.gate, self.qualities[ORIGINAL])
        values = {name: self._values(self.candidates[name], quality) for name in self.bundles}
        front = on_front({name: found for name, found in values.items() if found})
        kept = choice.name == ORIGINAL
        return Findings(
            model=self.original.manifest.name,
            source=self.original.digest,
            chosen=choice.name,
            reason=choice.reason,
            objective=self.settings.objective,
            quality=quality,
            rounds=finished,
            rows=self.table.rows,
            calibration_rows=calibrated,
            elapsed_s=round(self.clock() - self.started, 3),
            time_budget_s=self.settings.time_budget_s,
            candidates=tuple(_with(c, front=c.name in front) for c in self.candidates.values()),
            held_out_rows=judges.held_out.rows if judges.held_out is not None else 0,
            rungs=parts,
            judged="the original is judged on all rows: it was not chosen for what it showed on them"
            if kept
            else judges.said,
            ended=ended,
        )

    def _values(self, candidate: Candidate, quality: str) -> dict[str, float]:
        """What the Pareto front compares."""
        found = {name: candidate.measurement(name) for name in (quality, self.settings.objective, *DIMENSIONS)}
        return {name: m.value for name, m in found.items() if m is not None and m.known}


def _silent(_text: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def _where(bundle: Bundle) -> dict[str, Any]:
    return {"bundle": str(bundle.path), "digest": bundle.digest, "size_bytes": bundle.size_bytes}


def _with(candidate: Candidate, **changes: Any) -> Candidate:
    return msgspec.structs.replace(candidate, **changes)
