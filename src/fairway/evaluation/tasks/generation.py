"""Text generation: how probable the model finds the wanted text, and how near to it what it writes is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fairway.core.errors import InvalidBundle, InvalidData
from fairway.core.extras import require
from fairway.evaluation.tallied import Form, Scale, Sums, Tallied, mean_of, ratio
from fairway.evaluation.tasks.base import Data, Task, check_finite, prediction_of, reduced

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.predictions import Floats, Scored
    from fairway.model import Model

NEXT = "next_token_logits"
"""The output of what comes after each row: ``[rows, vocabulary]``."""
_BATCH = 8
"""Rows at once: inside the graph each token has a score per word of the vocabulary."""
_ORDERS = 4
_WRITTEN = ("exact_match_score", "bleu_score", "rouge_1_score", "rouge_2_score", "rouge_l_score")


class Answered(NamedTuple):
    """What a model wrote (``None``: it was not asked to), and per row the loss of the wanted text and its tokens."""

    texts: list[str] | None
    losses: Floats | None = None
    tokens: Floats | None = None


class Generation(Task):
    """The label is the wanted text, or a list of texts that are all right. The model's text column holds the prompt; if that
    is the label's own column, there is no prompt, and the label is only weighed, not written. The model gives the log
    probability of each token; or the text itself, made elsewhere.

    What a model of tokens writes is greedy: the most probable token each time, up to ``[evaluate] max_tokens``, each from the
    whole text again (no cache of keys and values): meant for short answers and small models.
    """

    name = "generation"
    kinds = ("token_log_probabilities", "text")
    main = ("rouge_l_score", "perplexity")

    def read(self, data: Data) -> list[list[str]]:
        """The wanted texts of every row."""
        wanted = [value if isinstance(value, list) else [value] for value in data.truth()]
        if any(not texts or not all(isinstance(text, str) for text in texts) for texts in wanted):
            raise InvalidData(f"{data.where} holds other things than texts, or a row without any")
        return wanted

    def ask(self, model: Model, data: Data) -> Answered:
        """Weigh the wanted texts and write others; or only take the model's texts."""
        assert model.manifest.prediction is not None
        output = prediction_of(model)
        if model.manifest.prediction.kind == "text":
            return Answered(
                reduced(model, data, [output], lambda given: [_text(item) for item in given[output].ravel()])
            )
        spec = model.inputs[0]
        column = spec.columns[0] if spec.columns else spec.name
        wanted = [texts[0] for texts in self.read(data)]
        prompts = [""] * len(wanted) if column == data.label else [str(text) for text in data.truth(column)]
        weighed = _weigh(model, prompts, wanted, data)
        written = _write(model, prompts, data) if column != data.label and data.settings.max_tokens else None
        return Answered(written, *weighed)

    def score(
        self,
        truth: list[list[str]],
        answers: Sequence[Answered],
        models: Sequence[Model],  # noqa: ARG002
        data: Data,  # noqa: ARG002
    ) -> list[Scored]:
        """Text by text."""
        return [tally(truth, given) for given in answers]


def tally(truth: Sequence[Sequence[str]], given: Answered) -> Tallied:
    """Rows of texts; the loss of a row is its mean loss per token, in nats, or 1 less its ROUGE-L."""
    blocks: dict[str, Tensor] = {"one": np.ones((len(truth), 1), bool)}
    forms: dict[str, Form] = {}
    cannot: dict[str, str] = {}
    loss: Floats = np.zeros(len(truth))
    if given.texts is None:
        why = "the model writes nothing: its text column is the label, or max_tokens under [evaluate] is 0"
        cannot |= dict.fromkeys(_WRITTEN, why)
    else:
        blocks |= _written(truth, given.texts)
        forms |= {
            "exact_match_score": mean_of("exact", share=True),
            "bleu_score": Sums(("bleu",), _bleu, high=100.0, scale=Scale.LOGIT, undefined="no text has four words"),
            **{name: mean_of(name) for name in ("rouge_1_score", "rouge_2_score", "rouge_l_score")},
        }
        loss = 1 - blocks["rouge_l_score"][:, 0]
    if given.losses is None or given.tokens is None:
        cannot["perplexity"] = "perplexity needs the probability of each token, and the model answers texts only"
    else:
        blocks |= {"nll": given.losses[:, None], "tokens": given.tokens[:, None]}
        forms["perplexity"] = Sums(
            ("nll", "tokens"), _perplexity, low=1.0, high=np.inf, scale=Scale.LOG, undefined="no token follows another"
        )
        loss = np.divide(given.losses, given.tokens, out=np.zeros(len(truth)), where=given.tokens > 0)
    return Tallied(
        task=Generation.name,
        blocks=blocks,
        forms=forms,
        loss=loss,
        truth=[texts[0] if len(texts) == 1 else list(texts) for texts in truth],
        predicted=given.texts if given.texts is not None else [""] * len(truth),
        cannot=cannot,
    )


