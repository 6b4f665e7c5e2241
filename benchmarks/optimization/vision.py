"""A residual network for scikit-learn's digits, enlarged to 32 x 32, trained here in a few minutes.

He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition", CVPR, sec. 4.2: 20 layers, here twice as wide.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.optimization.tables import CACHE
from fairway.bundle.format import Bundle, read_bundle
from fairway.sources.convert import convert
from fairway.sources.tables import make_table

SIDE, STEPS, BATCH = 32, 160, 64


def digits() -> tuple[Any, Any, Any, Any]:
    """Training and test images, FP32 ``[rows, 1, 32, 32]`` of 0 to 1, and their classes."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    images = np.kron((x / 16).reshape(-1, 1, 8, 8), np.ones((SIDE // 8, SIDE // 8))).astype(np.float32)
    return tuple(train_test_split(images, y, test_size=600, random_state=0, stratify=y))


def vision(folder: Path = CACHE / "vision") -> Bundle:
    """The bundle, trained if it is not there."""
    made = folder / "vision.fairway"
    if not made.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        x_train, _, y_train, _ = digits()
        network = _train(x_train, y_train)
        reference = make_table({"x": x_train, "digit": y_train})
        names = tuple(map(str, range(10)))
        return convert(
            network,
            destination=made,
            name="vision",
            task="classification",
            reference=reference,
            label="digit",
            labels=names,
        )
    return read_bundle(made)


def _train(x: Any, y: Any) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self, inside: int, outside: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(),
                nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside),
            )  # fmt: skip
            same = inside == outside and stride == 1
            self.short = nn.Identity() if same else nn.Conv2d(inside, outside, 1, stride, bias=False)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.body(x) + self.short(x))

    widths = ((32, 32, 1),) * 3 + ((32, 64, 2),) + ((64, 64, 1),) * 2 + ((64, 128, 2),) + ((128, 128, 1),) * 2
    blocks = [Block(*each) for each in widths]
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=STEPS)
    draw = np.random.default_rng(0)
    for _ in range(STEPS):
        rows = draw.integers(0, len(x), BATCH)
        shifted = np.roll(x[rows], tuple(draw.integers(-3, 4, 2)), axis=(2, 3))
        loss: Any = nn.functional.cross_entropy(network(torch.from_numpy(shifted)), torch.from_numpy(y[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()
