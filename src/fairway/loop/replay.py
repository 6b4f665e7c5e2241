"""What ``fairway optimize --replay`` does: make a bundle again by its recipe, from what it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.bundle.format import MANIFEST, Bundle, read_bundle
from fairway.core.errors import InvalidBundle, ModelNotFound
from fairway.loop.models import find_bundle
from fairway.loop.progress import SILENT, Progress
from fairway.loop.project import Project

if TYPE_CHECKING:
    from fairway.optimization.passes.base import Sample
    from fairway.optimization.replay import Reference, Replay


def replay(
    bundle: Bundle | Path | str,
    *,
    source: Bundle | Path | str | None = None,
    project: Project | None = None,
    progress: Progress = SILENT,
) -> Replay:
    """Apply the recipe of ``bundle`` again to what it was made from, with the same reference rows.

    Parameters
    ----------
    bundle : Bundle, path or reference
        See :func:`fairway.loop.models.find_bundle`.
    source : Bundle, path or reference, optional
        What it was made from; by default it is found by its digest, in the registry or in the project's own work.
    project : Project, optional
        Defaults to that of the working directory. Its ``[data] reference`` is what calibrates.

    Returns
    -------
    Replay
        With ``.same``, ``.stages`` and, where a digest differs, ``.causes``.

    Raises
    ------
    InvalidBundle
        If ``bundle`` was not made from ``source``, or what it was made from is not to be found.
    """
    from fairway.optimization.replay import replay as apply_again

    project = project or Project.find()
    made = find_bundle(project, bundle, progress)
    origin = find_bundle(project, source, progress) if source is not None else find_parent(project, made)
    progress.step(f"replaying the recipe of {made.manifest.name}")
    return apply_again(made, origin, _reference(project, origin), project.state / "work")


def find_parent(project: Project, bundle: Bundle) -> Bundle:
    """The bundle that ``bundle`` was made from, by its digest: from the registry, or of this project's own work."""
    wanted, name = bundle.manifest.lineage.parent, bundle.manifest.name
    if not wanted:
        raise InvalidBundle(f"{bundle.path} was not made from another bundle, so it has no recipe to replay")
    found = _registered(project, name, wanted) or next(_kept(project, name, wanted), None)
    if found is None:
        raise InvalidBundle(
            f"{bundle.path} was made from {wanted}, which is neither in the registry nor among this project's work; give "
            "it, too: fairway optimize SOURCE --replay BUNDLE"
        )
    return found


def _registered(project: Project, name: str, digest: str) -> Bundle | None:
    from fairway.registry.errors import NoRegistry

    try:
        with project.registry(create=False) as registry:
            version = next((v for v in registry.versions(name) if v.digest == digest), None)
            return registry.fetch(version, project.cache) if version else None
    except (NoRegistry, ModelNotFound):
        return None


def _kept(project: Project, name: str, digest: str) -> Iterator[Bundle]:
    """Whole bundles of that digest among what earlier runs left."""
    for manifest in sorted((project.state / "work" / name).rglob(MANIFEST)):
        try:
            if read_bundle(manifest.parent, verify=False).digest == digest:
                yield read_bundle(manifest.parent)
        except InvalidBundle:  # damaged, or no bundle at all
            continue


def _reference(project: Project, source: Bundle) -> Reference:
    from fairway.optimization.replay import Reference
    from fairway.optimization.sampling import draw_sample

    if project.settings.data is None or not project.settings.data.reference:
        return Reference()
    table = project.table("reference")

    @cache
    def draw(rows: int, seed: int) -> Sample:
        return draw_sample(source, table, rows=rows, seed=seed)

    return Reference(draw, table.digest)
