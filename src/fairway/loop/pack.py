"""The verb ``pack``: a bundle that carries its evaluation, its drift baseline and its lineage."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tarfile import is_tarfile

import msgspec

from fairway.bundle.format import MANIFEST, Bundle, copy_bundle, read_bundle, write_bundle
from fairway.core.errors import InvalidBundle, InvalidConfig
from fairway.evaluation.cards import card_files
from fairway.evaluation.report import Report
from fairway.loop.evaluate import evaluate
from fairway.loop.models import find_bundle
from fairway.loop.progress import SILENT, Progress
from fairway.loop.project import Project

BASELINE_ROWS = 100_000
"""At most so many go into the drift baseline, drawn at random: more tell nothing that live windows could be compared with."""


def pack(
    model: Bundle | Path | str | None = None,
    *,
    out: Path | str | None = None,
    replace: bool = False,
    sign: Path | None = None,
    calibrate: Path | str | None = None,
    project: Project | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Evaluate ``model`` and write it, with the evidence, as a bundle at ``out``.

    Parameters
    ----------
    model : Bundle, path, reference or None
        See :func:`fairway.loop.models.find_bundle`; ``None`` is the project's source.
    out : path, default ``NAME.fairway`` in the working directory
        A directory; a name that ends in ``.tar`` makes an archive.
    replace : bool, default False
        Take the place of a bundle that is already there.
    sign : path, optional
        A private EC key in PEM: the bundle is signed with it (OpenSSF model signing).
    calibrate : path, optional
        Labeled rows, of neither training nor test: a temperature is fitted on them and built into the graph,
        if it surely helps.

    Raises
    ------
    InvalidBundle
        If ``out`` exists and ``replace`` is not set, or is something else than a bundle.
    InvalidConfig
        If nothing can be written at ``out``, or there is no such key.
    """
    project = project or Project.find()
    if sign is not None and not sign.is_file():
        raise InvalidConfig(f"there is no key {sign}; name a private EC key in PEM")
    if out is not None:
        check_target(Path(out), replace=replace)
    bundle = find_bundle(project, model, progress)
    if calibrate is not None:
        from fairway.loop.calibrate import calibrate as calibrated

        bundle = calibrated(project, bundle, calibrate, progress)
    target = Path(out) if out else Path(f"{bundle.manifest.name}.fairway")
    check_target(target, replace=replace)
    report = evaluate(bundle, project=project, progress=progress)
    archive = target.name.endswith(".tar")
    aside = project.state / "work" / f"packed-{bundle.digest[7:19]}"  # what is to be signed is not there before it is
    packed = write_packed(project, bundle, report, aside if archive or sign else target, progress)
    if sign is not None:
        from fairway.bundle.signing import sign_bundle

        sign_bundle(packed, sign)
    if archive:
        from fairway.bundle.archive import write_archive

        write_archive(packed, target)
    elif sign is not None:
        with giving_way(target):
            return copy_bundle(target, packed.manifest, lambda name: packed.file(name).open("rb"), packed.signature())
    return packed


def check_target(target: Path, *, replace: bool) -> None:
    """Before the work, not after it: what is there gives way only if that was asked for, and if it is a bundle."""
    place = target.absolute()
    if place.name.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".zip")):
        raise InvalidConfig(f"{target}: the archive of a bundle is not compressed; name it .tar")
    if not os.path.lexists(place):
        parent = next(folder for folder in place.parents if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise InvalidConfig(f"nothing can be written in {parent}; choose another place with --out")
    elif not replace:
        raise InvalidBundle(f"{target} exists; choose another with --out, or take its place with --replace")
    elif not ((place / MANIFEST).is_file() or (place.suffix == ".tar" and place.is_file() and is_tarfile(place))):
        raise InvalidBundle(f"{target} is not a bundle, so nothing takes its place; choose another with --out")


@contextmanager
def giving_way(target: Path) -> Iterator[None]:
    """Within the block ``target`` is free; what was there is gone afterwards, or back if the block fails."""
    aside = target.with_name(f".{target.name}.old")
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
    try:
        yield
    except BaseException:
        if aside.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def write_packed(project: Project, bundle: Bundle, report: Report, target: Path, progress: Progress = SILENT) -> Bundle:
    """Write ``bundle`` at ``target`` with ``report`` and a baseline of the reference rows; what is there gives way."""
    from fairway.model import Model
    from fairway.monitoring.baseline import make_baseline

    progress.step(f"packing {bundle.manifest.name}")
    test = project.table("test")
    reference = project.table("reference") if project.data.reference else test
    with Model(bundle) as model:
        rows, unseen = (
            table.sample(BASELINE_ROWS).feed(model.inputs, label=project.data.label or None)
            for table in (reference, test)
        )
        baseline = make_baseline(model, rows, project.settings.monitor, unseen=unseen)
    files: dict[str, Path | bytes] = {name: bundle.file(name) for name in bundle.manifest.files}
    files |= {"evaluation.json": report.as_json(), "baseline.json": baseline}
    lineage = bundle.manifest.lineage
    digests = {**lineage.data_digests, "test": report.data, "reference": reference.digest}
    manifest = msgspec.structs.replace(bundle.manifest, lineage=msgspec.structs.replace(lineage, data_digests=digests))
    files |= card_files(manifest, report)
    with giving_way(target):
        return write_bundle(target, manifest, files)


def report_of(bundle: Bundle) -> Report | None:
    """The evaluation that a bundle carries, or ``None`` if it was never evaluated."""
    if "evaluation.json" not in bundle.manifest.files:
        return None
    return Report.from_json(bundle.file("evaluation.json").read_bytes())


def reread(path: Path) -> Bundle | None:
    """The bundle at ``path`` if a whole one is there."""
    try:
        return read_bundle(path)
    except InvalidBundle:
        return None
