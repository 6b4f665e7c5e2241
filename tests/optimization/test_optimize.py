"""The whole search: candidates are made, evaluated, measured in turn, and one is chosen under the gate."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import fairway.optimization.optimize as search
from fairway.bundle.format import Bundle, read_bundle, write_bundle
from fairway.core.errors import Conflict, FairwayError, InferenceFailed, InvalidConfig, InvalidData
from fairway.core.gate import Gate, Limit, Outcome, judge
from fairway.core.manifest import Manifest, Prediction, Processing, Step
from fairway.core.metrics import Measurement
from fairway.core.tensors import Datatype, TensorSpec
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.model import Model
from fairway.optimization import explore, scoring
from fairway.optimization.build import build_candidate
from fairway.optimization.files import exclusive
from fairway.optimization.optimize import optimize
from fairway.optimization.passes.base import NothingToDo, Sample
from fairway.optimization.probe import cost_ratio
from fairway.optimization.recipes import Recipe, Stage
from fairway.optimization.report import Findings, Optimization, Status
from fairway.optimization.settings import CANDIDATES, OptimizationSettings
from fairway.sources.tables import Table, make_table
from tests.conftest import Digits
from tests.optimization.conftest import Convert, bundle_of

GATE = {"accuracy_score": Limit(min=0.9, max_drop=0.02), "latency_p50_ms": Limit(max=10)}
FAST = EvaluationSettings(resamples=100)


def asked_for(**changes: Any) -> OptimizationSettings:
    """Only the candidates that are named."""
    return OptimizationSettings(trials=0, **changes)


class Stopwatch:
    """Measures as told: milliseconds by candidate, a little slower every time."""

    def __init__(self, **latencies: float) -> None:
        self.latencies = latencies
        self.calls: list[str] = []

    def __call__(self, bundle: Bundle) -> list[Measurement]:
        name = next((n for n in CANDIDATES if bundle.path.name.startswith(n)), "original")
        self.calls.append(name)
        value = self.latencies.get(name.replace("-", "_"), 2.0) + len(self.calls) * 1e-3
        return [
            Measurement("latency_p50_ms", value, value - 0.1, value + 0.1, n=1000),
            Measurement("memory_mb", 50.0, 49.0, 51.0, n=3),
            Measurement.exact("size_mb", bundle.size_bytes / 1e6),
        ]


class Clock:
    """Moves on by one second at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(scope="module")
def tables(digits: Digits) -> tuple[Table, Table]:
    def table(x: Any, y: Any) -> Table:
        return make_table({**dict(zip(digits.columns, x.T, strict=True)), "digit": y})

    return table(digits.x_test, digits.y_test), table(digits.x_train, digits.y_train)


@pytest.fixture
def mlp_bundle(mlp_graph: Path, digits: Digits, tmp_path: Path) -> Bundle:
    files = {"samples.npz": b"rows", "evaluation.json": b"{}", "baseline.json": b"{}"}
    return bundle_of(tmp_path / "mlp.fairway", mlp_graph, digits.columns, **files)


Run = Callable[..., Optimization]


@pytest.fixture
def run(tables: tuple[Table, Table], tmp_path: Path) -> Run:
    def call(bundle: Bundle, measure: Any = None, **changes: Any) -> Optimization:
        test, reference = tables
        settings = changes.pop("settings", asked_for())
        given: dict[str, Any] = {"gate": GATE, "workdir": tmp_path / "work", "evaluation": FAST, "label": "digit"}
        given |= {"table": test, "reference": reference, "settings": settings, "measure": measure or Stopwatch()}
        return optimize(bundle, **{**given, **changes})

    return call


def statuses(found: Optimization) -> dict[str, str]:
    return {c.name: c.status.value for c in found.candidates}


# --- choosing -----------------------------------------------------------------------------------------------------


