"""The search for a cheaper form: try forms, measure the best in turn, choose one, and judge it on rows it was not chosen on."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.gate import Gate, check_gate
from fairway.core.manifest import Cost, PassRecord
from fairway.core.mapping import THREADS, Mapper
from fairway.evaluation.environment import describe_environment
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.model import Model
from fairway.optimization.build import library_versions
from fairway.optimization.cost import measure_cost
from fairway.optimization.explore import Explorer
from fairway.optimization.files import exclusive, write_atomic
from fairway.optimization.final import Final
from fairway.optimization.forms import Forms
from fairway.optimization.honest import KEPT, appoint
from fairway.optimization.making import Makers
from fairway.optimization.passes.base import Sample
from fairway.optimization.prefixes import Prefixes
from fairway.optimization.registry import passes
from fairway.optimization.report import ORIGINAL, Findings, Optimization, Tuned, quality_metric
from fairway.optimization.rows import rungs
from fairway.optimization.sampling import draw_sample
from fairway.optimization.scoring import Examiner, Measure, on_quality, verdict
from fairway.optimization.search.journal import Began, Journal, Plan
from fairway.optimization.settings import CANDIDATES, OptimizationSettings
from fairway.optimization.torch_forms import TorchForms
from fairway.optimization.tuning import Serve, tune, tunings
from fairway.optimization.warm import starts
from fairway.sources.tables import Table

_FINAL = 0.35
"""The share of the time budget that is kept for measuring the finalists, and how the chosen one is served best."""
_TUNING = 0.15
"""The share that is kept for the latter."""
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
    serve: Serve | None = None,
    cores: int = 1,
    slices: Sequence[SliceSettings] = (),
    settings: OptimizationSettings | None = None,
    evaluation: EvaluationSettings | None = None,
    earlier: Sequence[Path] = (),
    known: Sequence[Sequence[PassRecord]] = (),
    root: Path | None = None,
    mapper: Mapper = THREADS,
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
    serve : callable, optional
        As ``measure``, but for a bundle served in a given way on all of ``cores``. Without, the bundle's threads and limits
        stay as they are.
    cores : int, default 1
        That the server is to have.
    slices, settings, evaluation
        See :class:`SliceSettings`, :class:`OptimizationSettings`, :class:`EvaluationSettings`.
    earlier : sequence of Path
        Journals of earlier searches; the best form of each is tried first.
    known : sequence of recipes
        Of earlier bundles of the family, such as the champion's; these are tried first, too.
    root : Path, optional
        Where metrics of the user's own are imported from; by default the working directory.
    mapper : Mapper, optional
        What answers test rows; by default as many threads as there are cores. Costs are measured with nothing beside.
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
            mapper=mapper,
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
        return search.run(reference, measure, serve, cores, identity, (earlier, known))


class _Search:
    """One run."""

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

    def run(
        self,
        reference: Table,
        measure: Measure,
        serve: Serve | None,
        cores: int,
        identity: tuple[Any, ...],
        warm: tuple[Sequence[Path], Sequence[Sequence[PassRecord]]],
    ) -> Optimization:
        sample, described = self._sample(reference)
        spec = self.original.manifest.engine
        forms = TorchForms(self.settings, spec) if spec.name == "torch" else Forms(self.settings, described)
        judges = appoint(self.examiner, self.original, self.table, self.gate, self.settings)
        parts = rungs(judges.search, self.settings.seed)
        journal = self._journal((*identity, described))
        if not journal.events:
            journal.append(Began(self._plan(forms, len(parts), warm)))
        share = 1 if spec.name == "torch" else 0  # one program is compiled by all cores, and may need a whole GPU
        stages = self.workdir / ".stages"
        shutil.rmtree(stages, ignore_errors=True)  # perhaps of other libraries
        with Makers(self.original, sample, self.workdir, stages, cores=share) as makers:
            explorer = Explorer(
                self.original,
                forms=forms,
                journal=journal,
                examiner=self.examiner,
                rungs=parts,
                sample=sample,
                gate=self.gate,
                objective=self.settings.objective,
                workdir=self.workdir,
                prefixes=Prefixes(stages),
                makers=makers,
                progress=self.progress,
            )
            ended = explorer.run(self._time_to_search, self.settings.time_budget)
        final = Final(explorer, judges, self.gate, self.settings, ended)
        kept_s = 0.0 if serve is None else _TUNING * self.settings.time_budget_s
        rounds = final.measure(measure, journal, lambda: self._time_left() - kept_s, self.progress)
        choice = final.choose()
        tuned = self._tune(final.bundles[choice.name], sample, serve, cores, journal, final.each_s)
        chosen = self._written(final.bundles[choice.name], sample, tuned)
        quality = quality_metric(self.gate, final.qualities[ORIGINAL])
        kept = choice.name == ORIGINAL
        found = Findings(
            model=self.original.manifest.name,
            source=self.original.digest,
            chosen=choice.name,
            reason=choice.reason,
            objective=self.settings.objective,
            quality=quality,
            rounds=rounds,
            rows=self.table.rows,
            calibration_rows=sample.rows,
            elapsed_s=round(self.clock() - self.started, 3),
            time_budget_s=self.settings.time_budget_s,
            candidates=final.on_front((quality, self.settings.objective)),
            held_out_rows=judges.held_out.rows if judges.held_out is not None else 0,
            rungs=len(parts),
            judged=KEPT if kept else judges.said,
            ended=ended,
            tuned=tuned,
        )
        return Optimization(chosen, found)

    def _journal(self, identity: tuple[Any, ...]) -> Journal:
        """That of this search: another model, data, gate, settings or machine has another; more time has the same."""
        settings = msgspec.structs.replace(self.settings, time_budget="0s")
        parts = (_REVISION, *identity, settings, describe_environment(), library_versions(passes()))
        key = hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
        return Journal(self.workdir / f"journal-{key[:16]}.jsonl")

    def _plan(
        self, forms: Forms | TorchForms, parts: int, warm: tuple[Sequence[Path], Sequence[Sequence[PassRecord]]]
    ) -> Plan:
        settings, limits = self.settings, on_quality(self.gate)
        return Plan(
            starts=starts(forms, settings, *warm),
            rungs=parts,
            trials=settings.trials,
            patience=settings.patience,
            min_gain=settings.min_gain,
            insisted=settings.candidates != CANDIDATES or not settings.trials,
            original_keeps=not limits or verdict(limits, self.examiner.quality(self.original, paired=True)).passed,
            seed=settings.seed,
        )

    def _sample(self, reference: Table) -> tuple[Sample, dict[str, Any]]:
        """Reference rows as the graph gets them, and what says which they are."""
        count = min(self.settings.calibration_rows, reference.rows)
        described = {"rows": count, "seed": self.settings.seed, "data": reference.digest}
        return draw_sample(self.original, reference, rows=count, seed=self.settings.seed), described

    def _time_to_search(self) -> float:
        return self._time_left() - _FINAL * self.settings.time_budget_s

    def _time_left(self) -> float:
        return self.settings.time_budget_s - (self.clock() - self.started)

    def _tune(
        self,
        bundle: Bundle,
        sample: Sample,
        serve: Serve | None,
        cores: int,
        journal: Journal,
        each_s: float,
    ) -> Tuned | None:
        if serve is None:
            return None
        return tune(
            tunings(
                bundle.manifest.engine,
                self._cost(bundle, sample),
                cores,
                self._load(),
                repeats=self.settings.equal_requests > 0 and bundle.manifest.repeatable,
            ),
            lambda way: serve(bundle, way),
            subject=bundle.digest,
            gate=self.gate,
            settings=self.settings,
            cores=cores,
            journal=journal,
            time_left=self._time_left,
            expected_s=each_s,
            progress=self.progress,
        )

    def _load(self) -> float:
        """The largest that the gate names; infinite where the objective is measured at full load, or no load is named."""
        named = [limit.at_rps for limit in self.gate.values() if limit.at_rps]
        full = self.settings.objective in ("throughput_rps", "energy_mj_per_request")
        return math.inf if full or not named else max(named)

    def _written(self, bundle: Bundle, sample: Sample, tuned: Tuned | None) -> Bundle:
        """The bundle with what was tuned, and its measured cost."""
        before = bundle.manifest
        engine = before.engine
        if tuned is not None and tuned.ways and tuned.chosen != tuned.ways[0].tuning:
            way = tuned.chosen
            engine = msgspec.structs.replace(
                engine,
                threads=way.threads,
                max_batch=way.max_batch,
                max_wait_us=way.max_wait_us,
                cache_bytes=way.cache_bytes,
            )
        engine = msgspec.structs.replace(engine, cost=self._cost(bundle, sample, engine.threads))
        lineage = msgspec.structs.replace(before.lineage, parent=self.original.digest)
        manifest = msgspec.structs.replace(before, engine=engine, lineage=lineage)
        name = f"chosen-{manifest.digest.removeprefix('sha256:')[:12]}"
        return write_bundle(self.workdir / name, manifest, {file: bundle.path / file for file in before.files})

    def _cost(self, bundle: Bundle, sample: Sample, threads: int | None = None) -> Cost:
        """It is measured once per ``workdir``, so that a rerun has the same digest."""
        threads = bundle.manifest.engine.threads if threads is None else threads
        path = self.workdir / f"cost-{bundle.digest.removeprefix('sha256:')[:24]}-{threads}.json"
        if path.is_file():
            return msgspec.json.decode(path.read_bytes(), type=Cost)
        with Model(bundle, threads=threads) as model:
            cost = measure_cost(model, sample)
        write_atomic(path, msgspec.json.encode(cost))
        return cost


def _silent(_text: str, _done: int, _total: int) -> None:
    """Nobody watches."""
