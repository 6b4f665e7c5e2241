"""A bundle's answers, taught to a smaller torch module, which becomes a bundle in its turn."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidConfig
from fairway.core.extras import require
from fairway.model import Model
from fairway.optimization.distillation.bundles import student_bundle
from fairway.optimization.distillation.hidden import HiddenStates
from fairway.optimization.distillation.lessons import Lesson, make_lesson
from fairway.optimization.distillation.losses import CLASS_AXIS, loss_for
from fairway.optimization.distillation.modules import answer_of
from fairway.optimization.distillation.settings import DistillationSettings
from fairway.optimization.distillation.train import Trainer, Training
from fairway.optimization.files import exclusive
from fairway.sources.tables import Table

_TIMING = ("time_budget", "checkpoint_steps")
"""Settings that do not change where learning leads to, only how far it comes."""


class Distilled(msgspec.Struct, frozen=True):
    """A student, and how it became one.

    Attributes
    ----------
    bundle : Bundle
    rows : int
        Learned from and held out.
    training : Training
    """

    bundle: Bundle
    rows: int
    training: Training

    def as_text(self) -> str:
        """For people."""
        best = self.training.epochs[self.training.best]
        agrees = (
            "" if math.isnan(best.agreement) else f", {best.agreement:.1%} of held-out rows answered like the teacher"
        )
        return (
            f"student of {self.rows:,} rows: best after {self.training.best + 1} of {len(self.training.epochs)} epochs "
            f"(loss {best.loss:.4f}{agrees}); stopped because {self.training.stopped}"
        )


def distill(
    teacher: Bundle,
    student: Any,
    *,
    table: Table,
    destination: Path,
    workdir: Path,
    label: str = "",
    teacher_module: Any = None,
    settings: DistillationSettings | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Distilled:
    """Teach ``student`` what ``teacher`` answers on ``table``, and write it as a bundle.

    The same arguments give the same student. A run that was cut off goes on from its last checkpoint in ``workdir``, if the
    student begins with the same weights: seed them.

    Parameters
    ----------
    teacher : Bundle
        Any that scores classes, predicts a number or gives embeddings, on whatever engine.
    student : torch.nn.Module
        Its ``forward`` takes the inputs of the teacher's graph, after pre-processing, and gives logits of classes, else
        what the teacher gives. It is changed: afterwards it has learned.
    table : Table
        Rows to learn from.
    destination : Path
        Where to write the bundle. It takes what the teacher takes, with the same processing.
    workdir : Path
        For checkpoints; made if absent.
    label : str, optional
        The column with the right answers; without, the teacher is all there is to learn from.
    teacher_module : torch.nn.Module, optional
        The teacher as torch knows it, whose hidden states ``settings.hidden`` names.
    settings, progress
        See :class:`DistillationSettings`. ``progress`` is told the step, how much of it is done, and out of how much.

    Raises
    ------
    InvalidConfig
        If the student does not answer as the teacher does, a submodule does not exist, or learning diverges.
    InvalidData
        If the table does not fit the teacher.
    Conflict
        If another run is at work in ``workdir``.
    ConversionMismatch
        If the student cannot be exported to a graph that answers alike.
    """
    settings, tell = settings or DistillationSettings(), progress or _silent
    loss = loss_for(teacher.manifest, settings.temperature, settings.soft_share)
    with exclusive(workdir), Model(teacher) as model:
        lesson = make_lesson(model, table, label, settings, tell)
        _check(student, lesson, teacher)
        hidden = _hidden(student, teacher_module, lesson, settings)
        trainer = Trainer(
            student,
            lesson,
            loss,
            settings,
            checkpoint=workdir / f"{_key(student, lesson, settings)}.checkpoint",
            hidden=hidden,
            classes=_scores(teacher),
            progress=tell,
        )
        try:
            training = trainer.run()
        finally:
            if hidden is not None:
                hidden.close()
        described = {"settings": msgspec.to_builtins(settings), "parameters": _count(student)}
        bundle = student_bundle(model, student, lesson, table, destination, {"distillation": described})
    return Distilled(bundle, lesson.rows, training)


def _scores(teacher: Bundle) -> bool:
    prediction = teacher.manifest.prediction
    return prediction is not None and prediction.kind in ("logits", "probabilities")


def _count(student: Any) -> int:
    return sum(parameter.numel() for parameter in student.parameters())


def _check(student: Any, lesson: Lesson, teacher: Bundle) -> None:
    """Before an hour of learning, not after it."""
    odd = [name for name, array in lesson.feed.items() if array.dtype.kind not in "biuf"]
    if odd:
        raise InvalidConfig(f"the teacher's graph takes {odd[0]!r} as text, which no torch module does")
    if _scores(teacher) and (lesson.answers.ndim < 2 or lesson.answers.shape[CLASS_AXIS] < 2):
        raise InvalidConfig("the teacher gives one probability per row; a student learns from a score for each class")
    wanted = lesson.part(slice(2)).answers.shape
    try:
        given = tuple(_answer(student, lesson.part(slice(2))).shape)
    except Exception as error:
        inputs = ", ".join(f"{name} {list(array.shape[1:])}" for name, array in lesson.feed.items())
        raise InvalidConfig(
            f"the student cannot answer what the teacher's graph takes ({inputs}): {type(error).__name__}: {error}"
        ) from error
    if given != wanted:
        raise InvalidConfig(f"the student answers two rows with shape {list(given)}, its teacher with {list(wanted)}")


def _answer(student: Any, lesson: Lesson) -> Any:
    torch: Any = require("torch", extra="torch")
    with torch.no_grad():
        return answer_of(student.eval(), {name: torch.tensor(array) for name, array in lesson.feed.items()})


def _hidden(student: Any, module: Any, lesson: Lesson, settings: DistillationSettings) -> HiddenStates | None:
    if not settings.hidden or not settings.hidden_weight:
        return None
    if module is None:
        raise InvalidConfig(
            "hidden states are those of torch modules, and this teacher is a graph alone; leave hidden out of [distill], or "
            "teach from a source that is a torch module or a Hugging Face folder"
        )
    torch: Any = require("torch", extra="torch")
    example = {name: torch.tensor(array) for name, array in lesson.part(slice(2)).feed.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # the projections' first weights
        return HiddenStates(student, module, settings.hidden, example)


def _key(student: Any, lesson: Lesson, settings: DistillationSettings) -> str:
    """Of all that decides where learning leads to; the student's first weights, too."""
    weights = hashlib.sha256()
    for name, tensor in student.state_dict().items():
        array = tensor.detach().cpu().contiguous().numpy()
        weights.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    chosen = {name: value for name, value in msgspec.structs.asdict(settings).items() if name not in _TIMING}
    parts = (type(student).__qualname__, weights.hexdigest(), chosen, lesson.digest())
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:24]


def _silent(_text: str, _done: int, _total: int) -> None:
    """Nobody watches."""
