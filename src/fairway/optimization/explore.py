"""The search carried out: what it decides is done, and what was done is written down."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from fairway.bundle.format import MANIFEST, Bundle
from fairway.core.gate import Finding, Gate, Outcome
from fairway.core.metrics import Measurement
from fairway.optimization.build import build_candidate, recipe_key
from fairway.optimization.forms import Forms
from fairway.optimization.making import Job, Makers, Told, one_line
from fairway.optimization.passes.base import NothingToDo, Sample
from fairway.optimization.prefixes import Prefixes
from fairway.optimization.probe import cost_ratio
from fairway.optimization.recipes import Recipe
from fairway.optimization.report import ORIGINAL, Candidate, Status
from fairway.optimization.scoring import Examiner, on_quality, verdict
from fairway.optimization.search.decide import Examine, Leave, Make, Probe, Step, Stop, ahead, decide
from fairway.optimization.search.journal import Began, Event, Examined, Journal, Made, Outpaced, Plan, Probed, Unmade
from fairway.optimization.search.space import Point, key
from fairway.optimization.search.trials import Trial, trials
from fairway.optimization.torch_forms import TorchForms
from fairway.sources.tables import Table

_ESSENTIAL = {
    ("operators", "transformer"): "attention",
    ("tokens", "tokens"): "tokens",
    ("outliers", "smooth"): "smooth",
}
"""Without this pass a choice stands for nothing."""
_MOST_HARM = 3.0
_WORTH_S = 2.0
"""Where one form takes so long to make, other processes make more of them in the time that it takes to start these."""

Progress = Callable[[str, int, int], None]


class Explorer:
    """Makes, probes and examines forms of one bundle, as :func:`decide` says.

    Parameters
    ----------
    original : Bundle
    forms : Forms or TorchForms
    journal : Journal
        Begun with its plan.
    examiner : Examiner
    rungs : sequence of Table
        What quality is examined on, one after the other.
    sample : Sample
    gate : Gate
    objective : str
    workdir : Path
    prefixes : Prefixes
    makers : Makers
        Make what will be asked for next, while nothing else is done.
    progress : callable
    """

    def __init__(
        self,
        original: Bundle,
        *,
        forms: Forms | TorchForms,
        journal: Journal,
        examiner: Examiner,
        rungs: Sequence[Table],
        sample: Sample,
        gate: Gate,
        objective: str,
        workdir: Path,
        prefixes: Prefixes,
        makers: Makers,
        progress: Progress,
    ) -> None:
        self.original, self._forms, self._journal = original, forms, journal
        self._examiner, self.rungs, self._sample = examiner, rungs, sample
        self._gate, self._objective, self._workdir, self._progress = gate, objective, workdir, progress
        self._prefixes, self._makers = prefixes, makers
        self._told: dict[str, Told] = {}
        self._longest_s = 0.0

    @property
    def _plan(self) -> Plan:
        began = self._journal.events[0]
        assert isinstance(began, Began)
        return began.plan

    @property
    def asked_for(self) -> list[Recipe]:
        """What the search was to begin with."""
        return [self._forms.recipe(start.point) for start in self._plan.starts]

    @property
    def trials(self) -> dict[str, Trial]:
        """What is known of each form, by the name of its recipe, in the order tried."""
        return {self._forms.recipe(t.point).name: t for t in trials(self._journal.events).values()}

    def run(self, time_left: Callable[[], float], budget: str) -> str:
        """Search to the end, or until no time is left to start another form; returns why it ended."""
        while not isinstance(step := self._next(time_left), Stop):
            if isinstance(step, Make):
                self._make_ahead(step.point, time_left)
            self._journal.append(self._perform(step))
        return f"the time budget of {budget} was spent" if step.spent else step.reason

    def _next(self, time_left: Callable[[], float]) -> Step | Stop:
        """When no time is left, what was made ahead is still tried."""
        step = decide(self._forms.space, self._journal.events)
        if time_left() > 0 or (isinstance(step, Make) and key(step.point) in self._told):
            return step
        return decide(self._forms.space, self._journal.events, closing=True)

    def bundle(self, point: Point) -> Bundle:
        """The bundle of a point, made again if it was removed."""
        recipe = self._forms.recipe(point)
        return build_candidate(self.original, recipe, self._sample, self._place(recipe), self._prefixes)

    def _place(self, recipe: Recipe) -> Path:
        return self._workdir / f"{recipe.name}-{recipe_key(self.original, recipe)[:12]}"

    def _make_ahead(self, first: Point, time_left: Callable[[], float]) -> None:
        """Make ``first`` and what will be asked for after it at the same time, on all cores: every start that is left, since
        these are made whatever comes of the others, or what will probably be proposed.
        """
        if self._makers.count == 1 or self._longest_s < _WORTH_S or self._is_there(first):
            return
        known = trials(self._journal.events)
        starts_left = sum(key(start.point) not in known for start in self._plan.starts)
        points = ahead(self._forms.space, self._journal.events, max(self._makers.count, starts_left))
        wanted = [point for point in points if not self._is_there(point)]
        recipes = [self._forms.recipe(point) for point in wanted]
        if len(wanted) == 1:
            return
        self._progress(f"candidates {', '.join(recipe.name for recipe in recipes)}", *self._tried_so_far())
        told = self._makers.make([Job(r, str(self._place(r).absolute())) for r in recipes], lambda: time_left() > 0)
        self._told |= {key(point): each for point, each in zip(wanted, told, strict=True) if each}

    def _is_there(self, point: Point) -> bool:
        return key(point) in self._told or (self._place(self._forms.recipe(point)) / MANIFEST).is_file()

    def _tried_so_far(self) -> tuple[int, int]:
        return len(self.trials), len(self._plan.starts) + self._plan.trials

    def quality(self, trial: Trial) -> tuple[Measurement, ...]:
        """Of a form that was examined: on the most rows that it was."""
        return self._examiner.quality(self.bundle(trial.point), self.rungs[len(trial.outcomes) - 1])

    def candidate(self, name: str, trial: Trial) -> Candidate:
        """What the search alone says of a form."""
        summary = self._forms.recipe(trial.point).summary
        if trial.unmade is not None:
            status = Status.FAILED if trial.unmade.failed else Status.NOTHING_TO_DO
            return Candidate(name, summary, status, trial.reason, origin=trial.origin)
        made, examined = self.bundle(trial.point), bool(trial.outcomes)
        quality = self.quality(trial) if examined else ()
        return Candidate(
            name,
            summary,
            Status.REFUSED if trial.refused else Status.OUTPACED,
            trial.reason,
            bundle=str(made.path),
            digest=made.digest,
            size_bytes=made.size_bytes,
            recipe=made.manifest.recipe[len(self.original.manifest.recipe) :],
            measurements=quality,
            verdict=verdict(self._gate, quality) if examined else None,
            origin=trial.origin,
            rungs=len(trial.outcomes),
            ratio=trial.ratio,
        )

    def _perform(self, step: Step) -> Event:
        match step:
            case Make(point, origin):
                return self._make(point, origin)
            case Probe(point):
                made = self.bundle(point)
                return self._tried(
                    point, lambda: Probed(point, cost_ratio(made, self.original, self._sample, self._objective))
                )
            case Examine(point, rung):
                return self._tried(point, lambda: self._examine(point, rung))
            case Leave(point, reason):
                return Outpaced(point, reason)

    def _tried(self, point: Point, run: Callable[[], Event]) -> Event:
        """What came out; a form that was made, and cannot answer, is one that could not be made."""
        try:
            return run()
        except Exception as error:  # noqa: BLE001 (the engines raise anything; the other forms go on)
            _check_machine(error)
            return Unmade(point, trials(self._journal.events)[key(point)].origin, one_line(error), failed=True)

    def _make(self, point: Point, origin: str) -> Event:
        recipe, found = self._forms.recipe(point), self.trials
        self._progress(f"candidate {recipe.name}", *self._tried_so_far())
        if (told := self._told.get(key(point))) and told.reason:
            return Unmade(point, origin, told.reason, failed=told.failed)
        began = time.monotonic()
        try:
            made = self.bundle(point)
        except NothingToDo as why:
            return Unmade(point, origin, str(why))
        except Exception as error:  # noqa: BLE001 (the libraries raise anything; the other forms go on)
            _check_machine(error)
            return Unmade(point, origin, one_line(error), failed=True)
        finally:
            self._longest_s = max(self._longest_s, time.monotonic() - began)
        identity = graph_identity(made)
        same = {ORIGINAL: graph_identity(self.original)} | {n: t.identity for n, t in found.items()}
        if twin := next((name for name, other in same.items() if other == identity), None):
            return Unmade(point, origin, f"the same graph as {twin}")
        proposed = all(start.point != point for start in self._plan.starts)
        applied = {record.name for record in made.manifest.recipe}
        idle = [
            (axis, name)
            for (axis, value), name in _ESSENTIAL.items()
            if point.get(axis) == value and name not in applied
        ]
        if proposed and idle:
            axis, name = idle[0]
            return Unmade(point, origin, f"{name} has nothing to do here", blamed=axis)
        return Made(point, origin, identity, made.size_bytes)

    def _examine(self, point: Point, rung: int) -> Event:
        quality = self._examiner.quality(self.bundle(point), self.rungs[rung])
        limits = on_quality(self._gate)
        if not limits:
            return Examined(point, rung, Outcome.PASSED)
        said = verdict(limits, quality)
        broken = [finding.reason for finding in said.findings if finding.outcome is Outcome.FAILED]
        outcome = Outcome.FAILED if broken else said.outcome
        original = self._examiner.quality(self.original, self.rungs[-1])
        return Examined(point, rung, outcome, harm(said.findings, original), "; ".join(broken))


def harm(findings: Sequence[Finding], original: Sequence[Measurement]) -> float:
    """How much of the room between the original and the nearest limit is used up: 0 is none, above 1 too much."""
    most = 0.0
    for finding in findings:
        found = finding.measurement
        if found is None or not found.known:
            continue
        changes = finding.bound in ("max_drop", "max_rise")
        limit = -finding.limit if finding.bound == "max_drop" else finding.limit
        same = (m.value for m in original if (m.metric, m.slice, m.versus) == (found.metric, found.slice, ""))
        start = 0.0 if changes else next(same, found.value)
        below = finding.bound in ("min", "slice_min", "max_drop")
        if start != limit and (start < limit) == below and not changes:  # the original breaks it: keeping it is no harm
            short = (limit - found.value if below else found.value - limit) / abs(limit - start)
            most = max(most, 1 + short if short > 0 else 0.0)
        elif start != limit:
            most = max(most, (start - found.value) / (start - limit))
        elif finding.outcome is not Outcome.PASSED:
            most = _MOST_HARM
    return min(most, _MOST_HARM)


def graph_identity(bundle: Bundle) -> str:
    """What the graph is and runs on: its own file, and all others but those that are not part of it; the engine."""
    entries, engine = bundle.manifest.files, bundle.manifest.engine
    files = sorted((name, entry.sha256) for name, entry in entries.items() if not name.endswith(".json"))
    content = msgspec.json.encode((files, engine.name, engine.threads, engine.options), order="sorted")
    return hashlib.sha256(content).hexdigest()


def _check_machine(error: Exception) -> None:
    """Raise what is wrong with the machine and not with the form: noted in the journal, it would be so for ever."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _FULL):
        raise error


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
