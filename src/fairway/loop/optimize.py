"""The verb ``optimize``: the best form of a model that passes the gate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.bundle.format import Bundle
from fairway.loop.evaluate import ONCE_PER_PROCESS, check_data, measure, needs_saturation
from fairway.loop.models import find_bundle
from fairway.loop.progress import SILENT, Progress
from fairway.loop.project import Project
from fairway.loop.warm import champion_recipe, earlier_journals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fairway.core.metrics import Measurement
    from fairway.optimization.report import Optimization, Tuning


REQUESTS = 400
"""Per load, candidate and round: the rounds add up, and enough for a 99th percentile's interval to be finite."""


def optimize(
    model: Bundle | Path | str | None = None, *, project: Project | None = None, progress: Progress = SILENT
) -> Optimization:
    """Make candidates of ``model``, evaluate each, and choose the best that passes the gate.

    Needs ``[data] reference``, whose rows calibrate quantization. The work stays under ``.fairway/work``, so that a run
    that was cut off goes on where it was.

    Returns
    -------
    Optimization
        With ``.chosen`` (a bundle; the original where nothing pays) and ``.candidates``.
    """
    from fairway.core.compute import open_mapper
    from fairway.optimization.optimize import optimize as search
    from fairway.serving.settings import ModelServeSettings, ServeSettings
    from fairway.serving.workers import cores as available

    project = project or Project.find()
    table, reference = project.table("test"), project.table("reference")
    check_data(project, table)
    bundle = find_bundle(project, model, progress)
    progress.step(f"optimizing {bundle.manifest.name}")
    gate, settings = project.settings.gate, project.settings.optimize
    saturate = needs_saturation(gate) or settings.objective in ("throughput_rps", "energy_mj_per_request")
    cores = min(settings.cores or available(), available())
    own = project.settings.evaluate
    processes = 2 if settings.objective in ONCE_PER_PROCESS else None
    measured = partial(measure, gate=gate, requests=REQUESTS, saturate=saturate, processes=processes, settings=own)

    def served(candidate: Bundle, way: Tuning) -> Sequence[Measurement]:
        limits = ModelServeSettings(max_batch=way.max_batch, max_wait_us=way.max_wait_us, cache_bytes=way.cache_bytes)
        serving = ServeSettings(workers=way.workers, threads=way.threads, models={candidate.manifest.name: limits})
        return measured(candidate, workers=way.workers, serving=serving, cores=cores, equal=settings.equal_requests)

    with open_mapper(project.settings.compute) as mapper:
        return search(
            bundle,
            table=table,
            reference=reference,
            label=project.data.label,
            gate=gate,
            slices=project.settings.slices,
            workdir=project.work() / "candidates",
            earlier=earlier_journals(project),
            known=champion_recipe(project, bundle.manifest.name),
            measure=measured,
            serve=served if settings.tune else None,
            cores=cores,
            settings=settings,
            evaluation=own,
            root=project.root,
            mapper=mapper,
            progress=progress,
        )
