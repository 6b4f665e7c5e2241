"""Distances to a teacher: zero where it is met, and what the papers say elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fairway.core.errors import InvalidConfig
from fairway.core.manifest import Manifest, Prediction
from fairway.optimization.distillation.losses import directions, loss_for, soft_targets

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

logits = arrays(np.float64, (3, 4), elements=st.floats(-8, 8))
temperatures = st.floats(0.5, 10)


def manifest(task: str, kind: Any) -> Manifest:
    return Manifest("m", task, (), (), {}, prediction=Prediction("y", kind))


@given(logits, logits, temperatures)
def test_soft_targets_are_scipys_divergence_times_the_temperature_squared(a: Any, b: Any, temperature: float) -> None:
    from scipy.special import rel_entr, softmax

    found = float(soft_targets(torch.tensor(a), torch.tensor(b), temperature))
    teacher, student = softmax(b / temperature, axis=1), softmax(a / temperature, axis=1)
    wanted = temperature**2 * rel_entr(teacher, student).sum(axis=1).mean()
    assert found == pytest.approx(wanted, abs=1e-9)


@given(logits, temperatures)
def test_a_student_that_answers_alike_has_nothing_to_learn(a: Any, temperature: float) -> None:
    assert float(soft_targets(torch.tensor(a + 3.0), torch.tensor(a), temperature)) == pytest.approx(0, abs=1e-9)


@given(logits)
def test_probabilities_teach_what_their_logits_do(a: Any) -> None:
    student, teacher = torch.tensor(a), torch.tensor(a[::-1].copy())
    from_logits = loss_for(manifest("classification", "logits"), 3.0, 1.0)(student, teacher, None)
    from_shares = loss_for(manifest("classification", "probabilities"), 3.0, 1.0)(student, teacher.softmax(1), None)
    assert float(from_shares) == pytest.approx(float(from_logits), rel=1e-4, abs=1e-9)


@given(logits, st.floats(0.1, 10))
def test_directions_do_not_depend_on_length(a: Any, scale: float) -> None:
    states = torch.tensor(a + np.eye(3, 4) * 20)
    assert float(directions(states * scale, states)) == pytest.approx(0, abs=1e-9)
    assert float(directions(-states, states)) == pytest.approx(4)


def test_padding_does_not_count() -> None:
    given, wanted = torch.ones(1, 2, 3), torch.ones(1, 2, 3)
    given[0, 1] = -1
    assert float(directions(given, wanted, torch.tensor([[1, 0]]))) == pytest.approx(0)
    assert float(directions(given, wanted, torch.tensor([[1, 1]]))) == pytest.approx(2)


def test_numbers_are_learned_by_squares_and_mixed_with_labels() -> None:
    loss = loss_for(manifest("regression", "value"), 1.0, 0.75)
    student, teacher, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [2.0]]), torch.tensor([1.0, 0.0])
    assert float(loss(student, teacher, labels)) == pytest.approx(0.75 * 0.5 + 0.25 * 2.0)


def test_what_answers_alone_do_not_teach_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="cannot be taught generation with text"):
        loss_for(manifest("generation", "text"), 2.0, 0.5)
