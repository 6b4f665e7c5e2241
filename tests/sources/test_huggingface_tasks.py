"""Hugging Face folders of every kind, from checkpoint to bundle to an evaluation's numbers."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidConfig, InvalidSource
from fairway.core.manifest import Prediction
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.report import Report
from fairway.evaluation.settings import EvaluationSettings
from fairway.model import Model
from fairway.sources.convert import convert
from fairway.sources.tables import Table

pytestmark = pytest.mark.torch

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "Ann",
    "lives",
    "in",
    "Rome",
    "the",
    "cat",
    "sat",
    "on",
    "mat",
    "##s",
    "cat##",
)
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SENTENCES = [["Ann", "lives", "in", "Rome"], ["cats", "sat"], ["the", "cat", "sat", "on", "the", "mat"], ["Rome"]]


def save(path: Path, network: Any, *, special: bool = True) -> Path:
    """A network beside a word-piece tokenizer, as any fine-tuned one is saved."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from fairway.sources.quiet import quiet

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    with quiet():
        network.save_pretrained(path)
        fast: Any = PreTrainedTokenizerFast
        fast(tokenizer_object=tokenizer, **names).save_pretrained(path)
    return path


def bert(kind: str, **settings: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        initializer_range=1.0,
        **settings,
    )
    return getattr(transformers, kind)(config)


def table(**columns: Any) -> Table:
    return Table(pa.table(columns), digest="sha256:0", origin="test.parquet")


def made(folder: Path, task: str, reference: Table, label: str, **more: Any) -> Bundle:
    return convert(
        folder,
        destination=folder.parent / f"{task}-{label}.fairway",
        name="m",
        task=task,
        reference=reference,
        label=label,
        **more,
    )


def scored(bundle: Bundle, data: Table, label: str, **settings: Any) -> Report:
    with Model(bundle) as model:
        return evaluate(model, data, label=label, settings=EvaluationSettings(resamples=100, **settings))


def value(report: Report, name: str) -> float:
    found = report.measurement(name)
    assert found is not None
    assert not found.error, found.error
    return found.value


# token classification


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = dict(enumerate(TAGS))
    network = bert("BertForTokenClassification", id2label=names, label2id={tag: i for i, tag in names.items()})
    return save(tmp_path_factory.mktemp("ner") / "bert", network)


def original_tags(folder: Path, words: list[str]) -> list[str]:
    """By transformers' own alignment of tokens and words."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    from fairway.sources.quiet import quiet

    with quiet():
        model = AutoModelForTokenClassification.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        best = model(**encoded).logits[0].argmax(-1).tolist()
    first: dict[int, str] = {}
    for place, word in enumerate(encoded.word_ids()):
        if word is not None:
            first.setdefault(word, TAGS[best[place]])
    return [first[number] for number in range(len(words))]


def test_words_get_the_tags_that_the_original_gives_them(tagger: Path) -> None:
    """Lists of words are joined by spaces; cats is two tokens, and its tag that of the first."""
    said = [original_tags(tagger, words) for words in SENTENCES]
    assert len({tag for row in said for tag in row}) > 1
    data = table(words=SENTENCES, tags=said)
    bundle = made(tagger, "token-classification", data, "tags")
    assert [spec.name for spec in bundle.manifest.outputs] == ["logits", "offsets"]
    assert bundle.manifest.prediction == Prediction("logits", "logits")
    assert (bundle.manifest.labels, bundle.manifest.inputs[0].columns) == (TAGS, ("words",))
    report = scored(bundle, data, "tags")
    assert value(report, "token_accuracy_score") == 1.0
    assert report.measurements[0].n == len(SENTENCES)
    numbers = table(
        words=[" ".join(words) for words in SENTENCES], tags=[[TAGS.index(tag) for tag in row] for row in said]
    )
    assert value(scored(bundle, numbers, "tags"), "token_accuracy_score") == 1.0


# generation


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=len(WORDS), n_positions=16, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5, eos_token_id=3
    )
    config.bos_token_id = None
    return save(tmp_path_factory.mktemp("gpt") / "gpt2", GPT2LMHeadModel(config), special=False)


PROMPTS = ["the cat", "Ann lives in", "the", "on the mat the cat"]


def gpt2_parts(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from fairway.sources.quiet import quiet

    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        model.eval()
        return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_perplexity_is_that_of_the_originals_losses(gpt2: Path) -> None:
    """Torch's mean cross-entropy over all tokens that follow another."""
    import torch

    model, tokenizer = gpt2_parts(gpt2)
    losses, tokens = 0.0, 0
    for text in PROMPTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        if ids.shape[1] > 1:
            with torch.no_grad():
                losses += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
            tokens += ids.shape[1] - 1
    data = table(text=PROMPTS)
    bundle = made(gpt2, "generation", data, "text")
    report = scored(bundle, data, "text")
    assert value(report, "perplexity") == pytest.approx(math.exp(losses / tokens), rel=1e-3)
    assert report.measurement("rouge_l_score") is None


def test_what_a_model_writes_is_what_the_original_writes_greedily(gpt2: Path) -> None:
    import torch

    model, tokenizer = gpt2_parts(gpt2)
    written = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            all_ids = model.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=3, pad_token_id=0)
        written.append(tokenizer.decode(all_ids[0, ids.shape[1] :], skip_special_tokens=True))
    data = table(prompt=PROMPTS, answer=[f" {text}" for text in written])
    bundle = made(gpt2, "generation", data, "answer")
    report = scored(bundle, data, "answer", max_tokens=5)
    assert value(report, "exact_match_score") == 1.0
    assert value(report, "perplexity") > 1
    silent = scored(bundle, data, "answer", max_tokens=0)
    assert silent.measurement("exact_match_score") is None