def test_the_fastest_that_passes_is_chosen_and_is_a_whole_bundle(run: Run, mlp_bundle: Bundle, digits: Digits) -> None:
    found = run(mlp_bundle, Stopwatch(graph=1.5, int8_dynamic=1.0))
    assert statuses(found) == {
        "original": "passed",
        "graph": "passed",
        "int8-dynamic": "chosen",
        "int8-static": "passed",
        "int8-percentile": "passed",
    }
    chosen = read_bundle(found.chosen.path)
    manifest = chosen.manifest
    assert [r.name for r in manifest.recipe] == ["graph", "int8-dynamic"]
    assert manifest.lineage.parent == mlp_bundle.digest
    assert set(manifest.files) == {"model.onnx", "samples.npz"}  # what told of the other graph is left behind
    assert manifest.engine.cost is not None
    assert manifest.engine.cost.of(64) > 0
    assert not manifest.engine.batching  # it scales over a call's rows, so callers must not share one
    tuning = msgspec.structs.replace(manifest.engine, cost=None, batching=True)
    assert tuning == mlp_bundle.manifest.engine
    assert found.passed
    with Model(chosen) as model:
        answer = model.infer({"X": digits.x_test})["probabilities"]
    assert np.mean(answer.argmax(axis=1) == digits.y_test) > 0.95


def test_where_nothing_is_faster_the_original_is_kept(run: Run, mlp_bundle: Bundle) -> None:
    found = run(mlp_bundle)
    assert found.kept_original
    assert "nothing pays" in found.reason
    assert found.chosen.manifest.recipe == ()
    assert found.chosen.manifest.files == mlp_bundle.manifest.files
    assert found.chosen.manifest.engine.cost is not None


def test_of_several_loads_the_largest_decides(run: Run, mlp_bundle: Bundle) -> None:
    light, heavy = Stopwatch(graph=1.0), Stopwatch(int8_dynamic=1.0)

    def both(bundle: Bundle) -> list[Measurement]:
        return [
            msgspec.structs.replace(m, at_rps=rps) for at, rps in ((light, 50.0), (heavy, 400.0)) for m in at(bundle)
        ]

    found = run(mlp_bundle, both)
    assert found.winner.name == "int8-dynamic"
    shown = found.winner.measurement("latency_p50_ms")
    assert shown is not None
    assert (shown.at_rps, shown.value < 1.5) == (400.0, True), "the report shows what decided"


def test_quality_is_compared_on_the_same_rows(run: Run, mlp_bundle: Bundle) -> None:
    found = run(mlp_bundle, Stopwatch(int8_static=1.0))
    original, graph, *int8 = found.candidates
    change = graph.measurement("accuracy_score", versus="original")
    assert change is not None
    assert change.value == 0.0
    assert change.low >= -0.02
    for candidate in int8:
        change = candidate.measurement("accuracy_score", versus="original")
        assert change is not None
        assert change.low >= -0.02
    itself = original.measurement("accuracy_score", versus="original")
    assert itself is not None
    assert itself.value == 0.0


def test_a_candidate_that_quality_refuses_is_not_measured(run: Run, mlp_bundle: Bundle) -> None:
    measure = Stopwatch(int8_dynamic=1.0)
    found = run(mlp_bundle, measure, gate={"log_loss": Limit(max_rise=0.0), "accuracy_score": Limit(min=0.9)})
    refused = [c for c in found.candidates if c.status is Status.REFUSED and c.verdict.outcome is Outcome.FAILED]  # type: ignore[union-attr]
    for candidate in refused:
        assert candidate.name not in measure.calls
        assert "log_loss" in candidate.reason


def test_a_faster_candidate_that_breaks_the_gate_loses(run: Run, mlp_bundle: Bundle) -> None:
    gate = {"accuracy_score": Limit(min=0.9), "size_mb": Limit(min=0.03)}  # a strange gate that refuses what is small
    found = run(mlp_bundle, Stopwatch(int8_dynamic=1.0, graph=1.5), gate=gate)
    assert found.winner.name == "graph"
    dynamic = next(c for c in found.candidates if c.name == "int8-dynamic")
    assert dynamic.status is Status.REFUSED
    assert "size_mb" in dynamic.reason


def test_where_only_a_candidate_passes_it_is_taken(run: Run, mlp_bundle: Bundle) -> None:
    gate = {"latency_p50_ms": Limit(max=1.5)}
    found = run(mlp_bundle, Stopwatch(int8_static=1.0), gate=gate)
    assert found.winner.name == "int8-static"
    assert "the original does not pass" in found.reason


