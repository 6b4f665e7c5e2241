"""Transformers small enough for tests, with weights large enough that every operator matters, exported as Fairway does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.extras import require
from fairway.optimization.passes.base import Sample

TOKENS, VOCABULARY = 12, 50


def export_bert(path: Path, *, layers: int = 2) -> Path:
    """A classifier of 3 classes: reads the first token."""
    transformers: Any = require("transformers", extra="huggingface")
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=TOKENS, num_labels=3, initializer_range=0.4, attn_implementation="eager",
    )  # fmt: skip
    return _export(
        path, transformers.BertForSequenceClassification, config, ["input_ids", "attention_mask", "token_type_ids"]
    )


def export_gpt2(path: Path) -> Path:
    """A language model: each token sees those before it."""
    transformers: Any = require("transformers", extra="huggingface")
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=TOKENS, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2,
        attn_implementation="eager", use_cache=False,
    )  # fmt: skip
    return _export(path, transformers.GPT2LMHeadModel, config, ["input_ids", "attention_mask"])


def sample(rows: int = 24, *, types: bool = True) -> Sample:
    """Texts of several lengths."""
    random = np.random.default_rng(0)
    ids = random.integers(1, VOCABULARY, (rows, TOKENS))
    mask = (np.arange(TOKENS) < random.integers(3, TOKENS + 1, rows)[:, None]).astype(np.int64)
    mask[0] = 1
    feed = {"input_ids": ids * mask, "attention_mask": mask}
    return Sample({**feed, "token_type_ids": np.zeros_like(ids)} if types else feed, rows)


def _export(path: Path, kind: Any, config: Any, inputs: list[str]) -> Path:
    torch: Any = require("torch", extra="torch")
    torch.manual_seed(0)
    return export(path, kind(config).eval(), inputs)


def export(path: Path, network: Any, inputs: list[str]) -> Path:
    """As Fairway exports a Hugging Face model: free batch and length, scores only."""
    from fairway.sources.torch import export_graph

    torch: Any = require("torch", extra="torch")

    class Logits(torch.nn.Module):  # type: ignore[misc] # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *values: Any) -> Any:
            return self.network(**dict(zip(inputs, values, strict=True))).logits

    class Named(Logits):
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            values = (
                (input_ids, attention_mask) if token_type_ids is None else (input_ids, attention_mask, token_type_ids)
            )
            return super().forward(*values)

    example = tuple(torch.ones((2, 7), dtype=torch.int64) for _ in inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    export_graph(Named().eval(), example, path, inputs=inputs, axes=[{0: "batch", 1: "sequence"} for _ in inputs])
    return path
