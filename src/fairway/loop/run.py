"""The verb ``run``: the whole road from the source in ``fairway.toml`` to a released version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fairway.bundle.format import Bundle
from fairway.core.errors import GateRefused
from fairway.core.gate import Verdict
from fairway.loop.evaluate import evaluate
from fairway.loop.models import source_bundle
from fairway.loop.optimize import optimize
from fairway.loop.pack import report_of, reread, write_packed
from fairway.loop.progress import SILENT, Progress
from fairway.loop.project import Project
from fairway.loop.register import register
from fairway.loop.release import release, withdrawn

if TYPE_CHECKING:
    from fairway.registry.records import Release


class Road(msgspec.Struct, frozen=True):
    """How far a run came, and where everything is.

    Attributes
    ----------
    model, version
        What was registered.
    digest, bundle
        The packed bundle, and its directory.
    verdict : Verdict
        The gate's, of the form that was packed.
    refused : str
        Why it was not released; empty if it was.
    release : Release or None
        The model's release afterwards.
    pages : dict of str to str
        The HTML reports.
    """

    model: str
    version: int
    digest: str
    bundle: str
    verdict: Verdict
    refused: str
    release: Release | None
    pages: dict[str, str]


def run(*, project: Project | None = None, progress: Progress = SILENT) -> Road:
    """Convert, evaluate, optimize, pack and register the project's model, and release what the gate lets through.

    The first version becomes the champion; a later one starts as a canary at ``[release] weight``. Run again with
    nothing changed, it finds its results and registers nothing new; a version that was rolled back stays back.
    Optimization is skipped without ``[data] reference``.
    """
    project = project or Project.find()
    work = project.work()
    target = work / _packed_name(project)
    packed = reread(target) or _make(project, target, progress)
    report = report_of(packed)
    assert report is not None  # _make packs it
    progress.step("registering")
    version = register(packed, project=project)
    refused = ""
    with project.registry() as registry:
        state = registry.release(version.model)
        back = withdrawn(registry, version)
    if back is not None:
        by = f"{back.actor or 'unknown'} ({back.reason})"
        refused = f"{version.ref} was rolled back by {by}; to try it again: fairway release {version.ref}"
    elif state is None or version.number not in (state.champion, state.challenger):
        try:
            state = release(version.ref, project=project)
        except GateRefused as error:
            refused = str(error)
    pages = {page.stem: str(page) for page in sorted(work.glob("*.html"))}
    return Road(version.model, version.number, version.digest, str(packed.path), report.verdict, refused, state, pages)


def _packed_name(project: Project) -> str:
    """A search that was given more time may have found another form."""
    return (
        f"packed-{project.settings.optimize.time_budget_s:g}s.fairway" if project.data.reference else "packed.fairway"
    )


def _make(project: Project, target: Path, progress: Progress) -> Bundle:
    """Convert, optimize, evaluate the chosen form, pack."""
    work = target.parent
    bundle = source_bundle(project, progress)
    if project.data.reference:
        optimization = optimize(bundle, project=project, progress=progress)
        (work / "optimization.html").write_text(optimization.as_html(), "utf-8")
        bundle = optimization.chosen
    report = evaluate(bundle, project=project, progress=progress)
    (work / "evaluation.html").write_text(report.as_html(), "utf-8")
    return write_packed(project, bundle, report, target, progress)