# several labels per text


def test_a_multi_label_text_classifier_is_scored_label_by_label(tmp_path: Path) -> None:
    names = {0: "news", 1: "sport", 2: "art"}
    network = bert("BertForSequenceClassification", id2label=names, problem_type="multi_label_classification")
    folder = save(tmp_path / "bert", network)
    texts = [" ".join(words) for words in SENTENCES]
    data = table(text=texts, topics=[["news"], ["sport", "art"], [], ["art"]])
    bundle = made(folder, "multi-label", data, "topics")
    assert bundle.manifest.labels == ("news", "sport", "art")
    first = scored(bundle, data, "topics")
    joined = table(text=texts, topics=["news", "sport, art", "", "art"])
    hot = table(text=texts, is_news=[1, 0, 0, 0], is_sport=[0, 1, 0, 0], is_art=[0, 1, 0, 1])
    for other, label in ((joined, "topics"), (hot, "is_*")):
        assert scored(bundle, other, label).measurements == first.measurements
    with pytest.raises(InvalidSource, match="does multi-label or embedding, not classification"):
        made(folder, "classification", data, "topics")


# vectors


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("encoder") / "bert", bert("BertModel"))


def test_likeness_is_the_cosine_of_the_vectors_of_both_columns(encoder: Path) -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    one, two = (
        [" ".join(rng.choice(WORDS[4:13], 4)) for _ in range(30)],
        [" ".join(rng.choice(WORDS[4:13], 4)) for _ in range(30)],
    )
    likeness = rng.normal(size=30)
    data = table(one=one, two=two, score=likeness)
    bundle = made(encoder, "embedding", data, "score", features=["one"])
    with Model(bundle) as model:
        sides = [
            model.infer({"text": np.array([t.encode() for t in side], object)})["embedding"] for side in (one, two)
        ]
    a, b = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
    report = scored(bundle, data, "score", pair="two")
    assert value(report, "spearman_correlation_score") == pytest.approx(
        spearmanr((a * b).sum(1), likeness)[0], abs=1e-6
    )
    with pytest.raises(InvalidConfig, match=r"pair = 'COLUMN' under \[evaluate\]"):
        scored(bundle, data, "score")


def test_an_encoder_ranks_the_passages_of_a_query(encoder: Path) -> None:
    data = table(
        query=["the cat"] * 3 + ["Rome"] * 2,
        passage=["the cat", "on the mat", "in Rome", "Ann lives", "Rome"],
        relevant=[1, 0, 0, 0, 1],
    )
    bundle = made(encoder, "ranking", data, "relevant", features=["query"])
    report = scored(bundle, data, "relevant", pair="passage", query="query")
    assert value(report, "reciprocal_rank_score") == 1.0  # a text is nearest to itself
    assert report.measurements[0].n == 2


# what sentence-transformers adds


def with_modules(encoder: Path, folder: Path, *kinds: str) -> Path:
    """A copy that declares modules as a download has them: a module without files has no folder."""
    shutil.copytree(encoder, folder)
    modules = [
        {
            "idx": n,
            "path": "" if kind == "Transformer" else f"{n}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for n, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return folder


def packed(folder: Path) -> Bundle:
    return convert(folder, destination=folder.with_suffix(".fairway"), name="m", task="embedding")


def test_vectors_are_normalized_where_the_modules_say_so(encoder: Path, tmp_path: Path) -> None:
    plain = with_modules(encoder, tmp_path / "plain", "Transformer", "Pooling")
    unit = with_modules(encoder, tmp_path / "unit", "Transformer", "Pooling", "Normalize")
    texts = {"text": np.array([b" ".join(word.encode() for word in WORDS[4:8])], object)}
    with Model(packed(plain)) as one, Model(packed(unit)) as other:
        vector, normalized = one.infer(texts)["embedding"], other.infer(texts)["embedding"]
    assert np.linalg.norm(vector) != pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(normalized, vector / np.linalg.norm(vector), atol=1e-5)


def test_a_module_that_would_be_left_out_is_refused(encoder: Path, tmp_path: Path) -> None:
    folder = with_modules(encoder, tmp_path / "dense", "Transformer", "Pooling", "Dense")
    with pytest.raises(InvalidSource, match="declares a module Dense; known are Transformer, Pooling, Normalize"):
        packed(folder)


def test_texts_are_cut_where_the_original_cuts_them(encoder: Path, tmp_path: Path) -> None:
    folder = with_modules(encoder, tmp_path / "cut", "Transformer", "Pooling")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 5}))
    bundle = packed(folder)
    assert bundle.manifest.processing.pre[0].parameters["max_length"] == 5


@pytest.mark.parametrize("now", ["cls", ["cls"]])
def test_the_way_of_pooling_is_read_in_the_words_of_now_and_of_before(
    now: object, encoder: Path, tmp_path: Path
) -> None:
    texts = {"text": np.array([b" ".join(word.encode() for word in WORDS[4:8])], object)}
    found = []
    for name, said in (("now", {"pooling_mode": now}), ("before", {"pooling_mode_cls_token": True}), ("mean", {})):
        folder = with_modules(encoder, tmp_path / name, "Transformer", "Pooling")
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))
        with Model(packed(folder)) as model:
            found.append(model.infer(texts)["embedding"])
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


def test_another_way_of_pooling_is_refused(encoder: Path, tmp_path: Path) -> None:
    folder = with_modules(encoder, tmp_path / "last", "Transformer", "Pooling")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "lasttoken"}))
    with pytest.raises(InvalidSource, match="declares lasttoken; the mean and the first token are known"):
        packed(folder)
