"""A student learns its teacher's answers, whatever the teacher runs on, and the same ones after a ``kill -9``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidConfig, InvalidData
from fairway.core.tensors import Datatype, Tensors, TensorSpec
from fairway.model import Model
from fairway.optimization.distillation.hidden import HiddenStates
from fairway.optimization.distillation.lessons import make_lesson
from fairway.optimization.distillation.losses import directions
from fairway.optimization.distillation.settings import DistillationSettings
from fairway.sources.tables import Table
from tests.conftest import Digits
from tests.killing import fork_server, kill_in_the_middle
from tests.optimization.conftest import bundle_of
from tests.optimization.distillation.pupils import SETTINGS, learn, network, table_of, teach

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


@pytest.fixture
def teacher(mlp_graph: Path, tmp_path: Path) -> Bundle:
    """A scikit-learn network as an ONNX graph: torch has never seen it."""
    return bundle_of(tmp_path / "teacher.fairway", mlp_graph)


@pytest.fixture
def rows(digits: Digits) -> Table:
    return table_of(digits.x_train, digits.y_train)


def answers(bundle: Bundle, x: Any) -> Any:
    with Model(bundle) as model:
        return model.infer({model.inputs[0].name: x})["probabilities"]


def test_a_student_of_any_bundle_answers_like_it(teacher: Bundle, rows: Table, digits: Digits, tmp_path: Path) -> None:
    student = network(24)
    before = torch.get_rng_state()
    made = teach(teacher, rows, tmp_path, student)
    given, wanted = (answers(bundle, digits.x_test) for bundle in (made.bundle, teacher))
    np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-5)
    assert np.mean(given.argmax(axis=1) == wanted.argmax(axis=1)) > 0.93
    assert np.mean(given.argmax(axis=1) == digits.y_test) > 0.92
    with torch.no_grad():
        np.testing.assert_allclose(
            given, student(torch.from_numpy(digits.x_test)).softmax(1).numpy(), rtol=1e-3, atol=1e-5
        )
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's random numbers were used up


@pytest.mark.parametrize(("batching", "calls"), [(False, [1] * 20), (True, [64])])
def test_a_teacher_whose_rows_depend_on_each_other_is_asked_about_one_at_a_time(
    batching: bool, calls: list[int], teacher: Bundle, digits: Digits
) -> None:
    asked: list[int] = []

    class Teacher(Model):
        def infer(self, feed: Tensors, *, raw: bool = False) -> Tensors:
            asked.append(len(next(iter(feed.values()))))
            return super().infer(feed, raw=raw)

    engine = msgspec.structs.replace(teacher.manifest.engine, batching=batching)
    manifest = msgspec.structs.replace(teacher.manifest, engine=engine)
    with Teacher(Bundle(teacher.path, manifest)) as model:
        table = table_of(digits.x_train[:20], digits.y_train[:20])
        lesson = make_lesson(model, table, "digit", SETTINGS, lambda *_: None)
    assert asked == calls
    assert lesson.rows == 20


def test_the_bundle_takes_what_the_teacher_takes_and_says_where_it_comes_from(
    teacher: Bundle, rows: Table, tmp_path: Path
) -> None:
    made = teach(teacher, rows, tmp_path, network(8), msgspec.structs.replace(SETTINGS, epochs=1))
    manifest = made.bundle.manifest
    assert manifest.inputs == teacher.manifest.inputs
    assert manifest.outputs == (TensorSpec("probabilities", Datatype.FP32, (-1, 10)),)
    assert manifest.labels == teacher.manifest.labels
    assert manifest.lineage.parent == teacher.digest
    assert manifest.lineage.data_digests["train"] == rows.digest
    assert manifest.lineage.hyperparameters["distillation"]["settings"]["epochs"] == 1
    assert "1 of 1 epochs" in made.as_text()


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_student(
    teacher: Bundle, rows: Table, digits: Digits, tmp_path: Path
) -> None:
    whole = teach(teacher, rows, tmp_path / "whole", network(16, dropout=0.1))
    cut, random = tmp_path / "cut", np.random.default_rng(0)
    cut.mkdir()
    given = (str(teacher.path), digits.x_train, digits.y_train, str(cut))
    for _ in range(2):
        kill_in_the_middle(fork_server(), learn, given, random, steps=40, delay_s=0.02)
    assert list((cut / "work").glob("*.checkpoint"))
    resumed = teach(teacher, rows, cut, network(16, dropout=0.1))
    assert resumed.training == whole.training
    assert resumed.bundle.digest == whole.bundle.digest


def test_a_finished_run_is_not_learned_again(teacher: Bundle, rows: Table, tmp_path: Path) -> None:
    first = teach(teacher, rows, tmp_path, network(8))
    told: list[str] = []
    again = teach(teacher, rows, tmp_path, network(8), progress=lambda text, done, total: told.append(f"{text} {done}"))
    assert again.bundle.digest == first.bundle.digest
    assert sum(line.startswith("learning") for line in told) == 1


def test_a_student_that_begins_elsewhere_is_another(teacher: Bundle, rows: Table, tmp_path: Path) -> None:
    short = msgspec.structs.replace(SETTINGS, epochs=1)
    first = teach(teacher, rows, tmp_path, network(8), short)
    (tmp_path / "student.fairway").rename(tmp_path / "first.fairway")
    assert teach(teacher, rows, tmp_path, network(8, seed=1), short).bundle.digest != first.bundle.digest


def test_learning_stops_when_held_out_rows_gain_nothing(teacher: Bundle, rows: Table, tmp_path: Path) -> None:
    settings = DistillationSettings(epochs=60, batch_rows=16, learning_rate=3e-2, patience=2, rows=300)
    made = teach(teacher, rows, tmp_path, network(32), settings)
    losses = [epoch.loss for epoch in made.training.epochs]
    assert len(losses) < 60
    assert losses[made.training.best] == min(losses)
    assert "no better" in made.training.stopped


def test_learning_stops_when_the_time_is_spent_and_goes_on_with_more(
    teacher: Bundle, rows: Table, tmp_path: Path
) -> None:
    short = teach(teacher, rows, tmp_path, network(8), msgspec.structs.replace(SETTINGS, time_budget="1ms"))
    assert "time budget" in short.training.stopped
    (tmp_path / "student.fairway").rename(tmp_path / "short.fairway")
    long = teach(teacher, rows, tmp_path, network(8))
    assert len(long.training.epochs) == len(short.training.epochs) + SETTINGS.epochs
    assert long.training.epochs[: len(short.training.epochs)] == short.training.epochs


def test_without_labels_the_teacher_is_enough(teacher: Bundle, digits: Digits, tmp_path: Path) -> None:
    from fairway.sources.tables import make_table

    rows = make_table({"X": digits.x_train})
    made = teach(teacher, rows, tmp_path, network(24), msgspec.structs.replace(SETTINGS, soft_share=1.0))
    assert np.mean(answers(made.bundle, digits.x_test).argmax(axis=1) == digits.y_test) > 0.9


def test_hidden_states_become_like_the_teachers(teacher: Bundle, rows: Table, digits: Digits, tmp_path: Path) -> None:
    large, student = network(16, seed=3), network(16)
    x = torch.from_numpy(digits.x_test)

    def distance() -> float:
        with torch.no_grad():
            return float(directions(student[:2](x), large[:2](x)))

    before = distance()
    settings = msgspec.structs.replace(SETTINGS, hidden={"1": "1"})
    teach(teacher, rows, tmp_path, student, settings, teacher_module=large)
    assert distance() < before / 2
    assert not any(module._forward_hooks for module in (*student.modules(), *large.modules()))


def test_hidden_states_of_another_width_are_reached_through_a_projection() -> None:
    x = {"x": torch.randn(64, 64)}
    student, large = network(8), network(24, seed=3)
    states = HiddenStates(student, large, {"1": "1", "4": "4"}, x)
    optimizer = torch.optim.Adam([*student.parameters(), *states.projections.parameters()], lr=1e-2)
    found = []
    for _ in range(60):
        student(x["x"])
        loss = states.distance(x)
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert found[-1] < found[0] / 2
    assert not any(parameter.grad is not None for parameter in large.parameters())


def test_hidden_states_are_told_by_name(teacher: Bundle, rows: Table, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, hidden={"first": "1"})
    with pytest.raises(InvalidConfig, match="this teacher is a graph alone"):
        teach(teacher, rows, tmp_path, network(8), settings)
    with pytest.raises(InvalidConfig, match="the student has no submodule 'first'; it has: 0, 1, 2, 3, 4, 5"):
        teach(teacher, rows, tmp_path, network(8), settings, teacher_module=network(8))


def test_a_submodule_that_is_never_called_has_no_hidden_state(teacher: Bundle, rows: Table, tmp_path: Path) -> None:
    class Idle(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = network(8), torch.nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            return self.used(x)

    settings = msgspec.structs.replace(SETTINGS, hidden={"idle": "1"})
    with pytest.raises(InvalidConfig, match="the student does not call its submodule 'idle'"):
        teach(teacher, rows, tmp_path, Idle(), settings, teacher_module=network(16))


def test_a_student_that_cannot_answer_is_refused_before_it_learns(teacher: Bundle, rows: Table, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"answers two rows with shape \[2, 3\], its teacher with \[2, 10\]"):
        teach(teacher, rows, tmp_path, torch.nn.Linear(64, 3))
    with pytest.raises(InvalidConfig, match=r"cannot answer what the teacher's graph takes \(X \[64\]\)"):
        teach(teacher, rows, tmp_path, torch.nn.Linear(63, 10))
    with pytest.raises(InvalidData, match="has 4 rows"):
        teach(teacher, rows.select(slice(4)), tmp_path, network(8))


def test_learning_that_diverges_says_so(teacher: Bundle, rows: Table, tmp_path: Path) -> None:
    student = network(8)
    with torch.no_grad():
        student[0].weight.fill_(float("nan"))
    with pytest.raises(InvalidConfig, match="learning diverged"):
        teach(teacher, rows, tmp_path, student)
