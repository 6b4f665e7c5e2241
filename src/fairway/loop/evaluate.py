"""The verb ``evaluate``: quality on the test set, performance through the serving core, the gate's verdict."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidConfig, InvalidData, MissingExtra, ModelNotFound, ServerUnavailable
from fairway.core.gate import Gate
from fairway.core.latency import LatencyProfile
from fairway.core.metrics import Measurement
from fairway.evaluation.report import Report
from fairway.evaluation.settings import EvaluationSettings
from fairway.loop.models import find_bundle, find_version
from fairway.loop.progress import SILENT, Progress
from fairway.loop.project import Project
from fairway.registry.records import CHAMPION
from fairway.settings import FILE

if TYPE_CHECKING:
    from fairway.serving.settings import ServeSettings
    from fairway.sources.tables import Table

_log = logging.getLogger(__name__)

PERFORMANCE = (
    *("latency_", "throughput_rps", "error_rate", "memory_mb", "size_mb", "load_ms"),
    *("first_request_ms", "energy_mj_per_request"),
)
DEFAULT_RPS = 50.0
SATURATE_S = 0.5
"""How long each process is kept as busy as it can be."""
ONCE_PER_PROCESS = ("memory_mb", "load_ms", "first_request_ms")
"""A process gives one reading of these, and one reading has no interval."""
REQUESTS = 1_000
"""Per load. The interval of a 99th percentile is finite from 373 on, at 95 % confidence."""


def evaluate(
    model: Bundle | Path | str | None = None,
    *,
    data: Path | str | None = None,
    baseline: str = "champion",
    ray: str | None = None,
    mlflow: str = "",
    project: Project | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Score ``model`` on the test set, slice by slice, and judge it by the gate.

    Parameters
    ----------
    model : Bundle, path, reference or None
        See :func:`fairway.loop.models.find_bundle`; ``None`` is the project's source.
    data : path, optional
        Another test file than ``[data] test``.
    baseline : str, default "champion"
        What to compare with, on the same rows: an alias of the same model, or any reference. Ignored where it does
        not exist yet, as for a first version.
    ray : str, optional
        The Ray cluster that does the work, instead of ``[compute] ray``; the report is the same.
    mlflow : str, optional
        An MLflow tracking server or store to log the report to; default: ``[tracking] mlflow``. What cannot be logged
        is a warning: the report is returned all the same.
    project : Project, optional
        Defaults to that of the working directory.

    Returns
    -------
    Report
        With ``.passed``, ``.verdict``, ``.as_text()``, ``.as_json()``, ``.as_html()``, ``.as_markdown()`` and
        ``.as_junit()``.
    """
    project = project or Project.find()
    if ray is not None:
        project = project.changed(compute=structs.replace(project.settings.compute, ray=ray))
    table = _table(project, data)
    check_data(project, table)
    bundle = find_bundle(project, model, progress)
    champion = _baseline(project, bundle, baseline)
    progress.step(f"measuring {bundle.manifest.name} under load")
    gate, settings = project.settings.gate, project.settings.evaluate
    performance, latency = measure_whole(bundle, gate, settings, progress)
    incumbent = measure_whole(champion[1], gate, settings, progress)[0] if champion and _compares(gate) else []
    progress.step(f"scoring {bundle.manifest.name} on {table.rows:,} rows")
    report = score(project, bundle, table, champion, extra=performance, champion_extra=incumbent, progress=progress)
    report = structs.replace(report, latency=tuple(latency))
    _track(report, project, mlflow, progress)
    return report


def score(
    project: Project,
    bundle: Bundle,
    table: Table,
    champion: tuple[str, Bundle] | None = None,
    *,
    extra: Sequence[Measurement],
    champion_extra: Sequence[Measurement] = (),
    progress: Progress = SILENT,
) -> Report:
    """Score one bundle beside another on the same rows; ``extra`` and ``champion_extra`` were measured elsewhere."""
    from contextlib import ExitStack

    from fairway.core.compute import open_mapper
    from fairway.evaluation.evaluate import evaluate as evaluate_model
    from fairway.model import Model

    settings = project.settings
    with ExitStack() as stack:
        mapper = stack.enter_context(open_mapper(settings.compute))
        candidate = stack.enter_context(Model(bundle))
        incumbent = stack.enter_context(Model(champion[1])) if champion else None
        return evaluate_model(
            candidate,
            table,
            label=project.data.label,
            gate=settings.gate,
            slices=settings.slices,
            champion=incumbent,
            champion_name=champion[0] if champion else "champion",
            extra=extra,
            champion_extra=champion_extra,
            settings=settings.evaluate,
            reference=project.table("reference") if settings.evaluate.analyses and project.data.reference else None,
            analyses=settings.evaluate.analyses,
            checks=settings.checks,
            root=project.root,
            progress=progress,
            mapper=mapper,
        )


_ONCE = ("load_ms", "first_request_ms", "size_mb")
"""They depend on no load, so one measurement of each is enough."""


