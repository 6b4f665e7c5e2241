"""Passes for transformers: the answers stay, on texts of any length in batches of any size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fairway.core.manifest import EngineSpec
from fairway.engines.base import load_engine
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.optimization.build import apply_recipe, engine_after
from fairway.optimization.graphs import external_files, largest_difference
from fairway.optimization.passes import (
    attention,
    dynamic,
    halves,
    mixed,
    narrow,
    nbits,
    nncf,
    openvino,
    simplify,
    smooth,
    static,
    tokens,
    unfuse,
)  # fmt: skip
from fairway.optimization.passes.base import NothingToDo, Sample
from fairway.optimization.recipes import Stage
from fairway.optimization.rewrites.base import Rewriting
from fairway.optimization.rewrites.tokens import drop_tokens
from tests.optimization import transformers_tiny as tiny

pytest.importorskip("transformers")
pytestmark = pytest.mark.torch
WEIGHTS = {"per_channel": True, "reduce_range": True}


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


# --- fewer tokens -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fused(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return apply(attention.PASS, bert, tmp_path_factory.mktemp("fused"), tiny.sample())


def test_keeping_every_token_changes_nothing(bert: Path, fused: Path, tmp_path: Path) -> None:
    model = onnx.load(fused)
    drop_tokens(Rewriting(model), {1: tiny.TOKENS})
    onnx.save(model, tmp_path / "model.onnx")
    assert largest_difference(bert, tmp_path / "model.onnx", tiny.sample()) == ""


def test_fewer_tokens_answer_a_little_otherwise_and_the_less_the_more_are_kept(fused: Path, tmp_path: Path) -> None:
    feed = tiny.sample().feed
    wanted = answer(fused, feed)
    gaps = []
    for share in (0.9, 0.7, 0.4):
        made = apply(tokens.PASS, fused, tmp_path / str(share), tiny.sample(), first=1, share=share)
        gaps.append(float(np.abs(answer(made, feed) - wanted).mean()))
    assert 0 < gaps[0] < gaps[1] < gaps[2]


def test_which_tokens_are_kept_does_not_depend_on_padding_or_on_other_texts(fused: Path, tmp_path: Path) -> None:
    made = apply(tokens.PASS, fused, tmp_path / "made", tiny.sample(), first=1, share=0.5)
    feed = tiny.sample().feed
    together = answer(made, feed)
    for row in range(6):
        length = int(feed["attention_mask"][row].sum())
        alone = answer(made, {name: value[row : row + 1, :length] for name, value in feed.items()})
        np.testing.assert_allclose(alone[0], together[row], atol=1e-4)


def test_tokens_are_dropped_narrowed_and_quantized_in_one_recipe(bert: Path, tmp_path: Path) -> None:
    parameters = {"first": 1, "share": 0.7}
    stages = [Stage("attention"), Stage("tokens", parameters), Stage("narrow"), Stage("int8-dynamic", WEIGHTS)]
    made, records = apply_recipe(bert, stages, tiny.sample(), tmp_path)
    assert [record.name for record in records] == ["attention", "tokens", "narrow", "int8-dynamic"]
    kept = answer(made, tiny.sample().feed).argmax(axis=1) == answer(bert, tiny.sample().feed).argmax(axis=1)
    assert kept.mean() > 0.7


@pytest.mark.parametrize(("first", "said"), [(9, "none after layer 9")])
def test_where_no_layer_is_left_there_is_nothing_to_drop(fused: Path, tmp_path: Path, first: int, said: str) -> None:
    with pytest.raises(NothingToDo, match=said):
        apply(tokens.PASS, fused, tmp_path / "made", tiny.sample(), first=first)


def test_a_language_model_keeps_its_tokens(gpt2: Path, tmp_path: Path) -> None:
    rows = tiny.sample(types=False)
    made = apply(attention.PASS, gpt2, tmp_path / "fused", rows)
    with pytest.raises(NothingToDo):
        apply(tokens.PASS, made, tmp_path / "made", rows)


# --- weights and activations ------------------------------------------------------------------------------------


def error(made: Path, original: Path) -> float:
    feed = tiny.sample().feed
    return float(np.mean((answer(made, feed) - answer(original, feed)) ** 2))


def test_smoothing_changes_no_answer_and_lessens_the_error_of_outliers(bert: Path, tmp_path: Path) -> None:
    model = onnx.load(bert)
    graph = Rewriting(model)
    norm = next(n for n in model.graph.node if n.op_type == "LayerNormalization")
    gains = np.array(graph.value(norm.input[1]))
    gains[3] *= 60  # one channel far beyond the others, as in large language models
    norm.input[1] = graph.constant(gains, "gains")
    source = tmp_path / "model.onnx"
    onnx.save(model, source)
    smoothed = apply(smooth.PASS, source, tmp_path / "smooth", tiny.sample())
    assert largest_difference(source, smoothed, tiny.sample()) == ""
    errors = [
        error(apply(static.PASS, g, tmp_path / f"q{i}", tiny.sample()), source)
        for i, g in enumerate((source, smoothed))
    ]
    assert errors[1] < 0.8 * errors[0]


def test_what_harms_most_stays_float(fused: Path, tmp_path: Path) -> None:
    plain = apply(static.PASS, fused, tmp_path / "static", tiny.sample())
    made = apply(mixed.PASS, fused, tmp_path / "mixed", tiny.sample(), float_share=0.4)
    assert error(made, fused) < error(plain, fused)
    assert count(plain)["DequantizeLinear"] > count(made)["DequantizeLinear"] > 0


def test_weights_of_16_bits_halve_the_size_and_hardly_move_an_answer(bert: Path, tmp_path: Path) -> None:
    made = apply(halves.PASS, bert, tmp_path / "made", tiny.sample())
    assert made.stat().st_size < 0.65 * bert.stat().st_size
    assert 0 < error(made, bert) < 1e-4


def test_weights_of_4_bits_answer_row_by_row(gpt2: Path, tmp_path: Path) -> None:
    rows = tiny.sample(types=False)
    made = apply(nbits.PASS, gpt2, tmp_path / "made", rows)
    assert count(made)["MatMulNBits"] > 0
    together = answer(made, rows.feed)
    alone = answer(made, {name: value[2:3] for name, value in rows.feed.items()})
    np.testing.assert_allclose(alone[0], together[2], atol=1e-4)


def test_dynamic_int8_answers_depend_on_the_other_rows(bert: Path, tmp_path: Path) -> None:
    made = apply(dynamic.PASS, bert, tmp_path / "made", tiny.sample())
    feed = tiny.sample().feed
    alone = answer(made, {name: value[2:3] for name, value in feed.items()})
    assert np.abs(alone[0] - answer(made, feed)[2]).max() > 1e-4  # so the server keeps requests apart


def test_nncf_quantizes_and_runs_on_either_engine(bert: Path, tmp_path: Path) -> None:
    made = apply(nncf.PASS, bert, tmp_path / "made", tiny.sample())
    assert count(made)["QuantizeLinear"] > 4
    spec = EngineSpec("openvino", "model.onnx")
    engine = load_engine(spec, made.parent)
    rows = {name: value[:8] for name, value in tiny.sample().feed.items()}
    other = engine.infer(rows)[engine.outputs[0].name]
    agree = other.argmax(axis=1) == answer(bert, rows).argmax(axis=1)
    assert agree.mean() >= 0.75


def test_a_graph_of_fused_operators_is_not_nncfs(fused: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match=r"com\.microsoft"):
        apply(nncf.PASS, fused, tmp_path / "made", tiny.sample())


@pytest.mark.parametrize("narrowed", [False, True])
def test_fused_attention_is_written_out_again_for_who_knows_only_the_standard(
    fused: Path, tmp_path: Path, narrowed: bool
) -> None:
    source = apply(narrow.PASS, fused, tmp_path / "narrowed", tiny.sample()) if narrowed else fused
    made = apply(unfuse.PASS, source, tmp_path / "made", tiny.sample())
    assert {entry.domain for entry in onnx.load(made).opset_import} <= {"", "ai.onnx"}
    assert count(made)["Softmax"] == count(source)["MultiHeadAttention"]
    assert largest_difference(fused, made, tiny.sample()) == ""
    assert count(apply(nncf.PASS, made, tmp_path / "int8", tiny.sample()))["QuantizeLinear"] > 4


def test_attention_with_more_than_the_standard_says_plainly_stays(gpt2: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="no attention in one operator"):
        apply(unfuse.PASS, gpt2, tmp_path / "given", tiny.sample(types=False))
    fused = apply(attention.PASS, gpt2, tmp_path / "fused", tiny.sample(types=False))
    model = onnx.load(fused)
    for node in model.graph.node:
        if node.op_type == "MultiHeadAttention":
            node.attribute.append(onnx.helper.make_attribute("unidirectional", 1))
    onnx.save(model, fused)
    with pytest.raises(NothingToDo, match="more than the standard"):
        apply(unfuse.PASS, fused, tmp_path / "made", tiny.sample(types=False))


def test_on_openvino_what_is_not_int8_is_computed_as_the_recipe_says(bert: Path, tmp_path: Path) -> None:
    stages = [Stage("int8-nncf", nncf.PASS.settings()), Stage("openvino-int8", {"precision": "fp32"})]
    _, records = apply_recipe(bert, stages, tiny.sample(), tmp_path)
    assert engine_after(EngineSpec(), records).options == {"precision": "fp32"}
    assert openvino.INT8.engine is not None
    assert openvino.INT8.engine(EngineSpec(), {"precision": "bf16"}).options == {"precision": "bf16"}
    assert openvino.INT8.engine(EngineSpec(), {}).options == {"precision": "fp32"}  # recipes made before it was asked


def test_openvino_takes_over_a_graph_and_gives_the_same_answers(bert: Path, tmp_path: Path) -> None:
    _, records = apply_recipe(bert, [Stage("openvino")], tiny.sample(), tmp_path)
    assert records[0].before == records[0].after
    assert engine_after(EngineSpec(threads=3), records) == EngineSpec(
        "openvino", threads=3, options={"precision": "fp32"}
    )


def test_onnxslim_folds_without_changing_an_answer(bert: Path, tmp_path: Path) -> None:
    made = apply(simplify.PASS, bert, tmp_path / "made", tiny.sample())
    assert sum(count(made).values()) < sum(count(bert).values())
    assert largest_difference(bert, made, tiny.sample()) == ""
