"""Hugging Face folders: classifiers of texts and of their words, causal language models, and encoders as embeddings."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from fairway.core.errors import InvalidSource
from fairway.core.extras import require
from fairway.core.manifest import EngineSpec, Prediction, Processing, Step
from fairway.core.tensors import Datatype, Tensor, Tensors, TensorSpec
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.sources.candidate import GRAPH, Candidate, Context, Source, refuse_task
from fairway.sources.checkpoints import refuse_untrusted
from fairway.sources.graphs import tidy_graph
from fairway.sources.heads import OFFSETS, language_model, one_tensor, tagger
from fairway.sources.pooling import pooled_encoder
from fairway.sources.quiet import quiet
from fairway.sources.settings import Task
from fairway.sources.tables import Table
from fairway.sources.torch import export_graph, flatten_outputs

TEXT = "text"
TOKENIZER = "tokenizer.json"
_TOKENS = ("input_ids", "attention_mask", "token_type_ids")
_ENDLESS = 1_000_000  # tokenizers without a limit write a huge number
_DEFAULT_LENGTH = 512


def check_folder(folder: Path, *, trust: bool) -> None:
    """Refuse what would run code, before anything is read.

    Raises
    ------
    UntrustedSource
        If the weights are a pickle and ``trust`` is not set, or the folder brings its own Python code (never run).
    InvalidSource
        If the configuration, the weights or the tokenizer are missing.
    """
    config = read_json(folder / "config.json")
    if "auto_map" in config:
        raise InvalidSource(
            f"{folder} brings Python code of its own (auto_map in config.json), which is never run; build the model in your "
            "own code and give it through module:callable"
        )
    if not (folder / TOKENIZER).is_file():
        raise InvalidSource(
            f"{folder} has no {TOKENIZER}; save it with a fast tokenizer: tokenizer.save_pretrained(...)"
        )
    if any(folder.glob("*.safetensors")):
        return
    if not any(folder.glob("pytorch_model*.bin")):
        raise InvalidSource(f"{folder} has no weights (*.safetensors); save it with: model.save_pretrained(...)")
    if not trust:
        reason = "keeps its weights in pytorch_model.bin, a pickle"
        raise refuse_untrusted(folder, reason, "Or save the model as safetensors: model.save_pretrained(...).")


def convert_huggingface(source: Source, context: Context) -> Iterator[Candidate]:
    """Export with free batch and sequence axes; the tokenizer becomes a step before the graph, fed with ``text``.

    Raises
    ------
    InvalidSource
        If the architecture does not do the task, or cannot be loaded or exported.
    """
    folder = Path(source.model)
    network, config = load_network(folder, context.task)
    network.eval()
    known = inspect.signature(network.forward).parameters
    tokens = [
        name
        for name in _TOKENS
        if name in known and (name != "token_type_ids" or getattr(config, "type_vocab_size", 0) > 1)
    ]
    torch: Any = require("torch", extra="huggingface")
    if context.task == "token-classification":
        tokens.insert(2, OFFSETS)
    outputs = _OUTPUTS.get(context.task, ("embedding",))
    if context.task == "ranking" and _classifies(config):
        outputs = ("prediction",)
    wrapped = with_head(network, context.task)
    example = tuple(torch.ones((2, 7, 2) if name == OFFSETS else (2, 7), dtype=torch.int64) for name in tokens)
    axes = [{0: "batch", 1: "sequence"} for _ in tokens]
    export_graph(wrapped, example, context.folder / GRAPH, inputs=tokens, axes=axes)
    engine = OnnxRuntimeEngine(context.folder / GRAPH)
    engine.close()
    made = [spec.name for spec in engine.outputs]
    tidy_graph(context.folder / GRAPH, dict(zip(made, outputs, strict=True)))
    shutil.copyfile(folder / TOKENIZER, context.folder / TOKENIZER)
    yield _candidate(folder, config, wrapped, tokens, context)


def load_network(folder: Path, task: str) -> tuple[Any, Any]:
    """The network that does ``task``, and its configuration. Raises :class:`InvalidSource`."""
    transformers = require("transformers", extra="huggingface")
    local = {"local_files_only": True, "trust_remote_code": False}
    safe = any(folder.glob("*.safetensors"))
    config_json = read_json(folder / "config.json")
    architecture = (config_json.get("architectures") or ["?"])[0]
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder, **local)
            known = tasks_of(config_json)
            if task not in known:
                raise refuse_task(architecture, task, known)
            pooled = task == "embedding" or (task == "ranking" and not _classifies(config))
            auto = getattr(transformers, "AutoModel" if pooled else _AUTO[task])
            options = {**local, "use_safetensors": safe, "weights_only": True, "attn_implementation": "eager"}
            network = auto.from_pretrained(folder, config=config, **options)
    except InvalidSource:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidSource(f"{folder} cannot be loaded: {reason}") from error
    return (pooled_encoder(network, folder) if pooled else network), config


def with_head(network: Any, task: str) -> Any:
    """The network as it is exported: what :func:`load_network` gives, answering in tensors alone."""
    return {"token-classification": tagger, "generation": language_model}.get(task, one_tensor)(network).eval()


def _candidate(folder: Path, config: Any, network: Any, tokens: list[str], context: Context) -> Candidate:
    engine = OnnxRuntimeEngine(context.folder / GRAPH)
    outputs = engine.outputs
    engine.close()
    length = _max_length(folder, config)
    pad = getattr(config, "pad_token_id", None) or 0
    parameters = {"file": TOKENIZER, "input": TEXT, "outputs": tokens, "max_length": length, "pad_id": pad}
    ends = getattr(config, "eos_token_id", None)
    if context.task == "generation" and isinstance(ends, int):
        parameters["eos_id"] = ends
    step = Step("tokenize", parameters)
    if outputs[0].name == "prediction":
        outputs = (msgspec.structs.replace(outputs[0], shape=(-1, 1)),)
    prediction = msgspec.convert({"output": outputs[0].name, "kind": _KINDS[outputs[0].name]}, Prediction)
    return Candidate(
        context.folder,
        (TensorSpec(TEXT, Datatype.BYTES, (-1,), _text_column(context)),),
        outputs,
        _original(folder, network, tokens, [spec.name for spec in outputs], length),
        prediction,
        _labels(config, context) if outputs[0].name == "logits" else (),
        Processing(pre=(step,)),
        EngineSpec(max_batch=32),
    )


def _original(folder: Path, network: Any, tokens: list[str], outputs: list[str], length: int) -> Any:
    """Through the folder's own tokenizer, as its author would call it."""
    torch = require("torch", extra="huggingface")
    transformers = require("transformers", extra="huggingface")
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(network.network.config.pad_token_id or 0)

    def original(feed: Tensors, _: Table | None) -> Tensors:
        texts = [text.decode("utf-8", "replace") for text in feed[TEXT]]
        encoded = tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=length,
            return_tensors="pt",
            return_token_type_ids=True,
            return_offsets_mapping=OFFSETS in tokens,
        )
        if not encoded["input_ids"].shape[1]:  # only empty texts, and no special tokens
            encoded = {name: torch.zeros((len(texts), 1), dtype=torch.int64) for name in tokens}
        with torch.no_grad():
            given: list[Tensor] = flatten_outputs(network(*[encoded[name] for name in tokens]))
        return dict(zip(outputs, given, strict=True))

    return original


