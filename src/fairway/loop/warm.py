"""What earlier searches of the same model found: their journals, and the recipe of the form that is served."""

from __future__ import annotations

from pathlib import Path

from fairway.core.errors import FairwayError
from fairway.core.manifest import PassRecord
from fairway.loop.models import find_version
from fairway.loop.project import Project
from fairway.registry.records import CHAMPION

_LATEST = 3


def earlier_journals(project: Project) -> tuple[Path, ...]:
    """Of the latest searches in this project, the newest first."""
    work = project.work()
    found = [path for path in work.parent.glob("*/candidates/journal-*.jsonl") if work not in path.parents]
    return tuple(sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:_LATEST])


def champion_recipe(project: Project, name: str) -> tuple[tuple[PassRecord, ...], ...]:
    """The recipe of the registered champion; nothing where there is none, or it was made without one, or cannot be had."""
    try:
        with project.registry(create=False) as registry:
            bundle = registry.fetch(find_version(registry, f"{name}@{CHAMPION}"), project.cache)
    except FairwayError:  # it would have saved time, no more
        return ()
    return (bundle.manifest.recipe,) if bundle.manifest.recipe else ()
