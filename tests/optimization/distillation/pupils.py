"""A teacher and students small enough for tests, and a run that can be killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairway.bundle.format import Bundle, read_bundle
from fairway.core.extras import require
from fairway.optimization.distillation.distill import Distilled, distill
from fairway.optimization.distillation.settings import DistillationSettings
from fairway.sources.tables import Table, make_table

SETTINGS = DistillationSettings(epochs=6, batch_rows=32, learning_rate=5e-3, checkpoint_steps=7)


def network(width: int, *, dropout: float = 0.0, seed: int = 0) -> Any:
    """A classifier of digits with two hidden layers."""
    torch: Any = require("torch", extra="torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Dropout(dropout),
            torch.nn.Linear(width, width), torch.nn.ReLU(),
            torch.nn.Linear(width, 10),
        )  # fmt: skip


def table_of(x: Any, y: Any) -> Table:
    return make_table({"X": x, "digit": y})


def teach(
    teacher: Bundle,
    rows: Table,
    folder: Path,
    student: Any,
    settings: DistillationSettings = SETTINGS,
    **options: Any,
) -> Distilled:
    """Distill in ``folder``."""
    return distill(
        teacher,
        student,
        table=rows,
        label="digit",
        destination=folder / "student.fairway",
        workdir=folder / "work",
        settings=settings,
        **options,
    )


def learn(teacher: str, x: Any, y: Any, folder: str, step: Callable[[], None]) -> None:
    """What is killed: one ``step`` for each batch that was learned."""

    def told(text: str, _done: int, _total: int) -> None:
        if text == "learning":
            step()

    require("torch", extra="torch").set_num_threads(1)
    teach(read_bundle(teacher), table_of(x, y), Path(folder), network(16, dropout=0.1), progress=told)
