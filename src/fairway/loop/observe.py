"""The verb ``observe``: whether what a version is asked is still what it was made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.loop.models import find_version
from fairway.loop.project import Project

if TYPE_CHECKING:
    from fairway.monitoring.report import DriftReport


def observe(model: str, *, project: Project | None = None) -> DriftReport:
    """Compare what ``model`` was sent, and what it answered, with the baseline that its bundle carries.

    Parameters
    ----------
    model : str
        ``NAME`` (its champion), ``NAME:VERSION`` or ``NAME@ALIAS``.

    Returns
    -------
    DriftReport
        With ``.outcome``, ``.as_text()``, ``.as_json()`` and ``.as_html()``. Without enough rows it is inconclusive.
    """
    from fairway.monitoring.baseline import read_baseline
    from fairway.monitoring.drift import drift

    project = project or Project.find()
    with project.registry(create=False) as registry:
        version = find_version(registry, model)
        bundle = registry.fetch(version, project.cache)
        windows = registry.windows(version.model, version.number)
        forgotten = registry.forgotten_periods(version.model, version.number)
    return drift(read_baseline(bundle), windows, project.settings.monitor, first_look=1 + forgotten)
