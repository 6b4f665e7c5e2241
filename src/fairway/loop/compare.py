"""The verb ``compare``: is one bundle better than another, and what differs between them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fairway.bundle.format import Bundle
from fairway.loop.evaluate import check_data, measure
from fairway.loop.models import find_bundle
from fairway.loop.optimize import REQUESTS
from fairway.loop.progress import SILENT, Progress
from fairway.loop.project import Project

if TYPE_CHECKING:
    from fairway.optimization.compared import Compared


def compare(
    first: Bundle | Path | str,
    second: Bundle | Path | str,
    *,
    project: Project | None = None,
    progress: Progress = SILENT,
) -> Compared:
    """Whether ``second`` is better than ``first``, by every metric: on the test rows, and as served.

    Both answer the same rows. Both are measured in turn, in as many rounds as ``[optimize] repeats`` says, so that what
    slows the machine down for a while falls on both.

    Parameters
    ----------
    first, second : Bundle, path or reference
        See :func:`fairway.loop.models.find_bundle`.
    project : Project, optional
        Defaults to that of the working directory: its test data, slices, and metrics of the gate.

    Returns
    -------
    Compared
        With ``.quality``, ``.performance``, ``.changes``, ``.answer(metric)``, ``.as_text()``, ``.as_json()`` and
        ``.as_html()``.
    """
    from fairway.optimization.compared import compare_bundles

    project = project or Project.find()
    table = project.table("test")
    check_data(project, table)
    bundles = [find_bundle(project, each, progress) for each in (first, second)]
    names = [_name(each) for each in (first, second)]
    named = list(zip(names if names[0] != names[1] else map(_place, (first, second)), bundles, strict=True))
    settings = project.settings
    progress.step(f"comparing {named[0][0]} and {named[1][0]}")
    return compare_bundles(
        named[0],
        named[1],
        table=table,
        label=project.data.label,
        gate=settings.gate,
        slices=settings.slices,
        measure=lambda bundle: measure(bundle, settings.gate, REQUESTS, saturate=True),
        repeats=settings.optimize.repeats,
        seed=settings.optimize.seed,
        evaluation=settings.evaluate,
        root=project.root,
        progress=progress,
    )


def _name(given: Bundle | Path | str) -> str:
    """What to call it: a reference as it is, and of a path its last part."""
    return Path(_place(given)).name


def _place(given: Bundle | Path | str) -> str:
    return str(given.path if isinstance(given, Bundle) else given)