def _written(truth: Sequence[Sequence[str]], texts: Sequence[str]) -> dict[str, Tensor]:
    bleu = require("sacrebleu.metrics", extra="generation").BLEU(effective_order=True)
    scorer = require("rouge_score.rouge_scorer", extra="generation").RougeScorer(["rouge1", "rouge2", "rougeL"])
    counts = np.zeros((len(texts), 2 + 2 * _ORDERS))
    rouge = np.zeros((len(texts), 3))
    for row, (wanted, text) in enumerate(zip(truth, texts, strict=True)):
        found = bleu.sentence_score(text, list(wanted))
        counts[row] = [found.sys_len, found.ref_len, *found.counts, *found.totals]
        best = scorer.score_multi(list(wanted), text)
        rouge[row] = [best[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")]
    exact = [text.strip() in {one.strip() for one in wanted} for wanted, text in zip(truth, texts, strict=True)]
    names = ("rouge_1_score", "rouge_2_score", "rouge_l_score")
    return {
        "exact": np.array(exact)[:, None],
        "bleu": counts,
        **{name: rouge[:, place, None] for place, name in enumerate(names)},
    }


def _bleu(sums: Floats) -> Floats:
    """Sacrebleu's score of a corpus from its counts, with its default (exponential) smoothing."""
    said, wanted, counts, totals = sums[:, 0], sums[:, 1], sums[:, 2 : 2 + _ORDERS], sums[:, 2 + _ORDERS :]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        missing = np.cumsum((counts <= 0) & (totals > 0), axis=1)
        precise = np.where(counts > 0, counts / totals, 1 / (2.0**missing * totals))
        brevity = np.where(said < wanted, np.exp(1 - wanted / said), 1.0)
        score = 100 * brevity * np.exp(np.log(precise).mean(axis=1))
    score[(counts <= 0).all(axis=1) | (said <= 0) | (totals <= 0).any(axis=1)] = 0.0
    found: Floats = score
    return found


def _perplexity(nll: Floats, tokens: Floats) -> Floats:
    with np.errstate(over="ignore"):
        found: Floats = np.exp(ratio(nll, tokens))
    return found


def _weigh(model: Model, prompts: Sequence[str], wanted: Sequence[str], data: Data) -> tuple[Floats, Floats]:
    """Per row the negative log probability of the wanted text after its prompt, in nats, and its number of tokens."""
    losses, counts = np.zeros(len(wanted)), np.zeros(len(wanted))
    output = prediction_of(model)
    for start in range(0, len(wanted), _BATCH):
        rows = range(start, min(start + _BATCH, len(wanted)))
        whole = _tokens(model, [prompts[row] + wanted[row] for row in rows])
        before = _tokens(model, [prompts[row] for row in rows])
        found = np.asarray(model.infer(whole, raw=True)[output], np.float64)
        if found.shape != whole["input_ids"].shape:
            raise InvalidBundle(f"{output!r} has shape {list(found.shape)}; one number per token is needed")
        check_finite(found, f"{model.manifest.name}'s {output!r}", start)
        for place, row in enumerate(rows):
            ids, real = whole["input_ids"][place], int(whole["attention_mask"][place].sum())
            first = max(1, _common(ids, before["input_ids"][place][: int(before["attention_mask"][place].sum())]))
            losses[row] = -float(found[place, first:real].sum())
            counts[row] = max(0, real - first)
        _tell(data, f"weighing texts by {model.manifest.name}", rows.stop, len(wanted))
    return losses, counts


def _write(model: Model, prompts: Sequence[str], data: Data) -> list[str]:
    """Greedy continuations."""
    tokenizer = _tokenizer(model)
    texts: list[str] = []
    for start in range(0, len(prompts), _BATCH):
        part = prompts[start : start + _BATCH]
        given = _tokens(model, part)
        lengths = given["attention_mask"].sum(axis=1).astype(int)
        before = [ids[:length].tolist() for ids, length in zip(given["input_ids"], lengths, strict=True)]
        after: list[list[int]] = [[] for _ in part]
        going = [row for row in range(len(part)) if lengths[row]]
        for _ in range(data.settings.max_tokens):
            going = [row for row in going if len(before[row]) + len(after[row]) < tokenizer.max_length]
            if not going:
                break
            scores = np.asarray(model.infer(_padded([before[row] + after[row] for row in going]), raw=True)[NEXT])
            chosen = scores.argmax(axis=1).tolist()
            for row, token in zip(going, chosen, strict=True):
                after[row].append(token)
            going = [row for row in going if after[row][-1] != tokenizer.eos_id]
        texts += [tokenizer.decode([token for token in ids if token != tokenizer.eos_id]) for ids in after]
        _tell(data, f"writing with {model.manifest.name}", len(texts), len(prompts))
    return texts


def _tokens(model: Model, texts: Sequence[str]) -> dict[str, Tensor]:
    asked = np.empty(len(texts), object)
    asked[:] = [text.encode() for text in texts]
    found = dict(model.prepare({model.inputs[0].name: asked}))
    if not {"input_ids", "attention_mask"} <= set(found):
        raise InvalidBundle(f"{model.manifest.name} has no tokenizer; its log probabilities cannot be set beside texts")
    if found["input_ids"].shape[1] == 0:
        found = {name: np.zeros((len(texts), 1), array.dtype) for name, array in found.items()}
    return found


def _padded(rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    ids, mask = (np.zeros((len(rows), longest), np.int64) for _ in range(2))
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def _tokenizer(model: Model) -> Any:
    found = model.tokenizer
    if found is None:
        raise InvalidBundle(f"{model.manifest.name} has no tokenizer; it cannot write texts")
    return found


def _common(whole: Tensor, before: Tensor) -> int:
    """How many tokens the two begin with alike."""
    length = min(len(whole), len(before))
    different = np.flatnonzero(whole[:length] != before[:length])
    return int(different[0]) if len(different) else length


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _tell(data: Data, what: str, done: int, total: int) -> None:
    if data.progress is not None:
        data.progress(what, done, total)
