"""The training loop: seeded, stopped by held-out rows or by time, and gone on with where it was cut off."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require
from fairway.optimization.distillation.checkpoints import load_checkpoint, save_checkpoint
from fairway.optimization.distillation.hidden import HiddenStates
from fairway.optimization.distillation.lessons import Lesson
from fairway.optimization.distillation.losses import CLASS_AXIS, Loss
from fairway.optimization.distillation.modules import answer_of
from fairway.optimization.distillation.settings import DistillationSettings

_EVALUATED_ROWS = 256
_WARM_UP = 0.05
_LONGEST_STEP = 1.0
"""What the norm of all gradients together is cut to."""


class Epoch(msgspec.Struct, frozen=True):
    """After one pass over the rows: the loss on held-out rows, and the share of them with the teacher's class.

    ``agreement`` is NaN where the teacher gives no classes.
    """

    loss: float
    agreement: float


class Training(msgspec.Struct, frozen=True):
    """How learning went, epoch by epoch; which was best (its weights are the student's), and why it stopped."""

    epochs: tuple[Epoch, ...]
    best: int
    stopped: str


class Trainer:
    """Teaches ``student`` in place.

    Parameters
    ----------
    student : torch.nn.Module
    lesson : Lesson
    loss : Loss
    settings : DistillationSettings
    checkpoint : Path
        Where the state is kept; it belongs to this student, these rows and these settings.
    hidden : HiddenStates, optional
    classes : bool
        Whether answers are scores of classes.
    progress : callable
        Told the step, how much of it is done, and out of how much.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        student: Any,
        lesson: Lesson,
        loss: Loss,
        settings: DistillationSettings,
        *,
        checkpoint: Path,
        hidden: HiddenStates | None,
        classes: bool,
        progress: Callable[[str, int, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        torch: Any = require("torch", extra="torch")
        self._torch, self._student, self._loss, self._settings = torch, student, loss, settings
        self._path, self._hidden, self._classes = checkpoint, hidden, classes
        self._progress, self._clock = progress, clock
        mixed = np.random.default_rng(settings.seed).permutation(lesson.rows)
        held_out = max(1, round(settings.held_out * lesson.rows))
        self._held_out, self._lesson = lesson.part(np.sort(mixed[:held_out])), lesson.part(np.sort(mixed[held_out:]))
        self._per_epoch = max(1, self._lesson.rows // settings.batch_rows)
        self._total = settings.epochs * self._per_epoch
        self._learned = torch.nn.ModuleList([student, *([hidden.projections] if hidden else [])])
        self._optimizer = torch.optim.AdamW(self._learned.parameters(), lr=settings.learning_rate)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, settings.learning_rate, total_steps=self._total, pct_start=_WARM_UP
        )
        self._step, self._judged, self._spent_s = 0, -1, 0.0
        self._epochs: list[Epoch] = []
        self._best: dict[str, Any] = {}

    def run(self) -> Training:
        """Learn until nothing gets better, the epochs are over or the time is spent."""
        with self._torch.random.fork_rng(devices=[]):
            self._torch.manual_seed(self._settings.seed)
            self._resume()
            started = self._clock() - self._spent_s
            while not (stopped := self._reason_to_stop()):
                self._progress("learning", self._step, self._total)
                self._learn(self._batch())
                self._step += 1
                if self._step % self._per_epoch == 0:
                    self._judge()
                self._spent_s = self._clock() - started
                if self._step % self._settings.checkpoint_steps == 0:
                    self._save()
            if self._judged != self._step:
                self._judge()
            self._save()
            self._progress("learning", self._total, self._total)
        self._student.load_state_dict(self._best)
        self._student.eval()
        return Training(tuple(self._epochs), self._best_epoch(), stopped)

    def _reason_to_stop(self) -> str:
        if self._epochs and len(self._epochs) - 1 - self._best_epoch() >= self._settings.patience:
            return f"no better on held-out rows for {self._settings.patience} epochs"
        if self._step >= self._total:
            return f"all {self._settings.epochs} epochs were learned"
        if self._spent_s >= self._settings.time_budget_s:
            return f"the time budget of {self._settings.time_budget} was spent"
        return ""

    def _batch(self) -> Lesson:
        epoch, place = divmod(self._step, self._per_epoch)
        order = np.random.default_rng([self._settings.seed, epoch]).permutation(self._lesson.rows)
        size = self._settings.batch_rows
        return self._lesson.part(order[place * size : (place + 1) * size])

    def _learn(self, batch: Lesson) -> None:
        self._student.train()
        feed = self._tensors(batch)
        loss = self._distance(feed, batch)
        if self._hidden is not None:
            loss = loss + self._settings.hidden_weight * self._hidden.distance(feed)
        self._optimizer.zero_grad()
        loss.backward()
        self._torch.nn.utils.clip_grad_norm_(self._learned.parameters(), _LONGEST_STEP)
        self._optimizer.step()
        self._schedule.step()

    def _distance(self, feed: dict[str, Any], batch: Lesson) -> Any:
        labels = None if batch.labels is None else self._torch.from_numpy(batch.labels)
        return self._loss(answer_of(self._student, feed), self._torch.from_numpy(batch.answers), labels)

    def _tensors(self, batch: Lesson) -> dict[str, Any]:
        return {name: self._torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.feed.items()}

    def _judge(self) -> None:
        """See how well held-out rows are answered; keep the weights if they never were better."""
        found = self._evaluated()
        if not math.isfinite(found.loss):
            raise InvalidConfig(
                f"learning diverged: the loss is {found.loss} after {self._step} steps; lower learning_rate in [distill]"
            )
        self._epochs.append(found)
        self._judged = self._step
        if self._best_epoch() == len(self._epochs) - 1:
            self._best = {name: tensor.detach().clone() for name, tensor in self._student.state_dict().items()}

    def _evaluated(self) -> Epoch:
        self._student.eval()
        losses, same = 0.0, list[Any]()
        with self._torch.no_grad():
            for batch in self._held_out.batches(_EVALUATED_ROWS):
                feed = self._tensors(batch)
                losses += float(self._distance(feed, batch)) * batch.rows
                if self._classes:
                    given = answer_of(self._student, feed).argmax(CLASS_AXIS).numpy()
                    same.append(given == batch.answers.argmax(CLASS_AXIS))
        agreement = float(np.concatenate(same).mean()) if same else float("nan")
        return Epoch(losses / self._held_out.rows, agreement)

    def _best_epoch(self) -> int:
        return min(range(len(self._epochs)), key=lambda i: self._epochs[i].loss)

    def _save(self) -> None:
        state = {
            "learned": self._learned.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "random": self._torch.get_rng_state(),
            "step": self._step,
            "spent_s": self._spent_s,
            "judged": self._judged,
            "epochs": [(epoch.loss, epoch.agreement) for epoch in self._epochs],
            "best": self._best,
        }
        save_checkpoint(self._path, state)

    def _resume(self) -> None:
        state = load_checkpoint(self._path)
        if state is None:
            return
        self._learned.load_state_dict(state["learned"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._torch.set_rng_state(state["random"])
        self._step, self._judged, self._spent_s = state["step"], state["judged"], state["spent_s"]
        self._epochs, self._best = [Epoch(*each) for each in state["epochs"]], state["best"]
