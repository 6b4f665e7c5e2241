"""Passes for transformers: the answers stay, on texts of any length in batches of any size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.optimization.build import apply_recipe
from fairway.optimization.graphs import external_files, largest_difference
from fairway.optimization.passes import attention, narrow
from fairway.optimization.passes.base import NothingToDo, Sample
from fairway.optimization.recipes import Stage
from tests.optimization import transformers_tiny as tiny

pytest.importorskip("transformers")
pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.export_bert(tmp_path_factory.mktemp("bert") / "model.onnx")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.export_gpt2(tmp_path_factory.mktemp("gpt2") / "model.onnx")


def apply(described: Any, source: Path, folder: Path, sample: Sample, **given: Any) -> Path:
    folder.mkdir(exist_ok=True)
    described.apply(source, folder / "model.onnx", described.settings(given), sample)
    return folder / "model.onnx"


def count(graph: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(graph).graph.node)


def answer(graph: Path, feed: Any) -> Any:
    engine = OnnxRuntimeEngine(graph)
    return engine.infer(feed)[engine.outputs[0].name]


def test_each_attention_of_bert_becomes_one_operator_and_its_products_one(bert: Path, tmp_path: Path) -> None:
    made = apply(attention.PASS, bert, tmp_path / "made", tiny.sample())
    before, after = count(bert), count(made)
    assert after["MultiHeadAttention"] == 2
    assert after["Softmax"] == 0
    assert before["MatMul"] - after["MatMul"] == 2 * (2 + 2)  # the two within attention, and three that became one
    assert largest_difference(bert, made, tiny.sample()) == ""


def test_attention_that_sees_only_what_came_before_is_kept_so(gpt2: Path, tmp_path: Path) -> None:
    rows = tiny.sample(types=False)
    made = apply(attention.PASS, gpt2, tmp_path / "made", rows)
    assert count(made)["MultiHeadAttention"] == 2
    assert largest_difference(gpt2, made, rows) == ""
    ids, mask = rows.feed["input_ids"][:1].copy(), rows.feed["attention_mask"][:1]
    before = answer(made, {"input_ids": ids, "attention_mask": mask})
    ids[:, -1] = 1 + ids[:, -1] % 40
    np.testing.assert_allclose(
        answer(made, {"input_ids": ids, "attention_mask": mask})[:, :-1], before[:, :-1], atol=1e-5
    )


def test_a_classifier_computes_only_the_first_token_in_its_last_layer(bert: Path, tmp_path: Path) -> None:
    fused = apply(attention.PASS, bert, tmp_path / "fused", tiny.sample())
    made = apply(narrow.PASS, fused, tmp_path / "made", tiny.sample())
    assert largest_difference(bert, made, tiny.sample()) == ""
    engine_rows = {name: value[:3, :5] for name, value in tiny.sample().feed.items()}
    np.testing.assert_allclose(answer(made, engine_rows), answer(bert, engine_rows), atol=1e-4)
    products = [n for n in onnx.load(made).graph.node if n.op_type == "MatMul"]
    assert len(products) == count(fused)["MatMul"] + 1  # query apart from key and value


def test_where_every_token_is_read_there_is_nothing_to_narrow(gpt2: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="single token"):
        apply(narrow.PASS, gpt2, tmp_path / "made", tiny.sample(types=False))


def test_without_heads_split_off_narrowing_stops_where_attention_begins(bert: Path, tmp_path: Path) -> None:
    made = apply(narrow.PASS, bert, tmp_path / "made", tiny.sample())
    assert largest_difference(bert, made, tiny.sample()) == ""


def test_large_weights_stay_beside_the_graph(bert: Path, tmp_path: Path) -> None:
    source = tmp_path / "external" / "model.onnx"
    source.parent.mkdir()
    onnx.save_model(onnx.load(bert), source, save_as_external_data=True, location="w.bin", size_threshold=64)
    stages = [Stage("attention"), Stage("narrow")]
    (tmp_path / "scratch").mkdir()
    made, records = apply_recipe(source, stages, tiny.sample(), tmp_path / "scratch")
    assert [record.name for record in records] == ["attention", "narrow"]
    assert external_files(made) == ("model.onnx.data",)
    assert largest_difference(bert, made, tiny.sample()) == ""