@pytest.mark.parametrize(
    ("gate", "outcome"),
    [
        ({"accuracy_score": Limit(min=0.999)}, Outcome.FAILED),
        ({"accuracy_score": Limit(min=0.975)}, Outcome.INCONCLUSIVE),
        ({}, Outcome.INCONCLUSIVE),
    ],
)
def test_where_nothing_passes_the_original_is_kept_and_the_verdict_says_why(
    gate: Gate, outcome: Outcome, run: Run, mlp_bundle: Bundle
) -> None:
    found = run(mlp_bundle, Stopwatch(int8_static=1.0), gate=gate)
    assert found.kept_original
    assert not found.passed
    assert found.verdict.outcome is outcome
    assert "neither does the original" in found.reason


def test_slices_count(run: Run, mlp_bundle: Bundle) -> None:
    gate = {"accuracy_score": Limit(slice_min=0.5)}
    found = run(mlp_bundle, gate=gate, slices=[SliceSettings("dark", "pixel_0_2 < 0.5")])
    assert found.passed
    assert {m.slice for m in found.winner.measurements if m.metric == "accuracy_score"} == {"", "dark"}


def test_where_all_forms_are_refused_the_reason_says_how_many_and_what_to_do(run: Run, mlp_bundle: Bundle) -> None:
    gate = {"accuracy_score": Limit(min=0.9), "log_loss": Limit(max_rise=0.0)}
    settings = asked_for(candidates=("int8-dynamic", "int8-percentile"))
    found = run(mlp_bundle, gate=gate, settings=settings)
    assert found.kept_original
    assert "no candidate passes the gate: 2 refused; loosen the limits" in found.reason


# --- what cannot be made ------------------------------------------------------------------------------------------


def test_trees_have_nothing_to_do(
    run: Run, digits: Digits, convert: Convert, tables: tuple[Table, Table], tmp_path: Path
) -> None:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(20, random_state=0).fit(digits.x_train, digits.y_train)
    graph = convert(tmp_path / "forest" / "model.onnx", forest, digits.x_train)
    measure = Stopwatch()
    found = run(bundle_of(tmp_path / "forest.fairway", graph, digits.columns), measure)
    assert set(statuses(found).values()) == {"chosen", "nothing to do"}
    assert found.passed
    assert "no other form" in found.reason
    assert set(measure.calls) == {"original"}


def test_a_linear_model_of_scikit_learns_can_be_quantized(
    run: Run, linear_graph: Path, digits: Digits, tmp_path: Path
) -> None:
    bundle = bundle_of(tmp_path / "linear.fairway", linear_graph, digits.columns)
    found = run(bundle, Stopwatch(int8_static=1.0))
    assert [r.name for r in found.chosen.manifest.recipe] == ["lower", "graph", "int8-static"]
    accuracy = found.winner.measurement("accuracy_score")
    assert accuracy is not None
    assert accuracy.value == pytest.approx(digits.model.score(digits.x_test, digits.y_test), abs=0.005)


def building_raises(name: str, error: Exception) -> Callable[..., Bundle]:
    """As ``build_candidate``, but for one recipe."""

    def build(source: Bundle, recipe: Any, *rest: Any) -> Bundle:
        if recipe.name == name:
            raise error
        return build_candidate(source, recipe, *rest)

    return build


