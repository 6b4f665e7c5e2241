"""BERT of 6 layers of 384, trained here on :mod:`benchmarks.optimization.corpus` (about fifteen minutes on two cores)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.optimization.corpus import LIBRARIES, passages
from benchmarks.optimization.tables import CACHE, Rows, write_rows
from fairway.bundle.format import Bundle, read_bundle
from fairway.core.extras import require
from fairway.sources.convert import convert
from fairway.sources.tables import make_table

TOKENS, VOCABULARY = 64, 8_000
SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
STAGES = ((16, 400), (32, 300), (64, 60))
"""Tokens of the crops that it learns on, and steps. Short ones first: they cost less."""
BATCH, RATE = 64, 5e-4


def checkpoint(folder: Path = CACHE / "text") -> Path:
    """A Hugging Face folder with its tables ``train.parquet`` and ``test.parquet`` beside; trained if it is not there."""
    if not (folder / "done").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        train, test = passages()
        write_rows(folder / "train.parquet", train)
        write_rows(folder / "test.parquet", test)
        tokenizer = _tokenizer(folder, [text for text, _ in train])
        _train(folder, tokenizer, train, test)
        (folder / "done").touch()
    return folder


def text(folder: Path = CACHE / "text") -> tuple[Bundle, tuple[list[str], Any], tuple[list[str], Any]]:
    """The bundle; training texts and their classes; test texts and theirs."""
    import pyarrow.parquet as pq

    source, made = checkpoint(folder), folder.parent / "text.fairway"
    train, test = (pq.read_table(source / f"{name}.parquet") for name in ("train", "test"))
    if not made.is_dir():
        reference = make_table(
            {"text": train["text"].to_pylist()[:256], "label": [LIBRARIES[i] for i in train["label"].to_pylist()[:256]]}
        )
        convert(source, destination=made, name="text", task="classification", reference=reference, label="label")
    rows = tuple((table["text"].to_pylist(), np.array(table["label"].to_pylist())) for table in (train, test))
    return read_bundle(made), rows[0], rows[1]


def _tokenizer(folder: Path, texts: Sequence[str]) -> Any:
    from tokenizers import BertWordPieceTokenizer

    transformers: Any = require("transformers", extra="huggingface")

    made = BertWordPieceTokenizer(lowercase=True)
    made.train_from_iterator(texts, vocab_size=VOCABULARY, min_frequency=2, show_progress=False)
    tokenizer = transformers.BertTokenizerFast(tokenizer_object=made._tokenizer, model_max_length=TOKENS)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _train(folder: Path, tokenizer: Any, train: Rows, test: Rows) -> None:
    import torch

    transformers: Any = require("transformers", extra="huggingface")

    torch.manual_seed(0)
    torch.set_num_threads(2)
    names = dict(enumerate(LIBRARIES))
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=TOKENS, num_labels=len(LIBRARIES), id2label=names,
        label2id={name: i for i, name in names.items()}, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0, **SHAPE,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    ids, labels = _encode(tokenizer, train)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    steps = sum(count for _, count in STAGES)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.15)
    draw, started, step = np.random.default_rng(0), time.monotonic(), 0
    for length, count in STAGES:
        for _ in range(count):
            rows = draw.integers(0, len(ids), BATCH)
            crop = _crop(ids[rows], length, draw)
            loss = model(
                input_ids=torch.from_numpy(crop),
                attention_mask=torch.from_numpy((crop != 0).astype(np.int64)),
                labels=torch.from_numpy(labels[rows]),
            ).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            step += 1
            if step % 40 == 0:
                print(f"step {step}/{steps}: loss {loss.item():.3f}, {time.monotonic() - started:.0f} s", flush=True)
    model.eval().save_pretrained(folder)
    print(f"accuracy {_accuracy(model, tokenizer, test[:1000]):.3f} on 1,000 test rows", flush=True)


def _encode(tokenizer: Any, rows: Rows) -> tuple[Any, Any]:
    encoded = tokenizer([text for text, _ in rows], padding="max_length", truncation=True, max_length=TOKENS)
    return np.array(encoded["input_ids"]), np.array([label for _, label in rows])


def _crop(ids: Any, length: int, draw: Any) -> Any:
    """A stretch of each row, from a random place, behind the first token."""
    if length == ids.shape[1]:
        return ids
    filled = (ids != 0).sum(axis=1)
    starts = 1 + draw.integers(0, np.maximum(filled - length, 1))
    inner = ids[np.arange(len(ids))[:, None], starts[:, None] + np.arange(length - 1)]
    return np.concatenate([ids[:, :1], inner], axis=1)


def _accuracy(model: Any, tokenizer: Any, rows: Rows) -> float:
    import torch

    ids, labels = _encode(tokenizer, rows)
    with torch.no_grad():
        scores = [
            model(input_ids=(part := torch.from_numpy(ids[i : i + 50])), attention_mask=(part != 0).long()).logits
            for i in range(0, len(ids), 50)
        ]
    return float((torch.cat(scores).argmax(1).numpy() == labels).mean())


if __name__ == "__main__":
    checkpoint()
