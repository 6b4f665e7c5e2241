"""``python -m benchmarks.optimization.distillation``: what a teacher is worth to a student of less than half its cost.

Scikit-learn's digits. Few of them have labels for the students (a tenth); the teacher, who learned from all, answers the rest.
The same student learns from the teacher, and from the labels that there are; all are asked about rows that nobody learned from,
and intervals are of paired differences. Five students of each kind, which differ in their first weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness import Figure, report
from fairway.bundle.format import Bundle
from fairway.model import Model
from fairway.optimization.distillation.distill import distill
from fairway.optimization.distillation.settings import DistillationSettings
from fairway.sources.convert import convert
from fairway.sources.tables import make_table

STUDENTS, TEST_ROWS, RESAMPLES = 5, 600, 2_000
TAUGHT = DistillationSettings(epochs=40, batch_rows=32, learning_rate=5e-3, soft_share=1.0, patience=10)
ALONE = DistillationSettings(epochs=400, batch_rows=32, learning_rate=5e-3, soft_share=0.0, patience=100)
"""As many steps: a tenth of the rows, ten times as often."""


def convolutional(width: int, seed: int) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(8 * width, 10),
    )  # fmt: skip


def learned(x: Any, y: Any) -> Any:
    """The teacher."""
    network = convolutional(24, 0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    draw = np.random.default_rng(0)
    for _ in range(500):
        rows = draw.integers(0, len(x), 64)
        loss: Any = nn.functional.cross_entropy(network(torch.from_numpy(x[rows])), torch.from_numpy(y[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def main() -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    torch.set_num_threads(1)
    x, y = load_digits(return_X_y=True)
    images = (x / 16).reshape(-1, 1, 8, 8).astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(images, y, test_size=TEST_ROWS, random_state=0, stratify=y)
    few = np.sort(np.random.default_rng(0).permutation(len(x_train))[: len(x_train) // 10])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = make_table({"input": x_train, "digit": y_train})
        module = learned(x_train, y_train)
        options: dict[str, Any] = {"name": "digits", "task": "classification", "reference": whole, "label": "digit"}
        teacher = convert(module, destination=folder / "teacher", **options)

        def students(table: Any, settings: DistillationSettings, kind: str) -> list[Any]:
            found = []
            for seed in range(STUDENTS):
                made = distill(
                    teacher,
                    convolutional(8, seed),
                    table=table,
                    label="digit",
                    settings=settings,
                    destination=folder / f"{kind}-{seed}",
                    workdir=folder / "work",
                )
                found.append(right(made.bundle, x_test, y_test))
            return found

        taught = np.array(students(whole, TAUGHT, "taught"))
        alone = np.array(students(make_table({"input": x_train[few], "digit": y_train[few]}), ALONE, "alone"))
        master = right(teacher, x_test, y_test)
    cost = multiplications(convolutional(8, 0)) / multiplications(module)
    figures = [
        Figure("student's multiplications", round(cost, 3), "x the teacher's", 0.0, "<= 0.5", cost <= 0.5),
        Figure("teacher", round(100 * float(master.mean()), 2), "% right", 0.0),
        difference("taught student - teacher", taught - master, ">= -1"),
        difference("taught student - the same from labels alone", taught - alone, ">= 0"),
    ]
    report("distillation", figures, ["fairway", "torch", "onnxruntime", "scikit-learn"])


def right(bundle: Bundle, x: Any, y: Any) -> Any:
    """Which rows a model answers right, as 0 and 1."""
    with Model(bundle) as model:
        (answer,) = model.infer({model.inputs[0].name: x}).values()
    return (answer.argmax(axis=1) == y).astype(np.float64)


def difference(name: str, rows: Any, target: str) -> Figure:
    """In points; the spread is half the 95 % interval over resampled rows and students, and it must lie within the target."""
    draw = np.random.default_rng(0)
    students, count = rows.shape
    drawn = [
        rows[np.ix_(draw.integers(0, students, students), draw.integers(0, count, count))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = (100 * float(bound) for bound in np.quantile(drawn, (0.025, 0.975)))
    holds = low >= float(target.removeprefix(">= "))
    return Figure(
        f"{name} [{low:.2f}, {high:.2f}]",
        round(100 * float(rows.mean()), 2),
        "points",
        round((high - low) / 2, 2),
        target,
        holds,
    )


def multiplications(module: Any) -> int:
    """Of one image."""
    counted = 0

    def count(layer: Any, _given: Any, made: Any) -> None:
        nonlocal counted
        counted += layer.weight[0].numel() * made[0].numel()

    hooks = [layer.register_forward_hook(count) for layer in module if hasattr(layer, "weight")]
    with torch.no_grad():
        module(torch.zeros(1, 1, 8, 8))
    for hook in hooks:
        hook.remove()
    return counted


if __name__ == "__main__":
    main()
