"""A pruned graph is the whole one with some channels silenced, and it is smaller: they are gone from every weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from fairway.core.manifest import EngineSpec
from fairway.engines.base import load_engine
from fairway.optimization.graphs import save_data
from fairway.optimization.passes import attention, prune
from fairway.optimization.passes.base import NothingToDo, Sample
from fairway.optimization.rewrites.base import Rewriting
from fairway.optimization.rewrites.channels import find_groups
from fairway.optimization.rewrites.prune import channels_kept, cut, most_important
from tests.optimization import transformers_tiny as tiny

OPSET = 18


def write(path: Path, nodes: list[Any], weights: dict[str, Any], given: list[Any], outputs: dict[str, int]) -> Path:
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, given)]
    made = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * rank) for name, rank in outputs.items()
    ]
    constants = [
        numpy_helper.from_array(np.asarray(w, np.float32 if np.asarray(w).dtype.kind == "f" else np.int64), name)
        for name, w in weights.items()
    ]
    graph = helper.make_graph(nodes, "graph", inputs, made, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def residual(path: Path, seed: int, widths: tuple[int, int]) -> Path:
    """A stem, a block with a shortcut, a depthwise convolution, squeeze and excitation, pooling, two dense layers."""
    random = np.random.default_rng(seed)
    a, b = widths
    n = helper.make_node
    nodes = [
        n("Conv", ["x", "w0", "b0"], ["c0"], pads=[1] * 4), n("Relu", ["c0"], ["r0"]),
        n("Conv", ["r0", "w1"], ["c1"], pads=[1] * 4),
        n("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"]), n("Relu", ["n1"], ["r1"]),
        n("Conv", ["r1", "dw", "db"], ["d1"], pads=[1] * 4, group=b), n("Clip", ["d1", "low", "high"], ["k1"]),
        n("Conv", ["k1", "w2", "b2"], ["c2"]),
        n("Add", ["r0", "c2"], ["sum"]),
        n("GlobalAveragePool", ["sum"], ["pool"]), n("Conv", ["pool", "s1", "t1"], ["e1"]), n("Relu", ["e1"], ["e2"]),
        n("Conv", ["e2", "s2", "t2"], ["e3"]), n("Sigmoid", ["e3"], ["e4"]), n("Mul", ["sum", "e4"], ["scaled"]),
        n("MaxPool", ["scaled"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        n("Flatten", ["half"], ["flat"]), n("Gemm", ["flat", "g", "gb"], ["hidden"], transB=1), n("Tanh", ["hidden"], ["h"]),
        n("MatMul", ["h", "m"], ["product"]), n("Add", ["product", "mb"], ["y"]),
    ]  # fmt: skip
    normal = random.normal
    weights = {
        "w0": normal(size=(a, 2, 3, 3)), "b0": normal(size=a), "w1": normal(size=(b, a, 3, 3)) / 4,
        "scale": normal(size=b), "shift": normal(size=b), "mean": normal(size=b), "var": random.uniform(0.5, 2, b),
        "dw": normal(size=(b, 1, 3, 3)), "db": normal(size=b), "low": np.float32(-1.0), "high": np.float32(3.0),
        "w2": normal(size=(a, b, 1, 1)), "b2": normal(size=a), "s1": normal(size=(3, a, 1, 1)), "t1": normal(size=3),
        "s2": normal(size=(a, 3, 1, 1)), "t2": normal(size=a), "g": normal(size=(12, a * 4)) / 8, "gb": normal(size=12),
        "m": normal(size=(12, 5)), "mb": normal(size=5),
    }  # fmt: skip
    return write(path, nodes, weights, [None, 2, 4, 4], {"y": 2})


def images(rows: int = 6) -> dict[str, Any]:
    return {"x": np.random.default_rng(1).normal(size=(rows, 2, 4, 4)).astype(np.float32)}


def answer(path: Path, feed: Any) -> Any:
    engine = load_engine(EngineSpec(file=path.name), path.parent)
    try:
        return next(iter(engine.infer(feed).values()))
    finally:
        engine.close()


def pruned_and_silenced(source: Path, folder: Path, share: float, seed: int) -> tuple[Path, Path]:
    """The graph with channels cut out, and the whole graph in which nothing reads those channels."""
    whole, less = Rewriting(onnx.load(source)), Rewriting(onnx.load(source))
    random = np.random.default_rng(seed)
    for group, same in zip(find_groups(whole), find_groups(less), strict=True):
        count = channels_kept(group.size, share, 1)
        kept = np.sort(random.permutation(group.size)[:count])
        for slot in group.readers:
            weights = np.array(whole.value(slot.node.input[slot.index]))
            rows = np.moveaxis(weights, slot.axis, 0)
            rows[np.setdiff1d(np.arange(len(rows)), slot.numbers(kept, group.size))] = 0
            slot.node.input[slot.index] = whole.constant(weights, "silenced")
        cut(less, same, kept, {})
    for graph, name in ((whole, "silenced"), (less, "pruned")):
        graph.sweep()
        del graph.model.graph.value_info[:]  # sizes of before
        save_data(graph.model, folder / f"{name}.onnx", False)
    return folder / "pruned.onnx", folder / "silenced.onnx"


def numbers(path: Path) -> int:
    return sum(numpy_helper.to_array(tensor).size for tensor in onnx.load(path).graph.initializer)


@settings(max_examples=20)
@given(st.integers(0, 99), st.tuples(st.integers(2, 9), st.integers(2, 9)), st.floats(0.1, 0.9))
def test_a_pruned_graph_is_the_whole_one_with_those_channels_silenced(
    tmp_path_factory: pytest.TempPathFactory, seed: int, widths: tuple[int, int], share: float
) -> None:
    folder = tmp_path_factory.mktemp("residual")
    source = residual(folder / "model.onnx", seed, widths)
    pruned, silenced = pruned_and_silenced(source, folder, share, seed)
    onnx.checker.check_model(onnx.load(pruned), full_check=True)
    np.testing.assert_allclose(answer(pruned, images()), answer(silenced, images()), rtol=1e-4, atol=1e-4)


def test_channels_that_are_added_are_one_group(tmp_path: Path) -> None:
    graph = Rewriting(onnx.load(residual(tmp_path / "model.onnx", 0, (6, 7))))
    found = sorted((group.size, len(group.makers), len(group.readers)) for group in find_groups(graph))
    # excitation's inner channels; stem + block + excitation; the block's inside with its depthwise filters; dense neurons
    assert found == [(3, 1, 1), (6, 3, 3), (7, 1, 1), (12, 1, 1)]


def test_nothing_goes_where_nothing_shall_go(tmp_path: Path) -> None:
    source = residual(tmp_path / "model.onnx", 0, (8, 8))
    with pytest.raises(NothingToDo, match="too few"):
        apply(source, tmp_path, Sample(images(), 6), share=0.0)


def test_what_somebody_else_reads_stays(tmp_path: Path) -> None:
    n = helper.make_node
    weights = {"w": np.ones((4, 2, 1, 1)), "v": np.ones((3, 4, 1, 1)), "u": np.ones((2, 3, 1, 1))}
    nodes = [
        n("Conv", ["x", "w"], ["seen"]), n("Conv", ["seen", "v"], ["c"]), n("Softmax", ["c"], ["s"], axis=1),
        n("Conv", ["s", "u"], ["y"]),
    ]  # fmt: skip
    path = write(tmp_path / "model.onnx", nodes, weights, [None, 2, 4, 4], {"y": 4, "seen": 4})
    assert find_groups(Rewriting(onnx.load(path))) == []
    with pytest.raises(NothingToDo, match="no filters, neurons or heads"):
        apply(path, tmp_path, Sample(images(), 6))


def apply(source: Path, folder: Path, sample: Sample, **given: Any) -> Path:
    destination = folder / "pruned"
    destination.mkdir(exist_ok=True)
    prune.PASS.apply(source, destination / "model.onnx", prune.PASS.settings(given), sample)
    return destination / "model.onnx"


def test_the_pass_shrinks_a_graph_and_makes_the_same_one_again(tmp_path: Path) -> None:
    source = residual(tmp_path / "model.onnx", 0, (16, 24))
    made = apply(source, tmp_path, Sample(images(), 6), share=0.5)
    assert numbers(made) < 0.5 * numbers(source)
    before = made.read_bytes()
    assert apply(source, tmp_path, Sample(images(), 6), share=0.5).read_bytes() == before
    assert answer(made, images(3)).shape == answer(source, images(3)).shape


def test_channels_that_say_nothing_go_first(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    wide = random.normal(size=(16, 20))
    wide[:, ::2] *= 1e-3  # every second neuron
    weights = {"a": wide, "b": random.normal(size=(20, 3))}
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
             helper.make_node("MatMul", ["r", "b"], ["y"])]  # fmt: skip
    path = write(tmp_path / "model.onnx", nodes, weights, [None, 16], {"y": 2})
    x = random.normal(size=(64, 16)).astype(np.float32)
    made = apply(path, tmp_path, Sample({"x": x}, 64), share=0.5, multiple=1, refit=False)
    np.testing.assert_allclose(answer(made, {"x": x}), answer(path, {"x": x}), atol=0.05)
    (group,) = find_groups(Rewriting(onnx.load(path)))
    weights_alone = most_important(Rewriting(onnx.load(path)), group, {}, 10)
    assert len(weights_alone) == 10


def test_fitting_again_makes_up_for_channels_that_others_foretell(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    half = random.normal(size=(16, 8))
    wide = np.concatenate([half, 0.1 * half], axis=1)  # the second half follows from the first
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
             helper.make_node("Gemm", ["r", "b"], ["y"], transB=1)]  # fmt: skip
    path = write(tmp_path / "model.onnx", nodes, {"a": wide, "b": random.normal(size=(3, 16))}, [None, 16], {"y": 2})
    x = random.normal(size=(256, 16)).astype(np.float32)
    wanted = answer(path, {"x": x})
    errors = {}
    for refit in (True, False):
        made = apply(path, tmp_path, Sample({"x": x}, 256), share=0.5, multiple=8, refit=refit)
        errors[refit] = float(np.square(answer(made, {"x": x}) - wanted).mean())
    assert errors[True] < 0.1 * errors[False]


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    source = tiny.export_bert(folder / "model.onnx")
    (folder / "fused").mkdir()
    attention.PASS.apply(source, folder / "fused" / "model.onnx", {}, tiny.sample())
    return folder / "fused" / "model.onnx"


@pytest.mark.torch
def test_heads_and_neurons_of_a_transformer_are_silenced_alike(fused: Path, tmp_path: Path) -> None:
    pruned, silenced = pruned_and_silenced(fused, tmp_path, 0.5, 0)
    feed = tiny.sample().feed
    np.testing.assert_allclose(answer(pruned, feed), answer(silenced, feed), rtol=1e-4, atol=1e-4)
    heads = [
        helper.get_attribute_value(next(a for a in node.attribute if a.name == "num_heads"))
        for node in onnx.load(pruned).graph.node
        if node.op_type == "MultiHeadAttention"
    ]
    assert heads == [2, 2]


@pytest.mark.torch
def test_a_pruned_transformer_takes_texts_of_any_length(fused: Path, tmp_path: Path) -> None:
    made = apply(fused, tmp_path, tiny.sample(), share=0.25, heads=0.25)
    assert numbers(made) < 0.9 * numbers(fused)
    short = {name: array[:3, :5] for name, array in tiny.sample().feed.items()}
    assert answer(made, short).shape == (3, 3)


@pytest.mark.torch
def test_attention_that_is_not_fused_keeps_its_heads(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    source = tiny.export_bert(tmp_path / "model.onnx", layers=1)
    sizes = [group.size for group in find_groups(Rewriting(onnx.load(source)))]
    assert sizes == [64, 32]  # neurons, and what the classifier reads
    apply(source, tmp_path, tiny.sample(), share=0.5)
