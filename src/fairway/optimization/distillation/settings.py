"""How a student learns from its teacher."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fairway.optimization.settings import seconds

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class DistillationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table ``[distill]``.

    Attributes
    ----------
    student : str
        ``module:callable`` that returns the smaller torch module. Its ``forward`` takes the graph's inputs and gives one
        tensor: logits of a classifier, else what the teacher gives. Empty: a transformer like the teacher, a Hugging Face
        folder, with fewer ``layers`` and ``heads``.
    layers, heads : int
        Of that transformer, which starts from the teacher's weights. With fewer heads all widths shrink in proportion. 0
        is as many as the teacher has.
    prune : float
        In place of those: the share of channels and neurons that a torch module is left without, those of least weight.
        What is left learns again. 0 leaves out none.
    temperature : float
        What logits are divided by before teacher and student are compared: above 1, how the teacher ranks the wrong
        classes counts for more.
    soft_share : float
        How much of the loss is distance to the teacher; the rest is to the labels. 1 needs no labels.
    hidden : dict
        Submodules of the student, and those of the teacher whose outputs theirs should be like, as ``named_modules`` calls
        them. The teacher must be a torch module or a Hugging Face folder. Made up for a student of ``layers``.
    hidden_weight : float
        Weight of the distance between hidden states, added to the loss. 0 leaves them alone.
    epochs, batch_rows, learning_rate
        AdamW, warmed up over a twentieth of the steps and then lowered along a cosine.
    held_out : float
        The share of rows that is not learned from, and which says when to stop.
    patience : int
        Epochs without a better loss on those rows until learning stops. The best epoch's weights are kept.
    rows : int
        At most so many are used, drawn at random.
    checkpoint_steps : int
        Steps between checkpoints. A run that was cut off goes on from the last one, to the same student.
    time_budget : str
        Such as ``"30m"``; learning stops there, over all runs that were cut off.
    seed : int
        Of the rows, their order, dropout and the student's first weights.
    """

    student: str = ""
    layers: Annotated[int, msgspec.Meta(ge=0)] = 0
    heads: Annotated[int, msgspec.Meta(ge=0)] = 0
    prune: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    soft_share: _Share = 0.7
    hidden: dict[str, str] = {}
    hidden_weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    epochs: _Count = 20
    batch_rows: _Count = 64
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 1e-3
    held_out: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.1
    patience: _Count = 5
    rows: Annotated[int, msgspec.Meta(ge=10)] = 100_000
    checkpoint_steps: _Count = 100
    time_budget: str = "1h"
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for what types alone do not catch."""
        seconds(self.time_budget)
        said = [name for name in ("student", "layers", "heads", "prune") if getattr(self, name)]
        if self.prune and len(said) > 1:
            raise ValueError(f"{said[0]} and prune each say what the student is; leave one of them out")

    @property
    def time_budget_s(self) -> float:
        """``time_budget`` in seconds."""
        return seconds(self.time_budget)
