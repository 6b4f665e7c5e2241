"""Attention, layer norm and GELU as one operator each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairway.optimization.graphs import external_files, load, operators, save_data, structure
from fairway.optimization.passes.base import NothingToDo, Pass, Sample
from fairway.optimization.quiet import quiet
from fairway.optimization.rewrites.attention import MICROSOFT, fuse_attention
from fairway.optimization.rewrites.base import Rewriting

_FUSED = {
    "Attention",
    "BiasGelu",
    "EmbedLayerNormalization",
    "FastGelu",
    "Gelu",
    "LayerNormalization",
    "MultiHeadAttention",
}


def _apply(source: Path, destination: Path, _parameters: Mapping[str, Any], _sample: Sample) -> None:
    if "Softmax" not in {name for _, name in operators(source)}:
        raise NothingToDo("the graph has no attention")
    model = load(source, data=True)
    rewriting = Rewriting(model)
    fused = fuse_attention(rewriting)
    save_data(
        _known_patterns(model, destination.parent) if not fused else model, destination, bool(external_files(source))
    )
    if structure(source) == structure(destination) or not {n for _, n in operators(destination)} & _FUSED:
        raise NothingToDo("no attention, layer norm or GELU was found in a form that is known")


def _known_patterns(model: Any, scratch: Path) -> Any:
    """What ONNX Runtime's own optimizer knows: the forms that older exporters write, of BERT and GPT-2."""
    with quiet(scratch):
        from onnxruntime.transformers import optimizer

        before = {(node.domain, node.op_type) for node in model.graph.node}
        kind = "gpt2" if ("", "Where") in before and ("", "Split") in before else "bert"
        try:
            made = optimizer.optimize_model(model, model_type=kind, num_heads=0, hidden_size=0, opt_level=0).model
        except Exception as error:
            raise NothingToDo(f"ONNX Runtime's optimizer of transformers does not know this graph ({error})") from error
    Rewriting(made).require_domain(MICROSOFT)
    return made


PASS = Pass(
    name="attention",
    summary="attention, layer norm and GELU as one operator each",
    lossless=True,
    apply=_apply,
    changes=frozenset({"graph"}),
)