def _text_column(context: Context) -> tuple[str, ...]:
    """The column of text: ``text``, or the only one among the features that holds strings."""
    table = context.reference
    if table is None or TEXT in table.columns:
        return (TEXT,) if table is not None else ()
    texts = [name for name in context.features if table.datatype(name) is Datatype.BYTES]
    if not texts and context.task == "generation" and context.label:
        return (context.label,)  # no prompt: its probability is all that is asked
    return tuple(texts) if len(texts) == 1 else ()


def _labels(config: Any, context: Context) -> tuple[str, ...]:
    names = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    if context.labels or all(name == f"LABEL_{i}" for i, name in enumerate(names)):  # transformers' placeholders
        return context.class_names(len(names))
    return names


def tasks_of(config: dict[str, Any]) -> tuple[Task, ...]:
    """What a ``config.json``'s architecture can do, the likeliest first."""
    architecture = str((config.get("architectures") or [""])[0])
    if architecture.endswith("ForTokenClassification"):
        return ("token-classification", "embedding", "ranking")
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return ("generation",)
    if not architecture.endswith("ForSequenceClassification"):
        return ("embedding", "ranking")
    if config.get("problem_type") == "multi_label_classification":
        return ("multi-label", "embedding")
    if config.get("problem_type") == "regression" or len(config.get("id2label", {"0": "", "1": ""})) == 1:
        return ("regression", "ranking", "embedding")
    return (
        ("classification", "embedding")
        if config.get("problem_type")
        else ("classification", "multi-label", "embedding")
    )


def _classifies(config: Any) -> bool:
    return str((config.architectures or [""])[0]).endswith("ForSequenceClassification")


_AUTO = {
    "classification": "AutoModelForSequenceClassification",
    "multi-label": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "ranking": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "generation": "AutoModelForCausalLM",
}
_OUTPUTS: dict[str, tuple[str, ...]] = {
    "classification": ("logits",),
    "multi-label": ("logits",),
    "regression": ("prediction",),
    "token-classification": ("logits", "offsets"),
    "generation": ("token_log_probabilities", "next_token_logits"),
}
_KINDS = {
    "logits": "logits",
    "prediction": "value",
    "embedding": "embedding",
    "token_log_probabilities": "token_log_probabilities",
}


def _max_length(folder: Path, config: Any) -> int:
    file = folder / "tokenizer_config.json"
    declared = read_json(file).get("model_max_length") if file.is_file() else None
    positions = getattr(config, "max_position_embeddings", None)
    if positions and getattr(config, "model_type", "") in _OFFSET_POSITIONS:
        positions -= (getattr(config, "pad_token_id", 0) or 0) + 1
    sentences = folder / "sentence_bert_config.json"  # what sentence-transformers cuts at
    cut = read_json(sentences).get("max_seq_length") if sentences.is_file() else None
    limits = [int(n) for n in (declared, positions, cut) if isinstance(n, int | float) and 0 < n < _ENDLESS]
    return min(limits, default=_DEFAULT_LENGTH)


_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
"""Architectures that number positions from after the padding token."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the folder, or :class:`InvalidSource`."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidSource(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise InvalidSource(f"{path} is no JSON object")
    return content
