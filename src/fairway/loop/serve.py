"""The verb ``serve``: answer over REST, follow the registry, and note what is seen."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fairway.core.errors import InvalidConfig
from fairway.loop.project import Project
from fairway.serving.settings import ServeSettings

if TYPE_CHECKING:  # the process that watches workers imports little
    from prometheus_client import CollectorRegistry

    from fairway.bundle.format import Bundle
    from fairway.monitoring.baseline import Baseline
    from fairway.registry.store import Registry
    from fairway.serving.app import RunningServer


@contextmanager
def serve(
    models: Bundle | Path | str | Sequence[Bundle | Path | str] = (),
    *,
    project: Project | None = None,
    **settings: Any,
) -> Iterator[RunningServer]:
    """Serve in a thread of this process for the duration of a ``with`` block; ready on entry, drained on exit.

    Parameters
    ----------
    models : bundles, paths or references
        Bundles and their paths are served as they are. References (``digits``, ``digits@staging``, ``digits:4``) follow
        the registry, as do all models with a champion if nothing is given; what they see is kept for ``observe``.
    **settings
        Keys of ``[serve]`` to override, such as ``port=0`` for any free port. There are no workers here: a thread is one.

    Examples
    --------
    >>> import fairway
    >>> with fairway.serve("digits.fairway", port=0) as server:  # doctest: +SKIP
    ...     fairway.connect(server.url).infer("digits", {"x": rows})
    """
    from fairway.serving import app

    project = project or Project.find()
    with plan_of(models, project, settings) as plan, app.serve(**plan) as running:
        yield running


def serve_forever(
    models: Sequence[str] = (),
    *,
    project: Project,
    started: Callable[[str], None],
    **settings: Any,
) -> None:
    """Serve in the foreground until SIGTERM or SIGINT; ``started`` is called with the URL once ready.

    With ``workers`` other than 1 this process only watches those that answer.
    """
    wanted = _override(project.settings.serve, settings)
    if wanted.workers != 1:
        from fairway.loop.workers import supervise

        supervise(models, project=project, settings=wanted, overrides=settings, started=started)
        return
    from fairway.serving import app

    with plan_of(models, project, settings) as plan:
        app.run(**plan, started=started)


@contextmanager
def plan_of(models: Any, project: Project, overrides: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What to serve, from where, and who listens: the arguments of :func:`fairway.serving.app.serve`."""
    from fairway.bundle.format import Bundle
    from fairway.loop.models import find_bundle

    given = [models] if isinstance(models, (Bundle, Path, str)) else list(models)
    settings = _override(project.settings.serve, overrides)
    plan: dict[str, Any] = {"settings": settings, "cache_dir": project.cache}
    if given and all(_is_file(item) for item in given):
        yield {**plan, "bundle_or_models": [find_bundle(project, item) for item in given]}
        return
    from prometheus_client import CollectorRegistry

    with project.registry(create=False) as registry:
        metrics = CollectorRegistry()
        with _observer(registry, project, metrics) as sink:
            refs = [str(item) for item in given]
            yield {**plan, "bundle_or_models": refs, "registry": registry, "sink": sink, "metrics": metrics}


@contextmanager
def _observer(registry: Registry, project: Project, metrics: CollectorRegistry) -> Iterator[Any]:
    """What is served becomes windows in the registry, and gauges on ``/metrics``."""
    from fairway.monitoring.baseline import read_baseline
    from fairway.monitoring.metrics import MonitorMetrics
    from fairway.monitoring.observer import Observer
    from fairway.monitoring.watch import DriftWatch

    settings = project.settings.monitor

    @cache
    def baseline(model: str, version: str) -> Baseline | None:
        return read_baseline(registry.fetch(f"{model}:{version}", project.cache))

    watch = DriftWatch(MonitorMetrics(metrics), registry.windows, registry.forgotten_periods, baseline, settings)
    replica = uuid.uuid4().hex  # a restarted process is another one: its windows must not be taken for those before
    with Observer(registry.add_window, replica=replica, baselines=baseline, settings=settings, listener=watch) as sink:
        yield sink


def _override(settings: ServeSettings, overrides: dict[str, Any]) -> ServeSettings:
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return msgspec.convert({**msgspec.to_builtins(settings), **given}, ServeSettings)
    except msgspec.ValidationError as error:
        wrong = ", ".join(f"{key} = {value!r}" for key, value in given.items())
        raise InvalidConfig(f"{wrong} cannot be served with: {error}; see [serve]") from None


def _is_file(item: Bundle | Path | str) -> bool:
    from fairway.bundle.format import MANIFEST, Bundle
    from fairway.loop.models import ARCHIVES

    if isinstance(item, Bundle):
        return True
    path = Path(item)
    return (path / MANIFEST).is_file() or path.name.endswith(ARCHIVES) or path.is_dir()
