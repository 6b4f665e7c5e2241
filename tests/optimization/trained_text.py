"""A small transformer trained on a real task within seconds: which library is a line of documentation from?"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.optimization.corpus import docstrings, masked
from fairway.core.extras import require
from fairway.optimization.passes.base import Sample
from tests.optimization.transformers_tiny import export

LIBRARIES = ("sqlalchemy/orm", "matplotlib", "sklearn/linear_model", "scipy/stats")
TOKENS, VOCABULARY, STEPS = 24, 2_000, 220


class Trained(NamedTuple):
    graph: Path
    sample: Sample
    feed: dict[str, Any]
    labels: Any


def trained(folder: Path) -> Trained:
    """The graph, calibration rows, and test rows from files that it did not learn from."""
    (train_ids, train_labels), (test_ids, test_labels) = _rows()
    path = export(folder / "model.onnx", _learn(train_ids, train_labels), ["input_ids", "attention_mask"])
    return Trained(path, Sample(_feed(train_ids[:128]), 128), _feed(test_ids), test_labels)


def _feed(ids: Any) -> dict[str, Any]:
    return {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}


def _rows() -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    sides: dict[bool, list[tuple[list[int], int]]] = {True: [], False: []}
    for label, library in enumerate(LIBRARIES):
        for held_out, text in docstrings(library, files=40):
            words = [zlib.crc32(word.lower().encode()) % (VOCABULARY - 2) + 2 for word in masked(text)]
            for start in range(0, len(words) - 8, TOKENS - 1):
                row = [1, *words[start : start + TOKENS - 1]]
                sides[held_out].append((row + [0] * (TOKENS - len(row)), label))
    random = np.random.default_rng(0)
    found = []
    for held_out, most in ((False, 1500), (True, 250)):
        chosen: list[tuple[list[int], int]] = []
        for label in range(len(LIBRARIES)):
            own = [row for row in sides[held_out] if row[1] == label]
            chosen += [own[i] for i in random.permutation(len(own))[:most]]
        mixed = [chosen[i] for i in random.permutation(len(chosen))]
        found.append((np.array([row for row, _ in mixed]), np.array([label for _, label in mixed])))
    return found[0], found[1]


def _learn(ids: Any, labels: Any) -> Any:
    torch: Any = require("torch", extra="torch")
    transformers: Any = require("transformers", extra="huggingface")
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network gains nothing from more, and loses where others run
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=TOKENS, num_labels=len(LIBRARIES), attn_implementation="eager",
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    network = transformers.BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    draw = np.random.default_rng(0)
    for _ in range(STEPS):
        rows = draw.integers(0, len(ids), 32)
        batch = {name: torch.from_numpy(array) for name, array in _feed(ids[rows]).items()}
        network(**batch, labels=torch.from_numpy(labels[rows])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    torch.set_num_threads(threads)
    return network.eval()