def measure(
    bundle: Bundle,
    gate: Gate,
    requests: int = REQUESTS,
    *,
    saturate: bool | None = None,
    processes: int | None = None,
    workers: int = 1,
    serving: ServeSettings | None = None,
    cores: int = 0,
    equal: float = 0.0,
    settings: EvaluationSettings | None = None,
) -> list[Measurement]:
    """Latency, throughput, errors, memory, size and load time, as served, at every load that the gate names.

    Quickly: for a search that measures again and again. ``saturate``: also the largest throughput and the energy; by default
    where the gate limits them. ``processes``: one after another, among which the load is divided; by default one, or two
    where the gate limits what needs two to have an interval. ``workers``, ``serving`` and ``cores`` are how it is served: by
    default by one process, as the bundle says. ``equal`` is the share of requests that repeat an earlier one.
    Of ``settings`` the watts of a core, and the confidence, count.
    """
    from fairway.serving.performance import measure_performance

    asked = needs_saturation(gate) if saturate is None else saturate
    measured: list[Measurement] = []
    processes = processes or (2 if any(name in ONCE_PER_PROCESS for name in gate) else 1)
    own = settings or EvaluationSettings()
    for number, rps in enumerate(_loads(gate)):
        saturate_s = SATURATE_S if asked and not number else 0.0
        found = measure_performance(
            bundle,
            rps=rps,
            seconds=max(2.0, requests / rps),
            saturate_s=saturate_s,
            processes=processes,
            workers=workers,
            serving=serving,
            cores=cores,
            equal=equal,
            confidence=own.confidence,
            core_watts=own.core_watts,
        ).measurements
        measured += [each for each in found if not number or each.metric not in _ONCE]
    return measured


def measure_whole(
    bundle: Bundle, gate: Gate, settings: EvaluationSettings, progress: Progress = SILENT
) -> tuple[list[Measurement], list[LatencyProfile]]:
    """All that there is to measure of a bundle as served, and the distribution of its latencies, at every load."""
    from fairway.serving.performance import measure_performance

    measured, profiles, loads = list[Measurement](), list[LatencyProfile](), _loads(gate)
    for number, rps in enumerate(loads):
        found = measure_performance(
            bundle,
            rps=rps,
            seconds=max(2.0, REQUESTS / rps),
            confidence=settings.confidence,
            processes=settings.processes,
            saturate_s=SATURATE_S if not number else 0.0,
            core_watts=settings.core_watts,
        )
        if number:
            found.measurements[:] = [m for m in found.measurements if m.metric not in _ONCE]
        measured += found.measurements
        profiles += [found.latency] if found.latency is not None else []
        progress("load", number + 1, len(loads))
    return measured, profiles


def _track(report: Report, project: Project, mlflow: str, progress: Progress) -> None:
    tracking = project.settings.tracking
    if uri := mlflow or tracking.mlflow:
        from fairway.evaluation.tracking import log_report

        progress.step("logging to MLflow")
        try:
            log_report(report, uri, tracking.experiment)
        except (ServerUnavailable, MissingExtra) as error:  # minutes of measuring are not lost for want of a server
            _log.warning("%s", error)


def needs_saturation(gate: Gate) -> bool:
    """Whether a limit is on what is measured at full load."""
    return any(name.startswith("energy_") or (name == "throughput_rps" and not gate[name].at_rps) for name in gate)


def _loads(gate: Gate) -> list[float]:
    named = {limit.at_rps for name, limit in gate.items() if name.startswith(PERFORMANCE) and limit.at_rps}
    return sorted(named) or [DEFAULT_RPS]


def _compares(gate: Gate) -> bool:
    """Whether a bound on change needs the champion's performance, measured here and now."""
    return any(limit.max_rise is not None and name.startswith(PERFORMANCE) for name, limit in gate.items())


def check_data(project: Project, table: Table) -> None:
    """Find mistakes in ``[data]`` and ``[[slices]]`` now, not after minutes of converting and measuring."""
    from fairway.sources.mapping import listed
    from fairway.sources.tables import is_label

    if not project.data.label:
        raise InvalidConfig(
            f"[data] in {project.root / FILE} has no label; name the column to predict: label = 'COLUMN'"
        )
    if not any(is_label(name, project.data.label) for name in table.columns):
        table.column(project.data.label)  # says which columns there are
    if broken := table.broken_images():
        raise InvalidData(f"{table.origin} has images that cannot be decoded:{listed(broken)}")
    for part in project.settings.slices:
        try:
            table.mask(part.where)
        except InvalidConfig as error:
            raise InvalidConfig(f"slice {part.name!r}: {error}") from None


def _table(project: Project, data: Path | str | None) -> Table:
    from fairway.sources.tables import load_table

    if not data:
        return project.table("test")
    return load_table(os.path.expanduser(data), origin=str(data), settings=project.settings.data)  # noqa: PTH111 (or a URL)


def _baseline(project: Project, bundle: Bundle, baseline: str) -> tuple[str, Bundle] | None:
    """The champion's name and bundle, unless there is none yet or it is this very bundle."""
    from fairway.registry.errors import NoRegistry

    is_alias = ":" not in baseline and "@" not in baseline
    ref = f"{bundle.manifest.name}@{baseline}" if is_alias else baseline
    try:
        with project.registry(create=False) as registry:
            version = find_version(registry, ref)
            if version.digest == bundle.digest:
                return None
            return version.ref, registry.fetch(version, project.cache)
    except (NoRegistry, ModelNotFound):
        if is_alias and baseline == CHAMPION:
            return None
        raise
