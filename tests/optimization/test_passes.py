"""Each pass: what it changes, what it must not change, and where it has nothing to do."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from fairway.core.manifest import PassRecord
from fairway.optimization import build
from fairway.optimization.build import apply_recipe
from fairway.optimization.graphs import external_files, graph_digest, largest_difference, operators, structure
from fairway.optimization.passes import dynamic, graph, lower, mixed, opset, static
from fairway.optimization.passes.base import NothingToDo, Pass, Sample
from fairway.optimization.prefixes import Kept, Prefixes
from fairway.optimization.quiet import quiet
from fairway.optimization.recipes import Stage, recipes
from fairway.optimization.settings import CANDIDATES, OptimizationSettings
from tests.conftest import Digits
from tests.optimization.conftest import Convert, accuracy, infer

WEIGHTS = {"per_channel": True, "reduce_range": True}
STATIC = {**WEIGHTS, "method": "minmax"}
EVERY = [
    (lower.PASS, {}),
    (graph.PASS, {"level": "extended"}),
    (dynamic.PASS, WEIGHTS),
    (static.PASS, STATIC),
]


def apply(described: Pass, source: Path, parameters: dict[str, Any], sample: Sample, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    made = folder / "model.onnx"
    described.apply(source, made, parameters, sample)
    return made


def reference_recipes() -> Sequence[Any]:
    return recipes(OptimizationSettings(), {"rows": 256, "seed": 0, "data": "sha256:0"})


# --- quality on digits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", reference_recipes(), ids=CANDIDATES)
def test_logistic_regression_keeps_its_golden_accuracy(
    recipe: Any, linear_graph: Path, digits: Digits, sample: Sample, tmp_path: Path
) -> None:
    before = accuracy(linear_graph, digits)
    assert before == digits.model.score(digits.x_test, digits.y_test)
    made, records = apply_recipe(linear_graph, recipe.stages, sample, tmp_path)
    allowed = 0.0 if recipe.name == "graph" else 0.005
    assert accuracy(made, digits) >= before - allowed
    assert [r.name for r in records][-1] in (recipe.stages[-1].name, "lower")


@pytest.mark.parametrize("recipe", reference_recipes(), ids=CANDIDATES)
def test_a_small_network_keeps_its_accuracy(
    recipe: Any, mlp_graph: Path, digits: Digits, sample: Sample, tmp_path: Path
) -> None:
    made, _ = apply_recipe(mlp_graph, recipe.stages, sample, tmp_path)
    allowed = 0.0 if recipe.name == "graph" else 0.005
    assert accuracy(made, digits) >= accuracy(mlp_graph, digits) - allowed


def test_int8_weights_take_a_quarter_of_the_room(mlp_graph: Path, sample: Sample, tmp_path: Path) -> None:
    made = apply(dynamic.PASS, mlp_graph, WEIGHTS, sample, tmp_path)
    assert made.stat().st_size < 0.35 * mlp_graph.stat().st_size


# --- replay -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", reference_recipes(), ids=CANDIDATES)
def test_a_recipe_applied_again_gives_the_same_digests(
    recipe: Any, mlp_graph: Path, sample: Sample, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    _, records = apply_recipe(mlp_graph, recipe.stages, sample, first)
    _, again = apply_recipe(mlp_graph, [Stage(r.name, r.parameters) for r in records], sample, second)
    assert again == records
    assert records[0].before == graph_digest(mlp_graph)
    assert all(one.after == other.before for one, other in pairwise(records))


def test_passes_leave_their_source_alone(mlp_graph: Path, sample: Sample, tmp_path: Path) -> None:
    before = {p.name: p.read_bytes() for p in mlp_graph.parent.iterdir()}
    apply_recipe(mlp_graph, reference_recipes()[-1].stages, sample, tmp_path)
    assert {p.name: p.read_bytes() for p in mlp_graph.parent.iterdir()} == before


# --- portability ------------------------------------------------------------------------------------------------


def test_the_saved_graph_is_not_bound_to_this_cpu(mlp_graph: Path, sample: Sample, tmp_path: Path) -> None:
    made = apply(graph.PASS, mlp_graph, {"level": "extended"}, sample, tmp_path)
    assert ("com.microsoft", "FusedGemm") in operators(made)
    assert {domain for domain, _ in operators(made)} <= set(graph.PORTABLE)
    imported = {entry.domain for entry in onnx.load(made).opset_import}
    assert imported == {domain for domain, _ in operators(made)} | {""}


def test_the_basic_level_stays_within_the_standard(mlp_graph: Path, sample: Sample, tmp_path: Path) -> None:
    made = apply(graph.PASS, mlp_graph, {"level": "basic"}, sample, tmp_path)
    assert {domain for domain, _ in operators(made)} <= {"", "ai.onnx.ml"}


def test_seven_bit_weights_cannot_saturate_without_vnni(mlp_graph: Path, sample: Sample, tmp_path: Path) -> None:
    made = onnx.load(apply(dynamic.PASS, mlp_graph, WEIGHTS, sample, tmp_path))
    int8 = [numpy_helper.to_array(t) for t in made.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    largest = max(int(np.abs(w.astype(int)).max()) for w in int8)
    assert 2 * 255 * largest <= 32767 + 255  # two products of u8 and s8 are added in 16 bits


# --- nothing to do ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def forest_graph(digits: Digits, convert: Convert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(5, random_state=0).fit(digits.x_train, digits.y_train)
    return convert(tmp_path_factory.mktemp("forest") / "model.onnx", forest, digits.x_train)


@pytest.mark.parametrize(("described", "parameters"), EVERY, ids=[p.name for p, _ in EVERY])
def test_trees_are_left_as_they_are(
    described: Pass, parameters: dict[str, Any], forest_graph: Path, sample: Sample, tmp_path: Path
) -> None:
    with pytest.raises(NothingToDo):
        apply(described, forest_graph, parameters, sample, tmp_path)


def test_optimizing_twice_finds_nothing_more(mlp_graph: Path, sample: Sample, tmp_path: Path) -> None:
    once = apply(graph.PASS, mlp_graph, {"level": "extended"}, sample, tmp_path / "once")
    with pytest.raises(NothingToDo, match="nothing to fold"):
        apply(graph.PASS, once, {"level": "extended"}, sample, tmp_path / "twice")


def test_an_inexact_lowering_is_refused(linear_graph: Path, mlp_graph: Path, sample: Sample) -> None:
    assert largest_difference(linear_graph, linear_graph, sample) == ""
    assert "label" in largest_difference(linear_graph, mlp_graph, sample)


# --- lowering ---------------------------------------------------------------------------------------------------


def linear_estimators() -> dict[str, Any]:
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler, StandardScaler
    from sklearn.svm import LinearSVC

    return {
        "softmax": (LogisticRegression(), "classes"),
        "binary": (LogisticRegression(), "binary"),
        "text labels": (LogisticRegression(), "text"),
        "scaled": (make_pipeline(StandardScaler(), LogisticRegression()), "classes"),
        "scaled without shift": (make_pipeline(MaxAbsScaler(), LogisticRegression()), "classes"),
        "regression": (LinearRegression(), "number"),
        "several targets": (make_pipeline(StandardScaler(), Ridge()), "numbers"),
        "margins": (LinearSVC(random_state=0), "classes"),
        "ridge": (RidgeClassifier(), "classes"),
    }


@pytest.mark.parametrize("name", linear_estimators())
def test_lowering_answers_the_same(name: str, convert: Convert, tmp_path: Path) -> None:
    estimator, target = linear_estimators()[name]
    random = np.random.default_rng(0)
    x = random.normal(3, 2, (200, 7)).astype(np.float32)
    classes = (x @ random.normal(size=(7, 3))).argmax(axis=1)
    targets = {
        "classes": classes + 2,  # not 0, 1, 2: the labels must be looked up
        "binary": classes == 0,
        "text": np.array(["ant", "bee", "cat"])[classes],
        "number": x[:, 0] * 2,
        "numbers": x[:, :2] * 3,
    }
    source = convert(tmp_path / "source" / "model.onnx", estimator.fit(x, targets[target]), x)
    made = apply(lower.PASS, source, {}, Sample({"X": x}, 200), tmp_path)
    assert largest_difference(source, made, Sample({"X": x}, 200)) == ""
    assert not {op for _, op in operators(made)} & {"LinearClassifier", "LinearRegressor", "Scaler"}


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 5), st.integers(1, 6), st.integers(1, 9)),
    seed=st.integers(0, 2**16),
    after=st.sampled_from(["NONE", "SOFTMAX", "LOGISTIC"]),
)
def test_lowering_is_exact_for_any_linear_classifier(
    shape: tuple[int, int, int], seed: int, after: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    classes, features, rows = shape
    random = np.random.default_rng(seed)
    node = helper.make_node(
        "LinearClassifier",
        ["X"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        coefficients=random.normal(size=classes * features).tolist(),
        intercepts=random.normal(size=classes).tolist(),
        classlabels_ints=random.permutation(classes).tolist(),
        multi_class=1,
        post_transform=after,
    )
    body = helper.make_graph(
        [node],
        "linear",
        [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, [None, features])],
        [
            helper.make_tensor_value_info("label", onnx.TensorProto.INT64, [None]),
            helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [None, classes]),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    folder = tmp_path_factory.mktemp("linear")
    source = folder / "source.onnx"
    onnx.save(helper.make_model(body, opset_imports=opsets, ir_version=9), source)
    feed = Sample({"X": random.normal(size=(rows, features)).astype(np.float32)}, rows)
    made = apply(lower.PASS, source, {}, feed, folder)
    assert largest_difference(source, made, feed) == ""


# --- external data ----------------------------------------------------------------------------------------------


@pytest.fixture
def external_graph(mlp_graph: Path, tmp_path: Path) -> Path:
    path = tmp_path / "external" / "model.onnx"
    path.parent.mkdir()
    model = onnx.load(mlp_graph)
    for tensor in model.graph.initializer:  # only raw tensors can lie outside
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=64)
    return path


@pytest.mark.parametrize("recipe", reference_recipes(), ids=CANDIDATES)
def test_external_data_stays_external_and_right(
    recipe: Any, external_graph: Path, digits: Digits, sample: Sample, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    made, records = apply_recipe(external_graph, recipe.stages, sample, scratch)
    external_graph.unlink()  # what was made must not lean on what it was made from
    (external_graph.parent / "weights.bin").unlink()
    assert external_files(made)
    assert made.stat().st_size < 20_000
    assert accuracy(made, digits) > 0.94
    assert records[-1].after == graph_digest(made)


def test_the_digest_covers_external_data(external_graph: Path) -> None:
    before = graph_digest(external_graph)
    weights = external_graph.parent / "weights.bin"
    raw = bytearray(weights.read_bytes())
    raw[100] ^= 1
    weights.write_bytes(raw)
    assert graph_digest(external_graph) != before


def test_structure_tells_a_change_from_none(mlp_graph: Path, linear_graph: Path) -> None:
    assert structure(mlp_graph) == structure(mlp_graph)
    assert structure(mlp_graph) != structure(linear_graph)


# --- quiet ------------------------------------------------------------------------------------------------------


def test_quantization_says_nothing_and_leaves_nothing(
    mlp_graph: Path, sample: Sample, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    handlers = list(logging.getLogger().handlers)
    recipe = reference_recipes()[-1]
    apply_recipe(mlp_graph, recipe.stages, sample, tmp_path)
    out, err = capfd.readouterr()
    assert (out, err, caplog.records) == ("", "", [])
    assert logging.getLogger().handlers == handlers
    assert [p.name for p in (tmp_path / f"{len(recipe.stages) - 1}-int8-static").iterdir()] == ["model.onnx"]


def test_quiet_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with quiet(tmp_path):
        sys.stdout.write("unheard\n")
        logging.warning("unheard")
    sys.stdout.write("heard\n")
    logging.warning("heard")
    assert capsys.readouterr().out == "heard\n"
    assert caplog.messages == ["heard"]


def test_every_pass_says_what_it_is_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; from fairway.optimization.registry import passes; assert all(p.summary for p in passes().values());"
        "assert not {'onnx', 'onnxruntime', 'openvino', 'nncf', 'torch', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_batches_are_all_of_one_size(sample: Sample) -> None:
    sizes = [len(feed["X"]) for feed in Sample({"X": np.zeros((37, 2))}, 37).batches(16)]
    assert sizes == [16, 16]
    assert [len(f["X"]) for f in Sample({"X": np.zeros((3, 2))}, 3).batches(16)] == [3]
    assert [len(f["X"]) for f in Sample({"X": np.zeros((9, 2))}, 9, batch=4).batches(16)] == [4, 4]
    assert [len(f["X"]) for f in Sample({"X": np.zeros((3, 2))}, 3, batch=8).batches(16)] == [8]


def test_outputs_of_a_lowered_graph_have_the_same_types(linear_graph: Path, sample: Sample, tmp_path: Path) -> None:
    made = apply(lower.PASS, linear_graph, {}, sample, tmp_path)
    x = sample.feed["X"][:4]
    before, after = infer(linear_graph, x), infer(made, x)
    assert {k: (v.dtype, v.shape) for k, v in before.items()} == {k: (v.dtype, v.shape) for k, v in after.items()}


def test_forms_that_begin_alike_are_made_from_where_they_part(
    mlp_graph: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    real = build._apply

    def watched(stage: Stage, *rest: Any) -> Any:
        ran.append(stage.name)
        return real(stage, *rest)

    monkeypatch.setattr(build, "_apply", watched)
    prefixes = Prefixes(tmp_path / "stages", most=2)
    made: dict[str, list[str]] = {}
    for number, name in enumerate(["int8-static", "int8-dynamic", "int8-static"]):
        (recipe,) = recipes(OptimizationSettings(candidates=(name,)), {"rows": 8})
        for kept in (prefixes, None):
            (scratch := tmp_path / f"{number}-{kept is None}").mkdir()
            ran.clear()
            _, records = apply_recipe(mlp_graph, recipe.stages, sample, scratch, kept)
            made.setdefault(name, []).append(records[-1].after)
            assert ran == [stage.name for stage in recipe.stages][(2 if number and kept else 0) :]
    assert all(len(set(digests)) == 1 for digests in made.values())


def test_only_the_last_few_graphs_on_the_way_are_kept(mlp_graph: Path, tmp_path: Path) -> None:
    prefixes, taken = Prefixes(tmp_path / "stages", most=2), tmp_path / mlp_graph.name
    stages = [Stage("lower"), Stage("graph", {"level": "basic"}), Stage("int8-dynamic")]
    for count in (1, 2):
        prefixes.keep(stages[:count], mlp_graph, [])
    assert (found := prefixes.take([*stages[:1], Stage("attention")], taken)) is not None
    assert found.stages == 1
    assert taken.read_bytes() == mlp_graph.read_bytes()
    prefixes.keep([Stage("simplify")], mlp_graph, [])
    assert len(list((tmp_path / "stages").iterdir())) == 2
    assert (found := prefixes.take(stages, taken)) is not None
    assert found.stages == 1
    assert prefixes.take(stages[:1], taken) is None


def test_what_one_process_kept_another_goes_on_from(mlp_graph: Path, tmp_path: Path) -> None:
    ours, theirs = Prefixes(tmp_path / "stages"), Prefixes(tmp_path / "stages")
    stages, records = [Stage("lower"), Stage("graph", {"level": "basic"})], [PassRecord("lower", {}, "a", "b")]
    for prefixes in (ours, theirs):  # both may have made it at the same time
        prefixes.keep(stages[:1], mlp_graph, records)
    assert len(list((tmp_path / "stages").iterdir())) == 1
    assert theirs.take(stages, tmp_path / mlp_graph.name) == Kept(1, tuple(records))


def test_a_graph_that_another_process_removes_meanwhile_is_made_again(
    mlp_graph: Path, sample: Sample, tmp_path: Path
) -> None:
    prefixes, stages = Prefixes(tmp_path / "stages"), [Stage("lower"), Stage("int8-dynamic", dynamic.PASS.settings())]
    digests = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        _, records = apply_recipe(mlp_graph, stages, sample, tmp_path / name, prefixes)
        digests.append(records[-1].after)
        for kept in (tmp_path / "stages").rglob(mlp_graph.name):
            kept.unlink()
    assert digests[0] == digests[1]


def test_where_the_disk_is_full_nothing_is_kept_and_nothing_lost(
    mlp_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fairway.optimization.prefixes.copy_graph", full)
    prefixes = Prefixes(tmp_path / "stages")
    prefixes.keep([Stage("lower")], mlp_graph, [])
    assert prefixes.take([Stage("lower"), Stage("graph")], tmp_path / "taken.onnx") is None
    assert not list((tmp_path / "stages").iterdir())


def test_mixed_int8_takes_products_whose_bias_has_an_axis_of_rows(
    mlp_graph: Path, sample: Sample, digits: Digits, tmp_path: Path
) -> None:
    """Scikit-learn's converter writes them as [1, N], which one scale per channel of the first axis does not fit."""
    stages = [Stage("lower"), Stage("graph", {"level": "basic"}), Stage("int8-mixed", mixed.PASS.settings())]
    made, _ = apply_recipe(mlp_graph, stages, sample, tmp_path)
    assert accuracy(made, digits) > 0.95


