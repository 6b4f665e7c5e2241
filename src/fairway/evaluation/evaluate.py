"""Model and data in, report out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fairway.core.errors import InvalidConfig
from fairway.core.gate import Gate, check_gate, join_verdicts, judge
from fairway.core.mapping import THREADS, Mapper
from fairway.core.metrics import Measurement
from fairway.evaluation.analyses.base import Subject
from fairway.evaluation.analyses.checks import judge_checks
from fairway.evaluation.analyses.fairness import GATED, measure_fairness
from fairway.evaluation.analyses.found import analyse
from fairway.evaluation.comparison import Comparison, compare
from fairway.evaluation.diagnostics import calibration, confusion, residuals
from fairway.evaluation.environment import describe_environment
from fairway.evaluation.fit import check_fit
from fairway.evaluation.groups import check_sampling, group_numbers, grouped
from fairway.evaluation.measure import measure
from fairway.evaluation.metrics import check_metrics, main_metric, measured_names, quality_metrics
from fairway.evaluation.own import load_metrics, own_rows
from fairway.evaluation.predictions import Classified, Progress, Regressed, Scored
from fairway.evaluation.report import ChampionReport, Report, SliceReport
from fairway.evaluation.scoring import score_models
from fairway.evaluation.settings import CheckSettings, EvaluationSettings, SliceSettings
from fairway.evaluation.tasks.registry import check_scorable

if TYPE_CHECKING:
    from fairway.model import Model
    from fairway.sources.tables import Table


def evaluate(
    model: Model,
    table: Table,
    *,
    label: str,
    gate: Gate | None = None,
    slices: Sequence[SliceSettings] = (),
    champion: Model | None = None,
    champion_name: str = "champion",
    extra: Sequence[Measurement] = (),
    champion_extra: Sequence[Measurement] = (),
    settings: EvaluationSettings | None = None,
    reference: Table | None = None,
    analyses: Sequence[str] = (),
    checks: Sequence[CheckSettings] = (),
    root: Path | None = None,
    progress: Progress | None = None,
    mapper: Mapper = THREADS,
) -> Report:
    """Score ``model`` on every row of ``table``, slice by slice, and judge it by ``gate``.

    Parameters
    ----------
    model : Model
    table : Table
    label : str
        The column that holds the truth.
    gate : mapping of metric name to Limit
        Empty: nothing to judge, so the verdict is inconclusive.
    slices : sequence of SliceSettings
    champion : Model, optional
        Scored on the same rows, for paired differences.
    champion_name : str
    extra, champion_extra : sequence of Measurement
        Made elsewhere, such as latency; reported and judged like the others.
    settings : EvaluationSettings, optional
    reference : Table, optional
        Rows such as the model was trained on, for the analyses.
    analyses : sequence of str
        Which of :data:`~fairway.evaluation.settings.ANALYSES` to run.
    checks : sequence of CheckSettings
        Judged together with the gate, whatever ``analyses`` says.
    root : Path, optional
        Where ``settings.metrics`` are imported from; by default the working directory.
    progress : callable of (what, done, total), optional
    mapper : Mapper
        Where models are run and intervals drawn; by default on threads. The report is the same, bit for bit.

    Raises
    ------
    InvalidConfig
        If the gate is malformed or limits a metric of another task, a slice's predicate is wrong, two share a name, or
        ``stratified`` makes no sense.
    InvalidData
        If the table does not fit the model, or its labels or groups are missing or its labels unknown to it.
    InvalidBundle, InferenceFailed
        If the model's answers cannot be scored.
    """
    gate, settings = dict(gate or {}), settings or EvaluationSettings()
    own = load_metrics(settings.metrics, root or Path())
    _check(model, champion, gate, slices, settings)
    check_sampling(settings, model.manifest.task)
    _check_fairness(gate, settings)
    task = model.manifest.task
    models = [model] if champion is None else [model, champion]
    check_fit(models, table, label=label, slices=slices, settings=settings)
    masks = [table.mask(each.where) for each in slices]
    groups = group_numbers(table, settings.group) if settings.group else None
    scored = score_models(models, table, label=label, settings=settings, progress=progress, mapper=mapper)
    rows, *others = (grouped(each, groups) for each in scored)
    other = others[0] if others else None
    views = [_View(rows, other, measured_names(rows, task, gate), _slice_metrics(rows, task, gate))]
    if own:
        theirs = None if other is None else own_rows(other, own)
        limited = [each.name for each in own if _in_slices(gate, each.name)]
        views.append(_View(own_rows(rows, own), theirs, tuple(each.name for each in own), tuple(limited)))
    named = [(each.name, mask) for each, mask in zip(slices, masks, strict=True)]
    cut = [[(name, view.rows.select(mask)) for name, mask in named] for view in views]
    measured = [found for view in views for found in measure(view.rows, view.names, settings, mapper=mapper)]
    for place, (name, _) in enumerate(named):
        for view, parts in zip(views, cut, strict=True):
            measured += measure(parts[place][1], view.in_slices, settings, part=name, mapper=mapper)
        if progress is not None:
            progress("measuring slices", place + 1, len(named))
    champion_report, comparisons = None, tuple[Comparison, ...]()
    if champion is not None:
        theirs_measured: list[Measurement] = []
        for view, parts in zip(views, cut, strict=True):
            assert view.other is not None
            changes, answers = compare(
                view.rows,
                view.other,
                view.names,
                settings,
                versus=champion_name,
                slices=[
                    (name, part, view.other.select(mask)) for (name, mask), (_, part) in zip(named, parts, strict=True)
                ],
                slice_names=view.in_slices,
                mapper=mapper,
            )
            measured += changes
            comparisons += answers
            theirs_measured += measure(view.other, view.names, settings, mapper=mapper)
        champion_report = ChampionReport(champion_name, champion.manifest.digest, (*theirs_measured, *champion_extra))
    measurements = (*measured, *measure_fairness(rows, table, settings), *extra)
    subject = Subject(model, table, label, rows, slices, settings, reference, progress, gate, measurements, checks)
    names = dict.fromkeys([*analyses, *(["checks"] if checks else [])])
    found = analyse(subject, tuple(names))
    judged = judge(gate, measurements, champion_report.measurements if champion_report else None)
    return Report(
        model=model.manifest.name,
        task=task,
        bundle=model.manifest.digest,
        data=table.digest,
        origin=table.origin,
        label=label,
        rows=table.rows,
        measurements=measurements,
        slices=tuple(SliceReport(s.name, s.where, int(m.sum())) for s, m in zip(slices, masks, strict=True)),
        gate=gate,
        verdict=join_verdicts(judged, judge_checks(found.checks or ())),
        label_counts=_label_counts(rows),
        confusion=confusion(rows) if isinstance(rows, Classified) else None,
        calibration=calibration(rows, settings.confidence) if isinstance(rows, Classified) else (),
        residuals=residuals(rows) if isinstance(rows, Regressed) else None,
        champion=champion_report,
        settings=settings,
        environment=describe_environment(),
        comparisons=comparisons,
        groups=0 if groups is None else int(groups.max()) + 1,
        analyses=found,
    )


def _check(
    model: Model, champion: Model | None, gate: Gate, slices: Sequence[SliceSettings], settings: EvaluationSettings
) -> None:
    check_gate(gate)
    check_scorable(model)
    check_metrics(gate, model.manifest.task, settings.metrics)
    if champion is not None:
        check_scorable(champion)
        if champion.manifest.task != model.manifest.task:
            raise InvalidConfig(
                f"{model.manifest.name} is a {model.manifest.task} model and the champion a {champion.manifest.task} "
                "model; only models of one task can be compared"
            )
    names = [each.name for each in slices]
    if double := next((name for name in names if names.count(name) > 1), ""):
        raise InvalidConfig(f"two slices are called {double!r}; give each its own name")


def _check_fairness(gate: Gate, settings: EvaluationSettings) -> None:
    limited = next((name for name in gate if name in GATED), "")
    if limited and not settings.sensitive:
        raise InvalidConfig(
            f"gate.{limited} needs to know which columns to look at; name them, as in: [evaluate] sensitive = ['sex']"
        )


class _View(NamedTuple):
    """Rows of both models, and which metrics are measured on them: the built-in ones, or those of one's own."""

    rows: Scored
    other: Scored | None
    names: tuple[str, ...]
    in_slices: tuple[str, ...]


def _slice_metrics(rows: Scored, task: str, gate: Gate) -> tuple[str, ...]:
    """Those that the gate limits in slices, and the main one."""
    limited = [name for name in quality_metrics(task) if _in_slices(gate, name)]
    return tuple(dict.fromkeys([main_metric(rows, task), *limited]))


def _in_slices(gate: Gate, name: str) -> bool:
    return name in gate and (gate[name].slice_min, gate[name].slice_max) != (None, None)


def _label_counts(rows: Scored) -> dict[str, int]:
    if not isinstance(rows, Classified):
        return {}
    counts = np.bincount(rows.truth, minlength=len(rows.labels))
    return dict(zip(rows.labels, counts.tolist(), strict=True))
