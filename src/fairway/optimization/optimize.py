"""The search: make every candidate, evaluate it, measure all of them in turn, choose one under the gate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.gate import Gate, Outcome, check_gate
from fairway.core.manifest import Cost
from fairway.core.metrics import Measurement
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.model import Model
from fairway.optimization.build import build_candidate, recipe_key
from fairway.optimization.choice import Choice, Contestant, choose
from fairway.optimization.cost import measure_cost
from fairway.optimization.files import exclusive, write_atomic
from fairway.optimization.passes.base import NothingToDo, Sample
from fairway.optimization.recipes import Recipe, recipes
from fairway.optimization.report import ORIGINAL, Candidate, Findings, Optimization, Status, quality_metric
from fairway.optimization.sampling import draw_sample
from fairway.optimization.scoring import Examiner, Measure, Rounds, measure_rounds, score, verdict
from fairway.optimization.settings import OptimizationSettings
from fairway.sources.tables import Table


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
    root: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Optimization:
    """Find a cheaper form of ``bundle`` that keeps the gate.

    Candidates are made by graph optimization and int8 quantization, evaluated on ``table`` with paired differences to
    the original, and measured in interleaved rounds. The best that passes is chosen; the original is kept where none
    is better beyond the noise. Candidates and scores stay in ``workdir``, so a run that was cut off goes on where it was.

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
        Takes a bundle, gives its performance at the gate's loads. Called ``repeats`` times per candidate.
    slices, settings, evaluation
        See :class:`SliceSettings`, :class:`OptimizationSettings`, :class:`EvaluationSettings`.
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
        search = _Search(
            bundle,
            gate=gate,
            workdir=workdir,
            settings=settings or OptimizationSettings(),
            progress=progress or _silent,
            clock=clock,
        )
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
        return search.run(examiner, reference, measure, table.rows)