def test_a_pass_that_raises_takes_nothing_else_down(
    run: Run, mlp_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = building_raises("int8-static", ValueError("The truth value\n of an array is ambiguous"))
    monkeypatch.setattr(explore, "build_candidate", broken)
    found = run(mlp_bundle, Stopwatch(int8_dynamic=1.0))
    failed = next(c for c in found.candidates if c.name == "int8-static")
    assert failed.status is Status.FAILED
    assert failed.reason == "ValueError: The truth value of an array is ambiguous"
    assert found.winner.name == "int8-dynamic"


def test_a_form_that_is_made_and_cannot_answer_takes_nothing_else_down(
    run: Run, mlp_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cost_ratio

    def broken(candidate: Bundle, *rest: Any) -> float:
        if candidate.path.name.startswith("int8-static"):
            raise RuntimeError("no kernel for this operator")
        return real(candidate, *rest)

    monkeypatch.setattr(explore, "cost_ratio", broken)
    found = run(mlp_bundle, Stopwatch(int8_dynamic=1.0))
    failed = next(c for c in found.candidates if c.name == "int8-static")
    assert (failed.status, failed.reason) == (Status.FAILED, "RuntimeError: no kernel for this operator")
    assert found.winner.name == "int8-dynamic"


def test_a_full_disk_ends_the_search_and_is_not_remembered_as_the_forms_fault(
    run: Run, mlp_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = building_raises("int8-dynamic", OSError(errno.ENOSPC, "No space left on device"))
    with monkeypatch.context() as patched:
        patched.setattr(explore, "build_candidate", full)
        with pytest.raises(OSError, match="No space left"):
            run(mlp_bundle, Stopwatch(int8_dynamic=1.0))
    assert run(mlp_bundle, Stopwatch(int8_dynamic=1.0)).winner.name == "int8-dynamic"


def test_what_another_version_of_a_library_made_is_not_gone_on_with(
    run: Run, mlp_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(mlp_bundle)
    monkeypatch.setattr("fairway.optimization.optimize.library_versions", lambda _: {"nncf": "99"})
    run(mlp_bundle)
    assert len(list((tmp_path / "work").glob("journal-*.jsonl"))) == 2


@pytest.mark.parametrize(("value", "expected"), [(0.95, 0.0), (0.93, 0.0), (0.90, 2.0), (0.87, 3.0)])
def test_where_the_original_breaks_a_limit_keeping_it_is_no_harm(value: float, expected: float) -> None:
    found = Measurement("accuracy_score", value, value, value, n=100)
    original = (Measurement("accuracy_score", 0.90, 0.90, 0.90, n=100),)
    findings = judge({"accuracy_score": Limit(min=0.93)}, [found]).findings
    assert explore.harm(findings, original) == pytest.approx(expected)


def test_a_candidate_that_cannot_be_served_drops_out(run: Run, mlp_bundle: Bundle) -> None:
    stopwatch = Stopwatch(int8_dynamic=1.0)

    def measure(bundle: Bundle) -> list[Measurement]:
        if bundle.path.name.startswith("int8-dynamic"):
            raise InferenceFailed("the server died")
        return stopwatch(bundle)

    found = run(mlp_bundle, measure)
    assert statuses(found)["int8-dynamic"] == "could not be made"
    assert found.kept_original


def test_an_original_that_cannot_be_served_is_an_error(run: Run, mlp_bundle: Bundle) -> None:
    def measure(bundle: Bundle) -> list[Measurement]:
        raise InferenceFailed("the server died")

    with pytest.raises(FairwayError, match="died"):
        run(mlp_bundle, measure)


def test_a_bundle_of_another_engine_has_nothing_to_do(mlp_bundle: Bundle, tmp_path: Path) -> None:
    engine = msgspec.structs.replace(mlp_bundle.manifest.engine, name="torch")
    other = Bundle(mlp_bundle.path, msgspec.structs.replace(mlp_bundle.manifest, engine=engine))
    with pytest.raises(NothingToDo, match="torch"):
        build_candidate(other, Recipe("graph", (Stage("graph"),)), Sample({}, 0), tmp_path / "out")


# --- bad input ----------------------------------------------------------------------------------------------------


def test_reference_rows_that_do_not_fit_are_refused(run: Run, mlp_bundle: Bundle) -> None:
    with pytest.raises(InvalidData):
        run(mlp_bundle, reference=make_table({"other": np.zeros(3)}))


def test_a_malformed_gate_is_refused(run: Run, mlp_bundle: Bundle) -> None:
    with pytest.raises(InvalidConfig, match="accuracy_score"):
        run(mlp_bundle, gate={"accuracy": Limit(min=0.9)})


# --- rounds and budget --------------------------------------------------------------------------------------------


def test_rounds_are_interleaved_in_changing_order(run: Run, mlp_bundle: Bundle) -> None:
    measure = Stopwatch()
    found = run(mlp_bundle, measure)
    assert found.findings.rounds == 5
    rounds = [measure.calls[start : start + 5] for start in range(0, 25, 5)]
    assert all(sorted(each) == sorted(rounds[0]) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1


def test_past_the_budget_nothing_new_is_started(run: Run, mlp_bundle: Bundle) -> None:
    measure = Stopwatch(graph=1.0)
    settings = asked_for(time_budget="2s")
    found = run(mlp_bundle, measure, clock=Clock(), settings=settings)
    assert statuses(found)["int8-percentile"] == "not tried"
    untried = [c for c in found.candidates if c.status is Status.NOT_TRIED]
    assert all("2s" in c.reason for c in untried)
    assert found.findings.rounds == 1
    assert sorted(measure.calls) == sorted(c.name for c in found.candidates if c not in untried)


def test_a_round_that_would_not_fit_is_not_started(run: Run, mlp_bundle: Bundle) -> None:
    now = [0.0]

    def measure(bundle: Bundle) -> list[Measurement]:
        now[0] += 10
        return [Measurement("latency_p50_ms", 1.0, 0.9, 1.1)]

    settings = asked_for(time_budget="50s", candidates=("graph",))  # a round of two takes 20 s
    found = run(mlp_bundle, measure, clock=lambda: now[0], settings=settings)
    assert found.findings.rounds == 2
    assert found.findings.elapsed_s == 40


def test_progress_is_told(run: Run, mlp_bundle: Bundle) -> None:
    told: list[tuple[str, int, int]] = []
    run(mlp_bundle, progress=lambda *step: told.append(step))
    assert ("candidate int8-static", 2, 4) in told
    assert all(0 <= done <= total for _, done, total in told)


# --- going on where it was ----------------------------------------------------------------------------------------


def test_a_rerun_makes_nothing_again_and_ends_the_same(
    run: Run, mlp_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(mlp_bundle, Stopwatch(int8_dynamic=1.0))

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("made again")

    monkeypatch.setattr("fairway.optimization.build.apply_recipe", never)
    monkeypatch.setattr(scoring, "evaluate", never)
    monkeypatch.setattr(search, "measure_cost", never)
    again = run(mlp_bundle, Stopwatch(int8_dynamic=1.0))
    assert again.chosen.digest == first.chosen.digest
    assert again.chosen.path == first.chosen.path
    assert [c.digest for c in again.candidates] == [c.digest for c in first.candidates]


def test_other_parameters_make_another_candidate(run: Run, mlp_bundle: Bundle) -> None:
    first = run(mlp_bundle, Stopwatch(int8_dynamic=1.0))
    second = run(mlp_bundle, Stopwatch(int8_dynamic=1.0), settings=asked_for(per_channel=False))
    assert first.winner.digest != second.winner.digest
    assert first.winner.bundle != second.winner.bundle


def test_two_searches_cannot_share_a_directory(run: Run, mlp_bundle: Bundle, tmp_path: Path) -> None:
    with exclusive(tmp_path / "work"), pytest.raises(Conflict, match="another search"):
        run(mlp_bundle)


KILLED = """
import os, signal, sys
from pathlib import Path
from fairway.bundle import format
from fairway.bundle.format import read_bundle
from fairway.core.gate import Limit
from fairway.core.metrics import Measurement
from fairway.evaluation.settings import EvaluationSettings
from fairway.optimization.optimize import optimize
from fairway.optimization.settings import OptimizationSettings
from fairway.sources.tables import load_table

folder, when = Path(sys.argv[1]), int(sys.argv[2])
countdown = when

def step(real):
    def call(*arguments, **named):
        global countdown
        countdown -= 1
        if countdown == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    return call

os.fsync = step(os.fsync)  # before every file that is made durable, and every rename that follows
measure = lambda bundle: [Measurement("latency_p50_ms", 1.0, 0.9, 1.1)]
optimize(
    read_bundle(folder / "mlp.fairway"), table=load_table(folder / "digits.npz"),
    reference=load_table(folder / "digits.npz"), label="digit", gate={"accuracy_score": Limit(min=0.5)},
    workdir=folder / "work", measure=measure, evaluation=EvaluationSettings(resamples=100),
    settings=OptimizationSettings(candidates=("graph", "int8-dynamic"), trials=0),
)
"""


def test_kill_9_leaves_whole_bundles_only_and_the_next_run_goes_on(
    run: Run, mlp_bundle: Bundle, digits: Digits, tmp_path: Path
) -> None:
    np.savez(tmp_path / "digits.npz", X=digits.x_train[:300], digit=digits.y_train[:300])
    killed = 0
    for when in (3, 9):
        done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(when)], check=False)
        killed += done.returncode == -signal.SIGKILL
        for path in (tmp_path / "work").iterdir():
            if path.is_dir() and not path.name.startswith("."):
                read_bundle(path)
            elif path.suffix == ".json" and not path.name.startswith("."):
                msgspec.json.decode(path.read_bytes())
    assert killed == 2
    found = run(mlp_bundle, Stopwatch(int8_dynamic=1.0))
    assert found.winner.name == "int8-dynamic"
    hidden = [p.name for p in (tmp_path / "work").iterdir() if p.name.startswith(".")]
    assert hidden == [".lock"]


# --- text ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def text_bundle(tmp_path: Path) -> Bundle:
    """Which of two words a text holds more often: embedding, masked sum, a product, softmax."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3, "very": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    table = np.zeros((5, 8), np.float32)
    table[2, 0], table[3, 1] = 1.0, 1.0
    product = np.random.default_rng(0).normal(0, 0.1, (8, 2)).astype(np.float32)
    product[0], product[1] = (0, 6), (6, 0)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("ReduceSum", ["embedded", "axis"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "product"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, [None, None])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, [None, 2])],
        [
            numpy_helper.from_array(value, name)
            for name, value in (("table", table), ("product", product), ("axis", np.array([1])))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    parameters = {"file": "tokenizer.json", "input": "text", "outputs": ["input_ids"], "max_length": 16}
    manifest = Manifest(
        name="mood",
        task="classification",
        inputs=(TensorSpec("text", Datatype.BYTES, (-1,)),),
        outputs=(TensorSpec("probabilities", Datatype.FP32, (-1, 2)),),
        processing=Processing(pre=(Step("tokenize", parameters),)),
        prediction=Prediction("probabilities", "probabilities"),
        labels=("bad", "good"),
        files={},
    )
    files = {"model.onnx": model.SerializeToString(), "tokenizer.json": tokenizer.to_str().encode()}
    return write_bundle(tmp_path / "mood.fairway", manifest, files)


def test_text_is_tokenized_before_it_calibrates(run: Run, text_bundle: Bundle) -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 200)
    texts = [" ".join([*["very"] * random.integers(0, 9), ("bad", "good")[label]]) for label in truth]
    table = make_table({"text": texts, "mood": [("bad", "good")[label] for label in truth]})
    measure = Stopwatch(int8_static=1.0)
    found = run(text_bundle, measure, table=table, reference=table, label="mood")
    assert found.winner.name == "int8-static"
    assert "tokenizer.json" in found.chosen.manifest.files
    with Model(found.chosen) as model:
        answer = model.infer({"text": np.array([b"very very good", b"bad"], dtype=object)})
    assert answer["probabilities"].argmax(axis=1).tolist() == [1, 0]


# --- reports ------------------------------------------------------------------------------------------------------


def test_reports_say_what_was_chosen_and_why(run: Run, mlp_bundle: Bundle) -> None:
    settings = asked_for(candidates=("graph", "int8-dynamic"))
    found = run(mlp_bundle, Stopwatch(int8_dynamic=1.0), settings=settings)
    text = found.as_text()
    assert text.splitlines()[0].startswith("digits: int8-dynamic is chosen")
    assert all(name in text for name in ("original", "graph", "accuracy_score", "latency_p50_ms"))
    findings = msgspec.json.decode(found.as_json(), type=Findings)
    assert findings == found.findings
    assert max(map(len, text.splitlines())) <= 100
    html = found.as_html()
    assert "<svg" in html
    assert "int8-dynamic" in html
    assert "http://" not in html.replace("http://www.w3.org/", "")


def test_a_page_without_a_measured_objective_has_no_plot_of_it(run: Run, mlp_bundle: Bundle) -> None:
    def measure(bundle: Bundle) -> list[Measurement]:
        return [Measurement.exact("size_mb", 1.0)]

    found = run(mlp_bundle, measure, gate={"accuracy_score": Limit(min=0.9)})
    assert found.kept_original
    assert "was not measured" in found.reason
    html = found.as_html()
    assert "accuracy_score by size_mb" in html
    assert "by latency_p50_ms" not in html
