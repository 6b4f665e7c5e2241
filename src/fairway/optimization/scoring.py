"""What a candidate is worth: its quality once, its performance round by round, and the gate's verdict on both."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec

from fairway.bundle.format import Bundle
from fairway.core.errors import FairwayError
from fairway.core.gate import Gate, Verdict, judge
from fairway.core.mapping import THREADS, Mapper
from fairway.core.metrics import Measurement, described
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.optimization.files import write_atomic
from fairway.optimization.remembering import Answers, Remembering
from fairway.optimization.report import ORIGINAL
from fairway.optimization.rounds import combine, compare
from fairway.optimization.rows import corrected
from fairway.optimization.search.journal import Round
from fairway.sources.tables import Table

Measure: TypeAlias = Callable[[Bundle], Sequence[Measurement]]
"""Measures the performance of a bundle, at the loads that the gate names."""

T = TypeVar("T")

Key: TypeAlias = tuple[str, float | None]
Rounds: TypeAlias = dict[Key, list[Measurement]]
"""Per metric and load: its measurements, round by round."""


class Examiner:
    """Scores bundles on the same rows, against the same original. Scores are kept on disk and found again.

    Parameters
    ----------
    original : Bundle
    directory : Path
        Where scores are kept.
    mapper : Mapper, optional
        What answers the rows; by default as many threads as there are cores.
    """

    def __init__(
        self,
        original: Bundle,
        table: Table,
        *,
        label: str,
        gate: Gate,
        slices: Sequence[SliceSettings],
        settings: EvaluationSettings,
        directory: Path,
        root: Path | None = None,
        mapper: Mapper = THREADS,
        progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self._original, self._table, self._label, self._gate = original, table, label, gate
        self._root = root
        self._slices, self._settings, self._directory, self._progress = tuple(slices), settings, directory, progress
        self._mapper = mapper
        self._first, self._latest = Answers(), ("", Answers())

    def quality(
        self, bundle: Bundle, table: Table | None = None, *, looks: int = 1, paired: bool = False
    ) -> tuple[Measurement, ...]:
        """Measurements on the test rows; for all but the original, also paired differences to the original.

        Parameters
        ----------
        bundle : Bundle
        table : Table, optional
            Other rows than those given.
        looks : int
            How many bundles these rows choose between: the intervals are wide enough for all of them to be right.
        paired : bool
            Give the original's differences to itself, too: what a form that is as good shows on these rows.
        """
        table, settings = table or self._table, corrected(self._settings, looks)
        alone = bundle.digest == self._original.digest and not paired
        path = self._directory / f"quality-{self._key(bundle, table, settings, alone)[:24]}.json"
        if path.is_file():
            return msgspec.json.decode(path.read_bytes(), type=tuple[Measurement, ...])
        measured = self._evaluate(bundle, table, settings, alone)
        write_atomic(path, msgspec.json.encode(measured))
        return measured

    def _evaluate(
        self, bundle: Bundle, table: Table, settings: EvaluationSettings, alone: bool
    ) -> tuple[Measurement, ...]:
        with ExitStack() as stack:
            original = stack.enter_context(Remembering(self._original, self._first))
            model = original if bundle.digest == self._original.digest else stack.enter_context(self._opened(bundle))
            report = evaluate(
                model,
                table,
                label=self._label,
                gate=self._gate,
                slices=self._slices,
                champion=None if alone else original,
                champion_name=ORIGINAL,
                settings=settings,
                root=self._root,
                mapper=self._mapper,
                progress=self._progress,
            )
        return tuple(report.measurements)

    def _opened(self, bundle: Bundle) -> Remembering:
        """A form is examined on more and more rows, and then the next is."""
        if self._latest[0] != bundle.digest:
            self._latest = bundle.digest, Answers()
        return Remembering(bundle, self._latest[1])

    def _key(self, bundle: Bundle, table: Table, settings: EvaluationSettings, alone: bool) -> str:
        parts = (bundle.digest, self._original.digest, table.digest, self._label, self._gate)
        content = msgspec.json.encode((*parts, self._slices, settings, alone), order="sorted")
        return hashlib.sha256(content).hexdigest()


def measure_rounds(
    contestants: Mapping[str, T],
    measure: Callable[[T], Sequence[Measurement]],
    *,
    repeats: int,
    seed: int,
    time_left: Callable[[], float],
    progress: Callable[[str, int, int], None],
    known: Sequence[Round] = (),
    record: Callable[[Round], None] = lambda _: None,
) -> tuple[dict[str, Rounds], dict[str, str], list[Round]]:
    """Measure every contestant once per round, each round in a new order, so that all meet the same conditions.

    A round is finished once it is started. The first is started in any case, another only if there is time for it, going by
    the longest, in an earlier run too.

    Parameters
    ----------
    contestants : mapping by name
        The first is what the others are compared with.
    time_left : callable
        Seconds of the budget that are left.
    known : sequence of Round
        Rounds of the same contestants that were finished earlier; they count, and are not made again.
    record : callable
        Told of each round as it is finished.

    Returns
    -------
    tuple
        Rounds per name; why one dropped out, per name; and the rounds that were finished.

    Raises
    ------
    FairwayError
        If the first cannot be measured.
    """
    order = random.Random(seed)  # noqa: S311 (an order of measurements, not a secret)
    first = next(iter(contestants))
    rounds: dict[str, Rounds] = {name: defaultdict(list) for name in contestants}
    dropped: dict[str, str] = {}
    finished = list(known)
    for number in range(repeats):
        names = [name for name in contestants if name not in dropped]
        shuffled = order.sample(names, len(names))
        if number < len(known):
            dropped |= known[number].dropped
            continue
        before = time_left()
        if number and before < max(each.seconds for each in finished):
            break
        found, lost = dict[str, tuple[Measurement, ...]](), dict[str, str]()
        for name in shuffled:
            progress("measure", number * len(contestants) + list(contestants).index(name), repeats * len(contestants))
            try:
                found[name] = tuple(measure(contestants[name]))
            except FairwayError as error:
                if name == first:
                    raise
                lost[name] = str(error)
        dropped |= lost
        finished.append(Round(tuple(contestants), found, lost, before - time_left()))
        record(finished[-1])
    for each in finished:
        for name, measurements in each.measurements.items():
            for measurement in measurements:
                rounds[name][measurement.metric, measurement.at_rps].append(measurement)
    return rounds, dropped, finished


def score(name: str, quality: Sequence[Measurement], rounds: Rounds, original: Rounds) -> tuple[Measurement, ...]:
    """Quality and combined performance, with the differences to the original; to itself they are zero."""
    performance = [combine(each) for each in rounds.values()]
    if name != ORIGINAL:
        changes = [compare(each, original[key], ORIGINAL) for key, each in rounds.items() if key in original]
        return (*quality, *performance, *changes)
    whole = [m for m in (*quality, *performance) if m.has_value and not m.slice and not m.versus]
    return (*quality, *performance, *map(_zero, whole))


def objective_rounds(rounds: Rounds, objective: str) -> tuple[Measurement, ...]:
    """The rounds of what is to improve, at the largest load that it was measured at; none if it was not measured."""
    found = [tuple(each) for (name, _), each in rounds.items() if name == objective]
    return max(found, key=lambda each: each[0].load_rps, default=())


def verdict(gate: Gate, measurements: Sequence[Measurement]) -> Verdict:
    """The gate's verdict, changes being those to the original."""
    return judge(gate, measurements)


def on_quality(gate: Gate) -> Gate:
    """The limits that the answers alone decide."""
    return {name: limit for name, limit in gate.items() if described(name).tasks}


def _zero(found: Measurement) -> Measurement:
    same = {"n": found.n, "versus": ORIGINAL, "at_rps": found.at_rps, "method": "the same model"}
    return Measurement.exact(found.metric, 0.0, **same)
