"""The last part of a search: the finalists are measured in turn, one is chosen, and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from fairway.bundle.format import Bundle
from fairway.core.gate import Gate
from fairway.core.metrics import Measurement
from fairway.optimization.choice import Choice, Contestant, choose
from fairway.optimization.explore import Explorer, Progress
from fairway.optimization.front import DIMENSIONS, on_front
from fairway.optimization.honest import Judges
from fairway.optimization.report import ORIGINAL, Candidate, Status
from fairway.optimization.scoring import Measure, Rounds, measure_rounds, objective_rounds, score, verdict
from fairway.optimization.search.journal import Journal, Round
from fairway.optimization.search.trials import Trial, finalists
from fairway.optimization.settings import OptimizationSettings


class Final:
    """The original and the finalists of what was explored.

    Parameters
    ----------
    explorer : Explorer
    judges : Judges
    gate : Gate
    settings : OptimizationSettings
    ended : str
        Why the search ended: the reason of those that were never tried.

    Attributes
    ----------
    bundles, qualities : dict by name
        Of the original and the finalists.
    candidates : dict by name
        The original first, then all forms tried or asked for.
    each_s : float
        What one measurement of a finalist took, be it in an earlier run; 0 before any was made.
    """

    def __init__(
        self, explorer: Explorer, judges: Judges, gate: Gate, settings: OptimizationSettings, ended: str
    ) -> None:
        self._judges, self._gate, self._settings = judges, gate, settings
        original, tried = explorer.original, explorer.trials
        where = {"bundle": str(original.path), "digest": original.digest, "size_bytes": original.size_bytes}
        self.bundles: dict[str, Bundle] = {ORIGINAL: original}
        self.qualities: dict[str, tuple[Measurement, ...]] = {
            ORIGINAL: judges.examiner.quality(original, judges.search)
        }
        self.candidates = {ORIGINAL: Candidate(ORIGINAL, "as given", Status.REFUSED, **where)}  # type: ignore[arg-type]
        for recipe in explorer.asked_for:
            self.candidates[recipe.name] = Candidate(recipe.name, recipe.summary, Status.NOT_TRIED, ended)
        for name, trial in tried.items():
            self.candidates[name] = explorer.candidate(name, trial)
        last = finalists(tried.values(), len(explorer.rungs), settings.finalists)
        for name, trial in tried.items():
            if any(trial is finalist for finalist in last):
                self.bundles[name], self.qualities[name] = explorer.bundle(trial.point), explorer.quality(trial)
            elif self.candidates[name].status is Status.OUTPACED and not trial.outpaced:
                self._change(name, reason=_passed_over(trial, explorer))
        self._examined = sum(bool(trial.outcomes) for trial in tried.values())
        self._rounds: dict[str, Rounds] = {}
        self.each_s = 0.0

    def measure(self, measure: Measure, journal: Journal, time_left: Callable[[], float], progress: Progress) -> int:
        """Measure the finalists in rounds, and judge them on all that the search looked at; returns how many rounds."""
        names = tuple(self.bundles)
        self._rounds, dropped, finished = measure_rounds(
            self.bundles,
            measure,
            repeats=self._settings.repeats,
            seed=self._settings.seed,
            time_left=time_left,
            progress=progress,
            known=[event for event in journal.events if isinstance(event, Round) and event.finalists == names],
            record=journal.append,
        )
        timed = [each.seconds for each in finished if each.seconds]
        self.each_s = sum(timed) / (len(timed) * len(names)) if timed else 0.0
        for name, reason in dropped.items():
            del self.bundles[name]
            self._change(name, status=Status.FAILED, reason=reason)
        for name in self.bundles:
            found = self._scored(name, self.qualities[name])
            # The original was not chosen for what it showed, so all rows may judge it.
            whole = self._scored(name, self._judges.examiner.quality(self.bundles[name])) if name == ORIGINAL else found
            said = verdict(self._gate, whole)
            status = Status.PASSED if said.passed else Status.REFUSED
            reason = "" if said.passed else f"{said.outcome.value}: {'; '.join(said.reasons)}"
            self._change(name, measurements=found, verdict=said, status=status, reason=reason)
        return len(finished)

    def choose(self) -> Choice:
        """Choose, and let rows judge the choice that did not make it; whom they refuse is not chosen."""
        judges = self._judges
        while (choice := self._choice()).name != ORIGINAL:
            quality = judges.quality(self.bundles[choice.name], self._examined)
            said = verdict(self._gate, self._scored(choice.name, quality))
            self._change(choice.name, verdict=said, held_out=() if judges.held_out is None else quality)
            if said.passed:
                break
            reason = f"{said.outcome.value} {judges.where(self._examined)}: {'; '.join(said.reasons)}"
            self._change(choice.name, status=Status.REFUSED, reason=reason)
        if judges.held_out is not None:
            itself = judges.quality(self.bundles[ORIGINAL], self._examined)
            self._change(ORIGINAL, held_out=itself)
        for name, reason in choice.others.items():
            self._change(name, reason=reason)
        self._change(choice.name, status=Status.CHOSEN, reason=choice.reason)
        return choice

    def on_front(self, metrics: tuple[str, ...]) -> tuple[Candidate, ...]:
        """All candidates, marked where they are on the Pareto front of ``metrics`` and the other costs measured."""
        values: dict[str, dict[str, float]] = {}
        for name in self.bundles:
            found = {each: self.candidates[name].measurement(each) for each in (*metrics, *DIMENSIONS)}
            values[name] = {each: m.value for each, m in found.items() if m is not None and m.has_value}
        front = on_front({name: measured for name, measured in values.items() if measured})
        return tuple(msgspec.structs.replace(c, front=name in front) for name, c in self.candidates.items())

    def _choice(self) -> Choice:
        def contestant(name: str) -> Contestant:
            said = self.candidates[name].verdict
            rounds = objective_rounds(self._rounds[name], self._settings.objective)
            return Contestant(name, said is not None and said.passed, rounds, self.bundles[name].size_bytes)

        original, *others = map(contestant, self.bundles)
        if not original.rounds:
            return Choice(ORIGINAL, f"{self._settings.objective} was not measured, so nothing can be compared by it")
        rivals = [c for c in others if len(c.rounds) == len(original.rounds)]
        choice = choose(original, rivals, self._settings)
        if (
            choice.name == ORIGINAL
            and not any(c.passed for c in rivals)
            and (came := _came_of(self.candidates.values()))
        ):
            refused = any(c.status is Status.REFUSED for c in self.candidates.values() if c.name != ORIGINAL)
            said = "no candidate passes the gate" if refused or not original.passed else "nothing pays"
            neither = "" if original.passed else ", and neither does the original"
            return Choice(ORIGINAL, f"{said}{neither}: {came}")
        return choice

    def _scored(self, name: str, quality: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
        return score(name, quality, self._rounds[name], self._rounds[ORIGINAL])

    def _change(self, name: str, **changes: Any) -> None:
        self.candidates[name] = msgspec.structs.replace(self.candidates[name], **changes)


_NEXT = {
    Status.REFUSED: "loosen the limits that refused them, or give more test rows",
    Status.FAILED: "their reasons say what is missing",
    Status.NOT_TRIED: "raise time_budget",
}


def _came_of(candidates: Iterable[Candidate]) -> str:
    """What became of the other forms that there are, and the next step; empty if there are none."""
    counts: Counter[Status] = Counter(
        c.status for c in candidates if c.name != ORIGINAL and c.status is not Status.NOTHING_TO_DO
    )
    steps = (step for status, step in _NEXT.items() if counts[status])
    return "; ".join([", ".join(f"{n} {status.value}" for status, n in counts.items()), *steps]) if counts else ""


def _passed_over(trial: Trial, explorer: Explorer) -> str:
    """Why one that may keep the gate is no finalist."""
    cost = f"{trial.ratio:.2f} of the original's cost at first sight"
    if trial.keeps(len(explorer.rungs)):
        return f"{cost}; finalists take less"
    return f"{cost}, but the rows cannot tell whether it keeps the gate; finalists do"
