"""BERT of a third of the layers, taught by the whole one and, beside it, by the labels alone: what a teacher is worth.

Sanh et al. 2019, "DistilBERT, a distilled version of BERT", take every second layer of the teacher to begin with.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.optimization.corpus import LIBRARIES
from benchmarks.optimization.tables import CACHE
from benchmarks.optimization.text import checkpoint, text
from fairway.bundle.format import Bundle, read_bundle
from fairway.optimization.distillation.distill import distill
from fairway.optimization.distillation.settings import DistillationSettings
from fairway.optimization.distillation.students import smaller_transformer
from fairway.sources.huggingface import load_network
from fairway.sources.tables import make_table

LAYERS, EPOCHS, ROWS = 2, 3, 6_000
TAUGHT = DistillationSettings(
    layers=LAYERS,
    epochs=EPOCHS,
    learning_rate=3e-4,
    soft_share=0.9,
    hidden_weight=0.0,
    patience=EPOCHS,
    time_budget="2h",
    rows=ROWS,
)
ALONE = DistillationSettings(
    layers=LAYERS,
    epochs=EPOCHS,
    learning_rate=3e-4,
    soft_share=0.0,
    hidden_weight=0.0,
    patience=EPOCHS,
    time_budget="2h",
    rows=ROWS,
)
"""As many steps on the same rows, from random weights, and no teacher."""


def students(folder: Path = CACHE) -> tuple[Bundle, Bundle]:
    """The one taught by the whole model, and the same one taught by the labels; trained if they are not there."""
    return _student(folder, "text-taught", TAUGHT), _student(folder, "text-alone", ALONE)


def _student(folder: Path, name: str, settings: DistillationSettings) -> Bundle:
    made = folder / f"{name}.fairway"
    if made.is_dir():
        return read_bundle(made)
    import torch

    teacher, (texts, labels), _ = text()
    module, _ = load_network(checkpoint(), "classification")
    torch.manual_seed(0)
    student, _ = smaller_transformer(module, layers=LAYERS)
    if settings is ALONE:
        student = type(student)(student.config)
    table = make_table({"text": texts, "label": [LIBRARIES[i] for i in labels]})
    found = distill(
        teacher, student, table=table, label="label", settings=settings, destination=made, workdir=folder / f"{name}-work",
        progress=_told,
    )  # fmt: skip
    print(f"{name}: {found.as_text()}", flush=True)
    return found.bundle


def _told(step: str, done: int, total: int) -> None:
    if done % 50 == 0:
        print(f"{step}: {done} of {total}", flush=True)


if __name__ == "__main__":
    students()