# --- graphs exported years ago ------------------------------------------------------------------------------------


def old_graph(path: Path, version: int) -> Path:
    """A convolution, a pooling and a product, as exporters wrote them."""
    random = np.random.default_rng(0)

    def constant(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], transB=1),
        helper.make_node("Softmax", ["y"], ["p"], axis=1),
    ]
    constants = [constant("w", 8, 1, 3, 3), constant("b", 8), constant("w2", 10, 8), constant("b2", 10)]
    ends: tuple[tuple[str, list[str | int | None]], ...] = (("x", ["n", 1, 8, 8]), ("p", ["n", 10]))
    x, p = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends)
    made = helper.make_model(
        helper.make_graph(nodes, "old", [x], [p], constants),
        opset_imports=[helper.make_opsetid("", version)],
        ir_version=4,
    )
    path.write_bytes(made.SerializeToString())
    return path


def images() -> Sample:
    return Sample({"x": np.random.default_rng(1).normal(size=(16, 1, 8, 8)).astype(np.float32)}, 16)


@pytest.mark.parametrize("version", [9, 11, 13])
def test_an_old_graph_is_brought_to_a_newer_opset_and_answers_the_same(version: int, tmp_path: Path) -> None:
    made, (record,) = apply_recipe(
        old_graph(tmp_path / "model.onnx", version), [Stage("opset", opset.PASS.settings())], images(), tmp_path
    )
    assert record.name == "opset"
    assert onnx.load(made).opset_import[0].version == 17


def test_a_graph_of_that_opset_or_a_newer_has_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="version 17 of ONNX's operators, and 17 is asked for"):
        apply_recipe(old_graph(tmp_path / "model.onnx", 17), [Stage("opset", {"target": 17})], images(), tmp_path)


def test_an_operator_that_cannot_be_brought_up_is_named(tmp_path: Path) -> None:
    path = old_graph(tmp_path / "model.onnx", 9)
    model = onnx.load(path)
    model.graph.node[1].op_type = "Forgotten"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(NothingToDo, match="cannot be brought from version 9 of ONNX's operators to 17"):
        apply_recipe(path, [Stage("opset", {"target": 17})], images(), tmp_path)
