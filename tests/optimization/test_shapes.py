"""Fixed shapes: what the reference rows agree on is written into the graph, and asked of requests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from fairway.bundle.format import write_bundle
from fairway.core.errors import InvalidRequest
from fairway.core.manifest import Manifest
from fairway.core.tensors import Datatype, TensorSpec
from fairway.model import Model
from fairway.optimization.build import apply_recipe, build_candidate
from fairway.optimization.forms import Forms
from fairway.optimization.passes.base import NothingToDo, Sample
from fairway.optimization.recipes import Recipe, Stage, recipes
from fairway.optimization.settings import CANDIDATES, MORE, OptimizationSettings

SHAPES = Stage("shapes")
ROWS = {"rows": 16, "seed": 0, "data": "sha256:rows"}


def halved(path: Path, shape: list[str | int | None]) -> Path:
    """Images of any size, half as large, as exporters write it: the new size is computed from the old."""
    nodes = [
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Slice", ["size", "two", "four"], ["inner"]),
        helper.make_node("Div", ["inner", "twos"], ["less"]),
        helper.make_node("Slice", ["size", "zero", "two"], ["outer"]),
        helper.make_node("Concat", ["outer", "less"], ["wanted"], axis=0),
        helper.make_node("Resize", ["x", "", "", "wanted"], ["y"], mode="nearest"),
    ]
    numbers = {"zero": [0], "two": [2], "four": [4], "twos": [2, 2]}
    constants = [
        helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values) for name, values in numbers.items()
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1, None, None])
    made = helper.make_model(
        helper.make_graph(nodes, "halved", [x], [y], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path.write_bytes(made.SerializeToString())
    return path


def images(made: frozenset[str] = frozenset()) -> Sample:
    return Sample({"x": np.random.default_rng(1).normal(size=(16, 1, 8, 6)).astype(np.float32)}, 16, made=made)


def sizes(path: Path) -> list[int | str]:
    dims = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    return [dim.dim_value or dim.dim_param for dim in dims]


@pytest.mark.parametrize("shape", [["n", 1, "h", "w"], ["n", 1, None, None]], ids=["named", "unnamed"])
def test_all_sizes_but_the_number_of_rows_are_fixed(shape: list[str | int | None], tmp_path: Path) -> None:
    made, _ = apply_recipe(halved(tmp_path / "model.onnx", shape), [SHAPES], images(), tmp_path)
    assert sizes(made) == ["n", 1, 8, 6]


def test_what_was_computed_from_the_sizes_is_computed_no_more(tmp_path: Path) -> None:
    graph = halved(tmp_path / "model.onnx", ["n", 1, "h", "w"])
    for folder in ("open", "fixed"):
        (tmp_path / folder).mkdir()
    with pytest.raises(NothingToDo, match="nothing to fold"):
        apply_recipe(graph, [Stage("simplify")], images(), tmp_path / "open")
    made, _ = apply_recipe(graph, [SHAPES, Stage("simplify")], images(), tmp_path / "fixed")
    assert "Div" not in [node.op_type for node in onnx.load(made).graph.node]


def test_sizes_that_a_tokenizer_decides_stay_open(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="what a tokenizer decides"):
        apply_recipe(halved(tmp_path / "model.onnx", ["n", 1, "h", "w"]), [SHAPES], images(frozenset("x")), tmp_path)


def test_an_axis_as_long_as_there_are_rows_stays_open(tmp_path: Path) -> None:
    made, _ = apply_recipe(halved(tmp_path / "model.onnx", ["n", 1, "h", "n"]), [SHAPES], images(), tmp_path)
    assert sizes(made) == ["n", 1, 8, "n"]


def test_a_bundle_of_fixed_shapes_refuses_others_saying_which_it_takes(tmp_path: Path) -> None:
    graph = halved(tmp_path / "model.onnx", ["n", 1, "h", "w"])
    open_ = TensorSpec("x", Datatype.FP32, (-1, 1, -1, -1))
    manifest = Manifest("halved", "embedding", (open_,), (TensorSpec("y", Datatype.FP32, (-1, 1, -1, -1)),), {})
    source = write_bundle(tmp_path / "source", manifest, {"model.onnx": graph})
    fixed = build_candidate(source, Recipe("fixed", (SHAPES,)), images(), tmp_path / "fixed")
    with Model(source) as before, Model(fixed) as after:
        wide = {"x": np.ones((2, 1, 8, 10), np.float32)}
        assert before.infer(wide)["y"].shape == (2, 1, 4, 5)
        (spec,) = after.inputs
        with pytest.raises(InvalidRequest, match=r"has shape \[2, 1, 8, 10\], but the model takes \[-1, 1, 8, 6\]"):
            spec.check(wide["x"])
        assert after.infer({"x": wide["x"][..., :6]})["y"].shape == (2, 1, 4, 3)


def test_with_the_setting_every_form_begins_so_and_without_it_none() -> None:
    for wanted in (True, False):
        settings = OptimizationSettings(candidates=(*CANDIDATES, *MORE), fixed_shapes=wanted)
        forms = Forms(settings, ROWS)
        made = [*recipes(settings, ROWS), *map(forms.recipe, forms.space.points())]
        assert {recipe.stages[0].name == "shapes" for recipe in made} == {wanted}
