"""How far a student is from its teacher and from the labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require
from fairway.core.manifest import Manifest

Loss: TypeAlias = Callable[[Any, Any, Any], Any]
"""Of the student's answers, the teacher's and the labels (or ``None``): one number."""

CLASS_AXIS = 1
"""Of logits ``[rows, classes]``, and of pixels' ``[rows, classes, height, width]``."""


def loss_for(manifest: Manifest, temperature: float, soft_share: float) -> Loss:
    """The loss that fits what the teacher's ``prediction`` is.

    Raises
    ------
    InvalidConfig
        If a student cannot learn it from answers alone.
    """
    kind = manifest.prediction.kind if manifest.prediction else "no prediction"
    if manifest.task in ("classification", "segmentation") and kind in ("logits", "probabilities"):
        return _classes(kind, temperature, soft_share)
    if manifest.task == "regression" and kind == "value":
        return _values(soft_share)
    if manifest.task == "embedding" and kind == "embedding":
        return lambda student, teacher, _: directions(student, teacher)
    raise InvalidConfig(
        f"a student cannot be taught {manifest.task} with {kind}; known: scores of classes (of rows or pixels), numbers and "
        "embeddings"
    )


def soft_targets(student: Any, teacher: Any, temperature: float) -> Any:
    """``T² KL(teacher || student)`` of logits divided by ``T``, the mean over rows.

    Log probabilities serve as logits. The factor keeps gradients as large as those of the labels' loss.

    References
    ----------
    G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", 2015, sec. 2, arXiv:1503.02531.
    """
    functional = require("torch", extra="torch").nn.functional
    wanted = functional.log_softmax(teacher / temperature, dim=CLASS_AXIS)
    given = functional.log_softmax(student / temperature, dim=CLASS_AXIS)
    distance = (wanted.exp() * (wanted - given)).sum(dim=CLASS_AXIS)
    return temperature**2 * distance.mean()


def directions(student: Any, teacher: Any, weights: Any = None) -> Any:
    """Mean squared distance of vectors along the last axis, each scaled to length one.

    ``weights`` are one per vector: 0 for those of padding.

    References
    ----------
    S. Sun, Y. Cheng, Z. Gan, J. Liu, "Patient knowledge distillation for BERT model compression", EMNLP 2019, eq. 7.
    """
    functional = require("torch", extra="torch").nn.functional
    gap = functional.normalize(student, dim=-1) - functional.normalize(teacher, dim=-1)
    distance = gap.square().sum(dim=-1)
    if weights is None:
        return distance.mean()
    return (distance * weights).sum() / weights.sum()


def _classes(kind: str, temperature: float, soft_share: float) -> Loss:
    torch: Any = require("torch", extra="torch")

    def loss(student: Any, teacher: Any, labels: Any) -> Any:
        scores = teacher.clamp(min=1e-12).log() if kind == "probabilities" else teacher
        soft = soft_targets(student, scores, temperature)
        if labels is None:
            return soft
        return soft_share * soft + (1 - soft_share) * torch.nn.functional.cross_entropy(student, labels)

    return loss


def _values(soft_share: float) -> Loss:
    torch: Any = require("torch", extra="torch")

    def loss(student: Any, teacher: Any, labels: Any) -> Any:
        soft = torch.nn.functional.mse_loss(student.reshape(-1), teacher.reshape(-1))
        if labels is None:
            return soft
        return soft_share * soft + (1 - soft_share) * torch.nn.functional.mse_loss(student.reshape(-1), labels)

    return loss
