"""Is one bundle better than another? The same rows, the same rounds, and an answer by every metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from fairway.bundle.format import Bundle
from fairway.core.errors import InferenceFailed, InvalidConfig
from fairway.core.gate import Gate
from fairway.core.manifest import EngineSpec
from fairway.core.metrics import Measurement, described
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.report import Report
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.model import Model
from fairway.optimization.changes import Change, changes
from fairway.optimization.report import ORIGINAL
from fairway.optimization.rounds import combine, compare
from fairway.optimization.scoring import Measure, Rounds, measure_rounds
from fairway.sources.tables import Table

_SECOND = "second"
"""Its name among the rounds, whatever it is called."""
_NO_END_S = 1e9


class Answer(StrEnum):
    """Whether the second is better than the first by one metric; equal for sure is only what is exact, as sizes are."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "the same"
    CANNOT_TELL = "cannot tell"


class Side(msgspec.Struct, frozen=True):
    """One of the two: what it was called, and what it is."""

    name: str
    digest: str
    size_bytes: int
    engine: EngineSpec
    passes: tuple[str, ...]


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One metric of both.

    Attributes
    ----------
    metric : str
    answer : Answer
    first, second, change : Measurement or None
        Of each, and second minus first on the same rows or in the same rounds.
    slice : str
        Empty is all rows.
    at_rps : float or None
        The load, for what depends on it.
    test : str
        What the answer rests on.
    """

    metric: str
    answer: Answer
    first: Measurement | None
    second: Measurement | None
    change: Measurement | None
    slice: str = ""
    at_rps: float | None = None
    test: str = ""


class Compared(msgspec.Struct, frozen=True):
    """Two bundles beside each other.

    Attributes
    ----------
    first, second : Side
        Answers and changes are of the second against the first.
    rows : int
        That quality was measured on.
    rounds : int
        Of interleaved measurements of performance.
    quality, performance : tuple of Row
    changes : tuple of Change
        What differs between the two.
    """

    first: Side
    second: Side
    rows: int
    rounds: int
    quality: tuple[Row, ...]
    performance: tuple[Row, ...]
    changes: tuple[Change, ...]

    def answer(self, metric: str) -> Answer:
        """Whether the second is better by ``metric``, over all rows. Raises ``KeyError`` if it was not measured."""
        for row in (*self.quality, *self.performance):
            if row.metric == metric and not row.slice:
                return row.answer
        raise KeyError(metric)

    def as_json(self) -> bytes:
        """UTF-8 JSON, which ``msgspec`` reads back as :class:`Compared`."""
        return msgspec.json.encode(self)

    def as_text(self) -> str:
        """Tables for the terminal."""
        from fairway.optimization.compared_text import compared_text

        return compared_text(self)

    def as_html(self) -> str:
        """One self-contained page. Raises :class:`MissingExtra` without Matplotlib or Jinja."""
        from fairway.optimization.compared_page import compared_page

        return compared_page(self)


def compare_bundles(
    first: tuple[str, Bundle],
    second: tuple[str, Bundle],
    *,
    table: Table,
    label: str,
    gate: Gate,
    measure: Measure,
    repeats: int,
    seed: int = 0,
    slices: Sequence[SliceSettings] = (),
    evaluation: EvaluationSettings | None = None,
    root: Path | None = None,
    progress: Callable[[str, int, int], None],
) -> Compared:
    """Score both on the rows of ``table``, and measure both in ``repeats`` interleaved rounds.

    Parameters
    ----------
    first, second : tuple of name and Bundle
    gate : mapping of metric name to Limit
        Which metrics are measured beside the task's main ones.
    measure : callable
        Takes a bundle, gives its performance.

    Raises
    ------
    InvalidConfig
        If both are the same bundle, or do different tasks.
    InferenceFailed
        If one of them cannot be measured.
    """
    (_, before), (_, after) = first, second
    if before.digest == after.digest:
        raise InvalidConfig(f"{first[0]} and {second[0]} are the same bundle, {before.digest}; name two")
    if before.manifest.task != after.manifest.task:
        raise InvalidConfig(
            f"{first[0]} does {before.manifest.task}, and {second[0]} does {after.manifest.task}; compare models of one task"
        )
    with Model(before) as champion, Model(after) as model:
        report = evaluate(
            model,
            table,
            label=label,
            gate=gate,
            slices=slices,
            champion=champion,
            champion_name=first[0],
            settings=evaluation,
            root=root,
            progress=progress,
        )
    named = {ORIGINAL: before, _SECOND: after}
    rounds, dropped, finished = measure_rounds(
        named, measure, repeats=repeats, seed=seed, time_left=lambda: _NO_END_S, progress=progress
    )
    if dropped:
        raise InferenceFailed(f"{second[0]} cannot be measured: {dropped[_SECOND]}")
    return Compared(
        _side(*first),
        _side(*second),
        report.rows,
        len(finished),
        quality_rows(report),
        performance_rows(rounds[ORIGINAL], rounds[_SECOND], first[0]),
        changes(before.manifest, after.manifest),
    )


def quality_rows(report: Report) -> tuple[Row, ...]:
    """The answers that an evaluation beside a champion gives."""
    champion = report.champion.measurements if report.champion else ()
    rows: list[Row] = []
    for each in report.comparisons:
        theirs = (m for m in champion if (m.metric, m.slice, m.versus) == (each.metric, each.slice, ""))
        ours = report.measurement(each.metric, part=each.slice)
        change = report.measurement(each.metric, part=each.slice, versus=True)
        test = f"p {each.adjusted:.2g}, {each.test}" if each.adjusted is not None else "too few rows"
        rows.append(
            Row(each.metric, Answer(each.answer.value), next(theirs, None), ours, change, slice=each.slice, test=test)
        )
    return tuple(rows)


def performance_rows(first: Rounds, second: Rounds, versus: str) -> tuple[Row, ...]:
    """The answers that rounds of measurements of both give."""
    rows: list[Row] = []
    for (name, at_rps), ours in second.items():
        theirs = first.get((name, at_rps))
        if not theirs:
            continue
        change = compare(ours, theirs, versus)
        rows.append(
            Row(name, answer(change), combine(theirs), combine(ours), change, at_rps=at_rps, test=change.method)
        )
    return tuple(rows)


def answer(change: Measurement) -> Answer:
    """What a difference with its interval says.

    Examples
    --------
    >>> answer(Measurement("latency_p50_ms", -0.2, -0.3, -0.1)), answer(Measurement("accuracy_score", 0.1, -0.1, 0.3))
    (<Answer.BETTER: 'better'>, <Answer.CANNOT_TELL: 'cannot tell'>)
    """
    if not change.known:
        return Answer.CANNOT_TELL
    if change.low == change.high == 0.0 and change.confidence == 1.0:
        return Answer.SAME
    if change.low <= 0 <= change.high:
        return Answer.CANNOT_TELL
    gained = (change.value > 0) == described(change.metric).higher_is_better
    return Answer.BETTER if gained else Answer.WORSE


def _side(name: str, bundle: Bundle) -> Side:
    manifest = bundle.manifest
    passes = tuple(record.name for record in manifest.recipe)
    return Side(name, bundle.digest, bundle.size_bytes, manifest.engine, passes)
