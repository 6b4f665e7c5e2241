"""The verb ``distill``: a smaller model that learns from the project's own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fairway.bundle.format import Bundle, copy_bundle
from fairway.core.errors import InvalidConfig
from fairway.loop.models import find_bundle
from fairway.loop.pack import check_target, giving_way
from fairway.loop.progress import SILENT, Progress
from fairway.loop.project import Project

if TYPE_CHECKING:
    from fairway.optimization.distillation.distill import Distilled
    from fairway.optimization.distillation.settings import DistillationSettings
    from fairway.sources.tables import Table


def distill(
    model: Bundle | Path | str | None = None,
    *,
    student: Any = None,
    out: Path | str | None = None,
    replace: bool = False,
    project: Project | None = None,
    progress: Progress = SILENT,
) -> Distilled:
    """Teach a smaller torch module what ``model`` answers on ``[data] train``, and write it as a bundle at ``out``.

    Parameters
    ----------
    model : Bundle, path, reference or None
        The teacher: any bundle that scores classes, predicts a number or gives embeddings; ``None`` is the project's source.
    student : torch.nn.Module, optional
        What learns, in place of ``[distill] student``.
    out : path, default ``NAME-student.fairway`` in the working directory
    replace : bool, default False
        Take the place of a bundle that is already there.

    Returns
    -------
    Distilled
        With ``.bundle``. Evaluate and optimize it as any other; a run that was cut off goes on where it was.

    Raises
    ------
    InvalidConfig
        If there is no student, or it does not answer as its teacher does.
    InvalidBundle
        If ``out`` exists and ``replace`` is not set.
    """
    from fairway.optimization.distillation.distill import distill as teach

    project = project or Project.find()
    settings = project.settings.distill
    bundle = find_bundle(project, model, progress)
    target = Path(out) if out else Path(f"{bundle.manifest.name}-student.fairway")
    check_target(target, replace=replace)
    asked = settings.hidden or (student is None and not settings.student)
    module = _teacher_module(project, None if model is None else bundle) if asked else None
    rows = _rows(project)
    if student is None:
        student, settings = _student(project, bundle, module, rows, settings)
    progress.step(f"distilling {bundle.manifest.name}")
    with tempfile.TemporaryDirectory(prefix="fairway-") as folder:
        made = teach(
            bundle,
            student,
            table=rows,
            label=project.data.label,
            destination=Path(folder) / "student.fairway",
            workdir=project.work() / "distilled",
            teacher_module=module,
            settings=settings,
            progress=progress,
        )
        with giving_way(target):
            placed = copy_bundle(target, made.bundle.manifest, lambda name: made.bundle.file(name).open("rb"))
    return msgspec.structs.replace(made, bundle=placed)


def _rows(project: Project) -> Table:
    """What is learned from: no row that the student will be tested on."""
    found = project.table("reference" if project.data.reference and not project.data.train else "train")
    if found.digest == project.table("test").digest:
        raise InvalidConfig(
            f"{found.origin} is the test set: a student that learned from it cannot be tested on it; name other rows: "
            "train = 'FILE.parquet' in [data]"
        )
    return found


def _teacher_module(project: Project, teacher: Bundle | None) -> Any:
    """The source as torch has it, ``None`` if it is none of torch's. A ``teacher`` that is given must be made of it."""
    from fairway.sources.checkpoints import open_source
    from fairway.sources.huggingface import load_network

    opened = open_source(project.model.source, root=project.root, trust=project.model.trust)
    if opened.kind not in ("huggingface", "torch"):
        return None
    before = teacher.manifest.lineage if teacher is not None else None
    if before is not None and (before.source, before.source_digest) != (opened.name, opened.digest):
        raise InvalidConfig(
            f"the teacher was made of {before.source or 'something unknown'}, and not of {project.model.source}, whose layers "
            "and hidden states [distill] asks for; name a student of your own and no hidden, or leave the teacher out"
        )
    if opened.kind == "huggingface":
        return load_network(Path(opened.model), project.model.task)[0]
    return opened.model


def _student(
    project: Project, bundle: Bundle, module: Any, rows: Table, settings: DistillationSettings
) -> tuple[Any, DistillationSettings]:
    """The module that learns, and the settings with the names of its hidden states."""
    import torch

    from fairway.optimization.distillation.pruning import pruned_module
    from fairway.optimization.distillation.students import smaller_transformer
    from fairway.optimization.sampling import draw_sample
    from fairway.sources.callables import call_source

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if settings.prune:
            if module is None:
                raise InvalidConfig(
                    f"{project.model.source} is no torch module, whose channels could be left out; name a student: "
                    'student = "module:callable" in [distill], or let `fairway optimize` try pruned'
                )
            few = draw_sample(bundle, rows, rows=2, seed=settings.seed)
            return pruned_module(module, few.feed, settings.prune), settings
        if not settings.student:
            student, hidden = smaller_transformer(module, layers=settings.layers, heads=settings.heads)
            return student, msgspec.structs.replace(settings, hidden=settings.hidden or hidden)
        student, _ = call_source(settings.student, project.root)
    if not isinstance(student, torch.nn.Module):
        raise InvalidConfig(f"{settings.student} gives a {type(student).__name__}; a student is a torch module")
    return student, settings
