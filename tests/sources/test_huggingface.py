"""Hugging Face folders: text in, the original's answers out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.bundle.format import Bundle, read_bundle
from fairway.bundle.samples import read_samples
from fairway.core.errors import InvalidSource, UntrustedSource
from fairway.core.manifest import Prediction
from fairway.core.tensors import Datatype
from fairway.model import Model
from fairway.sources.convert import convert
from fairway.sources.tables import Table, make_table

pytestmark = pytest.mark.torch

Converter = Callable[..., Bundle]

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "film", "long")
REVIEWS = ("a good film", "bad", "a long long long film", "good", "", "something else", "good " * 40)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights, saved as any fine-tuned one would be."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    from fairway.sources.quiet import quiet

    path: Path = tmp_path_factory.mktemp("hub") / "bert"
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
        initializer_range=1.0,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    with quiet():
        BertForSequenceClassification(config).save_pretrained(path)
        fast: Any = PreTrainedTokenizerFast
        fast(tokenizer_object=tokenizer, **special).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def reviews() -> Table:
    return make_table({"text": list(REVIEWS), "stars": [1, 0, 0, 1, 0, 1, 1]})


@pytest.fixture(scope="session")
def bert_bundle(folder: Path, reviews: Table) -> Bundle:
    return convert(
        "bert",
        destination=folder.parent / "bert.fairway",
        name="reviews",
        task="classification",
        reference=reviews,
        label="stars",
        root=folder.parent,
    )


def original(folder: Path, text: str) -> Any:
    """One text at a time, so that padding has no part in it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from fairway.sources.quiet import quiet

    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokens = tokenizer(text, truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        return model(**tokens).logits.numpy()[0]


def test_text_goes_in_and_the_answers_are_the_original_ones(bert_bundle: Bundle, folder: Path) -> None:
    texts = np.array([text.encode() for text in REVIEWS], dtype=object)
    with Model(read_bundle(bert_bundle.path)) as model:
        answer = model.infer({"text": texts})["logits"]
    np.testing.assert_allclose(answer, [original(folder, text) for text in REVIEWS], rtol=1e-3, atol=1e-4)
    assert np.ptp(answer[:, 0]) > 0.1  # the texts do make a difference


def test_the_bundle_takes_text_and_knows_the_labels(bert_bundle: Bundle) -> None:
    manifest = bert_bundle.manifest
    assert [(spec.name, spec.datatype, spec.shape) for spec in manifest.inputs] == [("text", Datatype.BYTES, (-1,))]
    assert manifest.inputs[0].columns == ("text",)
    assert manifest.labels == ("negative", "positive")
    assert manifest.prediction == Prediction("logits", "logits")
    step = manifest.processing.pre[0]
    assert step.name == "tokenize"
    assert step.parameters["max_length"] == 24
    assert "tokenizer.json" in manifest.files
    assert manifest.lineage.source_kind == "huggingface"
    assert {"transformers", "tokenizers"} <= set(manifest.lineage.environment)


def test_sample_texts_travel_along(bert_bundle: Bundle) -> None:
    assert read_samples(bert_bundle)["text"].tolist() == [text.encode() for text in REVIEWS]


def test_converting_twice_gives_the_same_digest(bert_bundle: Bundle, folder: Path, reviews: Table) -> None:
    again = convert(
        "bert",
        destination=folder.parent / "again",
        name="reviews",
        task="classification",
        reference=reviews,
        label="stars",
        root=folder.parent,
    )
    assert again.digest == bert_bundle.digest


def test_an_encoder_gives_one_vector_per_text_whatever_it_is_batched_with(folder: Path, converter: Converter) -> None:
    bundle = converter(folder, task="embedding")
    assert [(spec.name, spec.shape) for spec in bundle.manifest.outputs] == [("embedding", (-1, 16))]
    assert bundle.manifest.prediction == Prediction("embedding", "embedding")
    short, long = b"good", b"a long long long film"
    with Model(bundle) as model:
        alone = model.infer({"text": np.array([short], dtype=object)})["embedding"]
        beside = model.infer({"text": np.array([short, long], dtype=object)})["embedding"]
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-5)


def test_the_only_column_of_text_is_taken(folder: Path, tmp_path: Path, converter: Converter) -> None:
    table = make_table({"review": list(REVIEWS), "stars": [1, 0, 0, 1, 0, 1, 1]})
    assert converter(folder, reference=table, label="stars").manifest.inputs[0].columns == ("review",)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_pickled_weights_are_refused_without_trust(copy: Path, converter: Converter) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UntrustedSource, match=r"pytorch_model\.bin, a pickle.*safetensors"):
        converter("copy")


def test_pickled_weights_are_read_with_trust(copy: Path, converter: Converter) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert converter("copy", trust=True).manifest.labels == ("negative", "positive")


def test_a_folder_that_brings_code_is_never_run_even_with_trust(copy: Path, converter: Converter) -> None:
    (copy / "modeling.py").write_text("raise SystemExit('this must not run')")
    edit(copy / "config.json", auto_map={"AutoModelForSequenceClassification": "modeling.Model"})
    with pytest.raises(InvalidSource, match="brings Python code of its own"):
        converter("copy", trust=True)


@pytest.mark.parametrize(
    ("absent", "says"),
    [
        ("config.json", "is no Hugging Face folder"),
        ("tokenizer.json", "save it with a fast tokenizer"),
        ("model.safetensors", "has no weights"),
    ],
)
def test_what_is_missing_is_said(absent: str, says: str, copy: Path, converter: Converter) -> None:
    (copy / absent).unlink()
    with pytest.raises(InvalidSource, match=says):
        converter("copy")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_what_is_broken_is_said(file: str, copy: Path, converter: Converter) -> None:
    (copy / file).write_bytes(b"{")
    with pytest.raises(InvalidSource, match=r"cannot be (read|loaded)"):
        converter("copy")


def test_another_task_than_the_architecture_does_is_refused(copy: Path, converter: Converter) -> None:
    with pytest.raises(
        InvalidSource, match="BertForSequenceClassification does classification or multi-label or embedding, not regre"
    ):
        converter("copy", task="regression")
    edit(copy / "config.json", architectures=["BertForMaskedLM"])
    with pytest.raises(InvalidSource, match="BertForMaskedLM does embedding or ranking, not classification"):
        converter("copy")
