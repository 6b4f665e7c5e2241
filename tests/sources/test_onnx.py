"""ONNX files become bundles as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fairway.bundle.format import Bundle, read_bundle
from fairway.core.errors import InvalidConfig, InvalidData, InvalidSource
from fairway.core.manifest import Prediction
from fairway.model import Model
from fairway.sources.convert import convert
from fairway.sources.tables import Table, make_table
from tests.conftest import Digits
from tests.sources.conftest import assert_golden

Converter = Callable[..., Bundle]


def linear_graph(weights: Any, *, softmax: bool = True, batch: int | None = None, output: str = "y") -> onnx.ModelProto:
    w = np.asarray(weights, np.float32)
    nodes = [helper.make_node("MatMul", ["pixels", "w"], ["scores" if softmax else output])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["scores"], [output], axis=1))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, w.shape[0]])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, w.shape[1]])],
        [numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def digits_onnx(digits: Digits, tmp_path: Path) -> Path:
    graph = linear_graph(digits.model.coef_.T)
    graph.graph.initializer.append(numpy_helper.from_array(digits.model.intercept_.astype(np.float32), "b"))
    graph.graph.node[0].CopyFrom(helper.make_node("Gemm", ["pixels", "w", "b"], ["scores"]))
    onnx.save(graph, tmp_path / "digits.onnx")
    return tmp_path / "digits.onnx"


def test_digits_keep_their_accuracy(
    digits_onnx: Path, digits: Digits, digits_table: Table, converter: Converter
) -> None:
    bundle = converter("digits.onnx", reference=digits_table, label="digit")
    assert_golden(bundle, digits)
    assert bundle.manifest.inputs[0].columns == digits.columns
    assert bundle.manifest.prediction == Prediction("y", "probabilities")
    assert bundle.manifest.lineage.source == "digits.onnx"
    assert bundle.file("model.onnx").read_bytes() == digits_onnx.read_bytes()


def test_converting_twice_gives_the_same_digest(digits_onnx: Path, digits_table: Table, converter: Converter) -> None:
    one, two = (
        converter(digits_onnx, reference=digits_table, label="digit", destination=name) for name in ("one", "two")
    )
    assert one.digest == two.digest


def test_scores_that_do_not_sum_to_one_are_logits(tmp_path: Path, converter: Converter) -> None:
    onnx.save(linear_graph(np.eye(3), softmax=False), tmp_path / "m.onnx")
    assert converter("m.onnx").manifest.prediction == Prediction("y", "logits")


def test_external_data_travels_along(tmp_path: Path, converter: Converter) -> None:
    graph = linear_graph(np.eye(3))
    onnx.save(graph, tmp_path / "m.onnx", save_as_external_data=True, location="m.weights", size_threshold=0)
    bundle = converter("m.onnx")
    assert "m.weights" in bundle.manifest.files
    with Model(read_bundle(bundle.path)) as model:
        assert model.infer({"pixels": np.eye(3, dtype=np.float32)})["y"].argmax(axis=1).tolist() == [0, 1, 2]
    (tmp_path / "m.weights").unlink()
    with pytest.raises(InvalidSource, match=r"keeps tensors in 'm\.weights', which is not in"):
        converter("m.onnx", destination="other")


def test_external_data_outside_the_folder_is_refused(tmp_path: Path, converter: Converter) -> None:
    graph = linear_graph(np.eye(3))
    onnx.save(graph, tmp_path / "m.onnx", save_as_external_data=True, location="m.weights", size_threshold=0)
    stored = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    stored.graph.initializer[0].external_data[0].value = "../secret"
    (tmp_path / "m.onnx").write_bytes(stored.SerializeToString())
    with pytest.raises(InvalidSource, match="outside its folder"):
        converter("m.onnx")


def test_a_graph_of_a_fixed_batch_does_not_batch(tmp_path: Path, converter: Converter) -> None:
    onnx.save(linear_graph(np.eye(3), batch=1), tmp_path / "m.onnx")
    table = make_table({"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.0, 0.0]})
    engine = converter("m.onnx", reference=table).manifest.engine
    assert not engine.batching
    assert engine.max_batch == 1


def test_an_input_without_any_axis_is_refused_by_its_name(tmp_path: Path, converter: Converter) -> None:
    x = onnx.helper.make_tensor_value_info("scale", onnx.TensorProto.FLOAT, [])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["scale"], ["y"])], "g", [x], [y])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "m.onnx",
    )
    with pytest.raises(InvalidSource, match="input 'scale' is a single number"):
        converter("m.onnx")


def test_regression_wants_one_number_per_row(tmp_path: Path, converter: Converter) -> None:
    onnx.save(linear_graph(np.ones((3, 1)), softmax=False), tmp_path / "m.onnx")
    assert converter("m.onnx", task="regression").manifest.prediction == Prediction("y", "value")
    with pytest.raises(InvalidSource, match=r"no output does classification.*'y' FP32"):
        converter("m.onnx", destination="other")


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x09\x12\x00"])
def test_a_broken_file_is_said_to_be_broken(content: bytes, tmp_path: Path, converter: Converter) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InvalidSource, match=r"m\.onnx is not a"):
        converter("m.onnx")


def test_maps_instead_of_tensors_are_refused_with_advice(tmp_path: Path, converter: Converter, digits: Digits) -> None:
    from skl2onnx import to_onnx

    (tmp_path / "m.onnx").write_bytes(to_onnx(digits.model, digits.x_train[:1]).SerializeToString())
    with pytest.raises(InvalidSource, match=r"no tensor but a sequence_type; .*zipmap"):
        converter("m.onnx")


def test_a_file_that_is_not_there_is_said(converter: Converter) -> None:
    with pytest.raises(InvalidSource, match=r"absent\.onnx does not exist; a source is"):
        converter("absent.onnx")


def test_a_file_of_another_kind_is_said(tmp_path: Path, converter: Converter) -> None:
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(InvalidSource, match="no known kind"):
        converter("model.h5")


def test_columns_that_do_not_fit_are_said(digits_onnx: Path, converter: Converter) -> None:
    with pytest.raises(InvalidData, match=r"'pixels'.*has no column of that name"):
        converter(digits_onnx, reference=make_table({"a": [1.0], "b": [2.0]}))


def test_labels_come_from_the_user_or_from_the_data(tmp_path: Path, converter: Converter) -> None:
    onnx.save(linear_graph(np.eye(2)), tmp_path / "m.onnx")
    table = make_table({"a": [1.0, 0.0], "b": [0.0, 1.0], "kind": ["dog", "cat"]})
    assert converter("m.onnx", reference=table, label="kind").manifest.labels == ("cat", "dog")
    assert converter("m.onnx", destination="two").manifest.labels == ("0", "1")
    assert converter("m.onnx", labels=["no", "yes"], destination="three").manifest.labels == ("no", "yes")
    with pytest.raises(InvalidConfig, match="has 3 names, but the model scores 2"):
        converter("m.onnx", labels=["a", "b", "c"], destination="four")


def test_a_name_or_task_that_cannot_be_is_refused(converter: Converter) -> None:
    with pytest.raises(InvalidConfig, match="no model name"):
        converter("m.onnx", name="../up")
    with pytest.raises(InvalidConfig, match="no task 'clasification'; known: classification"):
        converter("m.onnx", task="clasification")


def test_an_input_of_the_model_named_like_an_argument_of_numpy_is_fine(tmp_path: Path) -> None:
    graph = linear_graph(np.eye(2))
    graph.graph.input[0].name = graph.graph.node[0].input[0] = "file"
    onnx.save(graph, tmp_path / "m.onnx")
    bundle = convert(
        "m.onnx", destination=tmp_path / "out", name="m", task="classification", reference=None, root=tmp_path
    )
    assert bundle.manifest.inputs[0].name == "file"