class _Search:
    """One run: what it has found so far."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        gate: Gate,
        workdir: Path,
        settings: OptimizationSettings,
        progress: Callable[[str, int, int], None],
        clock: Callable[[], float],
    ) -> None:
        self.original, self.gate, self.workdir, self.settings = bundle, gate, workdir, settings
        self.progress, self.clock, self.started = progress, clock, clock()
        self.bundles: dict[str, Bundle] = {ORIGINAL: bundle}
        self.qualities: dict[str, tuple[Measurement, ...]] = {}
        self.candidates: dict[str, Candidate] = {}

    def run(self, examiner: Examiner, reference: Table, measure: Measure, rows: int) -> Optimization:
        sample, described = self._sample(reference)
        self.qualities[ORIGINAL] = examiner.quality(self.original)
        self.candidates[ORIGINAL] = _measured(ORIGINAL, "as given", self.original)
        tried = recipes(self.settings, described)
        for number, recipe in enumerate(tried):
            self.progress(f"candidate {recipe.name}", number, len(tried))
            self.candidates[recipe.name] = self._try(recipe, examiner, sample)
        rounds, finished = self._measure(measure)
        choice = self._choose(rounds)
        self._settle(choice)
        chosen = self._tuned(self.bundles[choice.name], sample)
        return Optimization(chosen, self._findings(choice, finished, rows, sample.rows))

    def _sample(self, reference: Table) -> tuple[Sample, dict[str, Any]]:
        """Reference rows as the graph gets them, and what says which they are."""
        count = min(self.settings.calibration_rows, reference.rows)
        described = {"rows": count, "seed": self.settings.seed, "data": reference.digest}
        return draw_sample(self.original, reference, rows=count, seed=self.settings.seed), described

    def _time_left(self) -> float:
        return self.settings.time_budget_s - (self.clock() - self.started)

    def _try(self, recipe: Recipe, examiner: Examiner, sample: Sample) -> Candidate:
        """Make one candidate and score its quality, or say why not."""
        nothing = Candidate(recipe.name, recipe.summary, Status.NOT_TRIED)
        if self._time_left() <= 0:
            return _with(nothing, reason=f"the time budget of {self.settings.time_budget} was spent")
        key = recipe_key(self.original, recipe)
        try:
            made = build_candidate(self.original, recipe, sample, self.workdir / f"{recipe.name}-{key[:12]}")
        except NothingToDo as why:
            return _with(nothing, status=Status.NOTHING_TO_DO, reason=str(why))
        except Exception as error:  # noqa: BLE001 (the libraries raise anything; the other candidates go on)
            return _with(nothing, status=Status.FAILED, reason=_one_line(error))
        graphs = {name: _graph(bundle) for name, bundle in self.bundles.items()}
        if twin := next((name for name, graph in graphs.items() if graph == _graph(made)), None):
            return _with(nothing, status=Status.NOTHING_TO_DO, reason=f"the same graph as {twin}")
        candidate = _measured(recipe.name, recipe.summary, made, self.original)
        quality = examiner.quality(made)
        broken = [f.reason for f in verdict(self.gate, quality).findings if f.outcome is Outcome.FAILED]
        if broken:
            said = verdict(self.gate, quality)
            return _with(candidate, status=Status.REFUSED, reason="; ".join(broken), measurements=quality, verdict=said)
        self.bundles[recipe.name], self.qualities[recipe.name] = made, quality
        return candidate

    def _measure(self, measure: Measure) -> tuple[dict[str, Rounds], int]:
        """Measure all that quality did not refuse, and judge them on everything."""
        rounds, dropped, finished = measure_rounds(
            self.bundles,
            measure,
            repeats=self.settings.repeats,
            seed=self.settings.seed,
            time_left=self._time_left,
            progress=self.progress,
        )
        for name, reason in dropped.items():
            del self.bundles[name]
            self.candidates[name] = _with(self.candidates[name], status=Status.FAILED, reason=reason)
        for name in self.bundles:
            found = score(name, self.qualities[name], rounds[name], rounds[ORIGINAL])
            said = verdict(self.gate, found)
            status = Status.PASSED if said.passed else Status.REFUSED
            reason = "" if said.passed else f"{said.outcome.value}: {'; '.join(said.reasons)}"
            self.candidates[name] = _with(
                self.candidates[name], measurements=found, verdict=said, status=status, reason=reason
            )
        return rounds, finished

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

    def _findings(self, choice: Choice, finished: int, rows: int, calibrated: int) -> Findings:
        return Findings(
            model=self.original.manifest.name,
            source=self.original.digest,
            chosen=choice.name,
            reason=choice.reason,
            objective=self.settings.objective,
            quality=quality_metric(self.gate, self.qualities[ORIGINAL]),
            rounds=finished,
            rows=rows,
            calibration_rows=calibrated,
            elapsed_s=round(self.clock() - self.started, 3),
            time_budget_s=self.settings.time_budget_s,
            candidates=tuple(self.candidates.values()),
        )


def _silent(_text: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def _measured(name: str, summary: str, bundle: Bundle, original: Bundle | None = None) -> Candidate:
    recipe = bundle.manifest.recipe[len(original.manifest.recipe) :] if original else ()
    where = {"bundle": str(bundle.path), "digest": bundle.digest, "size_bytes": bundle.size_bytes}
    return Candidate(name, summary, Status.REFUSED, recipe=recipe, **where)  # type: ignore[arg-type]


def _with(candidate: Candidate, **changes: Any) -> Candidate:
    return msgspec.structs.replace(candidate, **changes)


def _graph(bundle: Bundle) -> tuple[Any, ...]:
    """What the graph is and runs on: its own file, and all others but those that are not part of it; the engine."""
    entries, engine = bundle.manifest.files, bundle.manifest.engine
    files = sorted((name, entry.sha256) for name, entry in entries.items() if not name.endswith(".json"))
    return (*files, engine.name, tuple(sorted(engine.options.items())))


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
