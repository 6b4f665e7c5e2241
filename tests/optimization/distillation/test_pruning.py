"""A torch module without its least channels: smaller, of the same answers' shape, and taught again as good as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairway.core.errors import InvalidConfig

torch: Any = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")
pytestmark = pytest.mark.torch

from fairway.optimization.distillation.pruning import pruned_module  # noqa: E402 (needs torch)

nn: Any = torch.nn
ROWS = {"x": np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)}


class Branched(nn.Module):  # type: ignore[misc] # torch is untyped here
    """A sum and a concatenation, whose layers must lose the same channels."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.second, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.classes = nn.Linear(2 * channels, 10)

    def forward(self, x: Any) -> Any:
        begun = torch.relu(self.first(x))
        added = begun + self.norm(self.second(begun))
        return self.classes(torch.cat([begun, added], 1).mean((2, 3)))


class Rigid(nn.Module):  # type: ignore[misc] # torch is untyped here
    """Counts on its own width."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x.flatten(1)).reshape(-1, 32))


def test_layers_that_meet_lose_the_same_channels_and_the_answer_keeps_its_shape() -> None:
    teacher = Branched()
    student = pruned_module(teacher, ROWS, 0.5)
    assert student.first.out_channels == student.second.out_channels == student.norm.num_features == 16
    assert student.classes.in_features == 32
    assert student(torch.as_tensor(ROWS["x"])).shape == (4, 10)
    assert teacher.first.out_channels == 32  # it is left as it was


def test_what_weighs_nothing_goes_first_so_that_nothing_is_lost() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    with torch.no_grad():
        teacher[1].weight[1::2] = 0
        teacher[1].bias[1::2] = 0
        teacher[3].weight[:, 1::2] = 0
    student = pruned_module(teacher, ROWS, 0.5)
    assert student[1].out_features == 16
    rows = torch.as_tensor(ROWS["x"])
    assert torch.allclose(student(rows), teacher(rows), atol=1e-6)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "nothing of Sequential can be left out"),
        (Rigid(), "can be left out|answers with shape"),
    ],
    ids=["too narrow", "of a width written into it"],
)
def test_what_cannot_be_pruned_says_what_to_do(module: Any, why: str) -> None:
    with pytest.raises(InvalidConfig, match=f'({why})(.|\n)*student = "module:callable"'):
        pruned_module(module, ROWS, 0.5)
