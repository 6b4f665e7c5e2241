"""An exported program in other forms: how torch runs it, searched and gated as graphs are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.gate import Limit
from fairway.core.manifest import EngineSpec
from fairway.core.metrics import Measurement
from fairway.evaluation.settings import EvaluationSettings
from fairway.model import Model
from fairway.optimization.build import build_candidate
from fairway.optimization.forms import Forms
from fairway.optimization.optimize import optimize
from fairway.optimization.passes.base import NothingToDo, Sample
from fairway.optimization.recipes import Recipe, Stage
from fairway.optimization.replay import Reference, StageOutcome, replay
from fairway.optimization.report import Optimization
from fairway.optimization.settings import CANDIDATES, OptimizationSettings
from fairway.optimization.torch_forms import TorchForms
from fairway.sources.convert import convert
from fairway.sources.tables import Table, make_table
from tests.conftest import Digits

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from fairway.sources.torch_bundles import torch_bundle  # noqa: E402 (needs torch)

GATE = {"accuracy_score": Limit(min=0.8, max_drop=0.05)}


def rows(digits: Digits, *, test: bool) -> Table:
    x, y = (digits.x_test, digits.y_test) if test else (digits.x_train, digits.y_train)
    return make_table({"input": x, "digit": y})


@pytest.fixture(scope="module")
def bundle(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A classifier that torch runs, operator by operator, in FP32."""
    folder = tmp_path_factory.mktemp("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    x, y = torch.tensor(digits.x_train), torch.tensor(digits.y_train)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    given: dict[str, Any] = {"name": "digits", "task": "classification", "label": "digit"}
    onnx = convert(network.eval(), destination=folder / "onnx", reference=rows(digits, test=False), **given)
    return torch_bundle(onnx, network, folder / "torch")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with or without a GPU and a compiler."""

    def be(*, gpu: bool, compiler: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr("shutil.which", lambda name: name if compiler else None)

    return be


def names(forms: TorchForms) -> set[str]:
    return {forms.recipe(point).name for point in forms.space.points()}


def test_what_the_machine_lacks_is_not_tried_and_nor_is_what_the_bundle_has_already(machine: Any) -> None:
    plain = TorchForms(OptimizationSettings(), EngineSpec("torch"))
    machine(gpu=False, compiler=False)
    assert names(plain) == {"cpu-eager-bf16"}
    machine(gpu=False, compiler=True)
    compiled = TorchForms(OptimizationSettings(), EngineSpec("torch", options={"mode": "aot", "precision": "bf16"}))
    assert names(compiled) == {
        "cpu-eager-fp32", "cpu-eager-bf16", "cpu-compiled-fp32", "cpu-compiled-bf16", "cpu-aot-fp32",
    }  # fmt: skip
    machine(gpu=True, compiler=False)
    assert names(TorchForms(OptimizationSettings(), EngineSpec("torch"))) == {
        "cpu-eager-bf16", "cuda-eager-bf16", "cuda-eager-fp32", "cuda-eager-fp16",
    }  # fmt: skip


def test_a_program_that_processes_share_is_not_compiled(machine: Any) -> None:
    machine(gpu=False, compiler=True)
    shared = EngineSpec("torch", options={"parallel": "pipeline", "ranks": 2})
    assert names(TorchForms(OptimizationSettings(), shared)) == {"cpu-eager-bf16"}


def test_what_is_tried_first_is_what_the_settings_name_or_all_in_two_precisions(machine: Any) -> None:
    machine(gpu=True, compiler=False)
    assert TorchForms(OptimizationSettings(), EngineSpec("torch")).named == (
        "cuda-eager-bf16", "cpu-eager-bf16", "cuda-eager-fp32",
    )  # fmt: skip
    asked = OptimizationSettings(candidates=("cpu-aot-fp32",))
    assert TorchForms(asked, EngineSpec("torch")).named == ("cpu-aot-fp32",)
    assert Forms(OptimizationSettings(), {}).named == CANDIDATES


def test_every_point_is_known_again_by_its_name_and_by_its_recipe(machine: Any) -> None:
    machine(gpu=True, compiler=True)
    forms = TorchForms(OptimizationSettings(), EngineSpec("torch"))
    for point in forms.space.points():
        recipe = forms.recipe(point)
        assert forms.point(recipe.name) == point
        assert forms.space.holds(point)


@pytest.fixture
def run(bundle: Bundle, digits: Digits, tmp_path: Path) -> Any:
    def call(*candidates: str, **times: float) -> Optimization:
        def measure(form: Bundle) -> list[Measurement]:
            options = form.manifest.engine.options
            value = times.get(f"{options.get('mode', 'eager')}_{options.get('precision', 'fp32')}", 2.0)
            return [Measurement("latency_p50_ms", value, value - 0.1, value + 0.1, n=1000)]

        return optimize(
            bundle,
            table=rows(digits, test=True),
            reference=rows(digits, test=False),
            label="digit",
            gate=GATE,
            workdir=tmp_path / "work",
            measure=measure,
            settings=OptimizationSettings(trials=0, candidates=candidates),
            evaluation=EvaluationSettings(resamples=100),
        )

    return call


def test_a_faster_form_that_keeps_the_gate_is_chosen_and_says_what_made_it(
    run: Any, bundle: Bundle, digits: Digits
) -> None:
    found = run("cpu-eager-bf16", eager_bf16=1.0)
    assert found.winner.name == "cpu-eager-bf16"
    manifest = found.chosen.manifest
    assert manifest.engine.options["precision"] == "bf16"
    assert manifest.files["model.pt2"] == bundle.manifest.files["model.pt2"]  # the program is the same
    (record,) = manifest.recipe
    assert record.name == "torch"
    assert record.before == record.after
    with Model(found.chosen) as model:
        (scores,) = model.infer({"input": digits.x_test}).values()
    assert (scores.argmax(axis=1) == digits.y_test).mean() > 0.8


def test_the_recipe_makes_the_same_bundle_again(run: Any, bundle: Bundle, digits: Digits, tmp_path: Path) -> None:
    found = run("cpu-eager-bf16", eager_bf16=1.0)
    made = next(c for c in found.candidates if c.name == "cpu-eager-bf16")
    again = build_candidate(
        bundle,
        Recipe("again", tuple(Stage(record.name, record.parameters) for record in made.recipe)),
        Sample({"input": digits.x_train[:4]}, 4),
        tmp_path / "again",
    )
    assert again.digest == made.digest


def test_a_replay_is_the_same_and_an_engine_that_was_changed_afterwards_is_told(
    run: Any, bundle: Bundle, tmp_path: Path
) -> None:
    chosen = run("cpu-eager-bf16", eager_bf16=1.0).chosen
    assert replay(chosen, bundle, Reference(), tmp_path / "replay").same
    engine = chosen.manifest.engine
    changed = msgspec.structs.replace(
        chosen.manifest, engine=msgspec.structs.replace(engine, options={**engine.options, "precision": "fp16"})
    )
    files = {name: chosen.file(name) for name in chosen.manifest.files}
    found = replay(write_bundle(tmp_path / "changed", changed, files), bundle, Reference(), tmp_path / "replay")
    assert found.outcome is StageOutcome.DIFFERS
    assert "it was changed afterwards" in found.stages[-1].reason


def test_a_replay_on_a_machine_without_the_device_could_not_be_made(run: Any, bundle: Bundle, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    chosen = run("cpu-eager-bf16", eager_bf16=1.0).chosen
    (record,) = chosen.manifest.recipe
    moved = msgspec.structs.replace(record, parameters={**record.parameters, "device": "cuda"})
    manifest = msgspec.structs.replace(chosen.manifest, recipe=(moved,))
    files = {name: chosen.file(name) for name in chosen.manifest.files}
    found = replay(write_bundle(tmp_path / "moved", manifest, files), bundle, Reference(), tmp_path / "replay")
    assert found.outcome is StageOutcome.NOT_MADE
    assert "finds no such device" in found.stages[-1].reason


def test_what_cannot_run_here_or_is_for_graphs_says_so(run: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    found = run("cuda-eager-bf16", "int8-dynamic", "cpu-eager-bf16")
    reasons = {candidate.name: candidate.reason for candidate in found.candidates}
    assert "finds no such device" in reasons["cuda-eager-bf16"]
    assert "int8-dynamic is for ONNX graphs on ONNX Runtime" in reasons["int8-dynamic"]


def test_a_graph_is_not_run_by_torch(mlp_graph: Path, digits: Digits, tmp_path: Path) -> None:
    from tests.optimization.conftest import bundle_of

    given = bundle_of(tmp_path / "mlp.fairway", mlp_graph, digits.columns)
    with pytest.raises(NothingToDo, match="cpu-aot-bf16 is for exported programs that torch runs"):
        build_candidate(
            given,
            Recipe("cpu-aot-bf16", (Stage("torch", {}),)),
            Sample({"X": digits.x_train[:4]}, 4),
            tmp_path / "made",
        )
