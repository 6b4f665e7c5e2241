"""Bundles to export: a classifier of numbers, one with its weights outside of the graph, and one of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fairway.bundle.format import Bundle, write_bundle
from fairway.bundle.samples import SAMPLES, encode_samples
from fairway.core.manifest import Cost, Manifest, Prediction, Processing, Step
from fairway.core.tensors import Datatype, Tensors, TensorSpec
from fairway.testing.builders import linear_bundle


def rows(count: int, seed: int = 0) -> Tensors:
    return {"x": np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)}


def changed(bundle: Bundle, path: Path, added: dict[str, Path | bytes] | None = None, **changes: Any) -> Bundle:
    """The same bundle with a few things otherwise; ``added`` files take the place of those of their name."""
    manifest = msgspec.structs.replace(bundle.manifest, **changes)
    files: dict[str, Path | bytes] = {name: bundle.file(name) for name in bundle.manifest.files}
    return write_bundle(path, manifest, files | (added or {}))


@pytest.fixture
def numbers(tmp_path: Path) -> Bundle:
    """Tuned: one thread, at most 32 rows, 80 µs a call and 10 µs a row; with recorded rows."""
    weights = np.random.default_rng(7).normal(size=(4, 3))
    plain = linear_bundle(
        tmp_path / "plain", name="numbers", weights=weights, bias=np.zeros(3), labels=("low", "mid", "high")
    )
    engine = msgspec.structs.replace(plain.manifest.engine, max_batch=32, cost=Cost(80.0, 10.0))
    return changed(plain, tmp_path / "numbers.fairway", {SAMPLES: encode_samples(rows(3))}, engine=engine)


@pytest.fixture
def outside(numbers: Bundle, tmp_path: Path) -> Bundle:
    """Weights in a file beside the graph, both in a folder of the bundle."""
    model = onnx.load(numbers.file("model.onnx"))
    folder = tmp_path / "outside"
    folder.mkdir()
    onnx.save(model, folder / "g.onnx", save_as_external_data=True, location="g.weights", size_threshold=0)
    engine = msgspec.structs.replace(numbers.manifest.engine, file="graph/g.onnx")
    manifest = msgspec.structs.replace(numbers.manifest, engine=engine)
    files: dict[str, Path | bytes] = {"graph/g.onnx": folder / "g.onnx", "graph/g.weights": folder / "g.weights"}
    return write_bundle(tmp_path / "outside.fairway", manifest, files)


@pytest.fixture
def texts(tmp_path: Path) -> Bundle:
    """Counts good and bad words, after a tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    table = np.array([[0, 0], [0, 0], [-1, 1], [1, -1]], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["words"]),
            helper.make_node("ReduceSum", ["words", "axis"], ["scores"], keepdims=0),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ],
        "mood",
        [helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, [None, None])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axis")],
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
    files: dict[str, Path | bytes] = {
        "model.onnx": model.SerializeToString(),
        "tokenizer.json": tokenizer.to_str().encode(),
        SAMPLES: encode_samples({"text": np.array([b"good film", "böse bad".encode()], object)}),
    }
    return write_bundle(tmp_path / "mood.fairway", manifest, files)
