"""Token classification: one tag per word, and the entities that tags spell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fairway.core.errors import InvalidBundle, InvalidData
from fairway.evaluation.labels import label_forms
from fairway.evaluation.tallied import Sums, Tallied, divided, mean_of, overlap_ends
from fairway.evaluation.tasks.base import Data, Task, answered, check_finite, prediction_of

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.predictions import Classes, Floats, Scored
    from fairway.model import Model

OFFSETS = "offsets"
"""The output that says which characters of the text a token is: ``[rows, tokens, 2]``, start and end, equal for none."""
OUTSIDE = "O"


class Tagged(NamedTuple):
    """The true tags of every row, as they are written."""

    tags: list[list[Any]]


class TokenClassification(Task):
    """The label is a list of tags per row (IOB2: ``B-PER``, ``I-PER``, ``O``), one per word. The words are those of the text's
    column: a list, or what is between spaces. A word has the tag of its first token.
    """

    name = "token-classification"
    kinds = ("logits", "probabilities", "label")
    main = ("entity_f1_score", "token_accuracy_score")

    def read(self, data: Data) -> Tagged:
        """The tags."""
        tags = data.truth()
        if any(not isinstance(row, list) for row in tags):
            raise InvalidData(f"{data.where} holds no lists; token classification needs a list of tags per row")
        return Tagged(tags)

    def ask(self, model: Model, data: Data) -> list[Classes]:
        """Of every row the index of the tag of each word, or (without offsets) of each token."""
        output = prediction_of(model)
        aligned = any(spec.name == OFFSETS for spec in model.outputs)
        words = _words(model, data) if aligned else []
        found: list[Classes] = []
        for count, given in answered(model, data, [output, *([OFFSETS] if aligned else [])]):
            raw = given[output]
            check_finite(raw, f"{model.manifest.name}'s {output!r}", len(found))
            tags = raw.argmax(axis=-1) if raw.ndim == 3 else raw.astype(np.intp)
            if tags.ndim != 2:
                raise InvalidBundle(
                    f"{model.manifest.name} answers {list(raw.shape)}; [rows, tokens, tags] or [rows, tokens] is needed"
                )
            for row in range(count):
                offsets = given[OFFSETS][row] if aligned else None
                found.append(tags[row] if offsets is None else _per_word(tags[row], offsets, words[len(found)]))
        return found

    def score(
        self, truth: Tagged, answers: Sequence[list[Classes]], models: Sequence[Model], data: Data
    ) -> list[Scored]:
        """Sentence by sentence."""
        true = [_tags(row, models[0].manifest.labels, data, number) for number, row in enumerate(truth.tags)]
        scored: list[Scored] = []
        for model, rows in zip(models, answers, strict=True):
            labels = model.manifest.labels
            said = [
                [labels[tag] if tag >= 0 else OUTSIDE for tag in _as_many(tags, len(wanted), data, number)]
                for number, (tags, wanted) in enumerate(zip(rows, true, strict=True))
            ]
            scored.append(tally(true, said, labels))
        return scored


def tally(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], labels: tuple[str, ...] = ()) -> Tallied:
    """Rows of tags; the loss of a row is its share of wrong tags."""
    right = np.array([sum(a == b for a, b in zip(*row, strict=True)) for row in zip(truth, predicted, strict=True)])
    tokens = np.array([len(row) for row in truth])
    blocks: dict[str, Tensor] = {"right": right[:, None], "tokens": tokens[:, None]}
    forms = {"token_accuracy_score": mean_of("right", "tokens", undefined="these rows have no words")}
    known = {*labels, *(tag for row in truth for tag in row)}
    cannot = {}
    if spells_entities(known):
        pairs = [(entities(a), entities(b)) for a, b in zip(truth, predicted, strict=True)]
        blocks["hit"] = np.array([[len(a & b)] for a, b in pairs])
        blocks["said"] = np.array([[len(b)] for _, b in pairs])
        blocks["true"] = np.array([[len(a)] for a, _ in pairs])
        none: dict[str, Any] = {"undefined": "there is no entity in these rows", "ends": overlap_ends}
        overlap = ("hit", "said", "true")
        forms["entity_f1_score"] = Sums(overlap, _f1, **none)
        forms["entity_precision_score"] = Sums(overlap, _precision, **none)
        forms["entity_recall_score"] = Sums(overlap, _recall, **none)
    else:
        why = "entities need tags such as B-PER, I-PER and O; these are others"
        cannot = dict.fromkeys(("entity_f1_score", "entity_precision_score", "entity_recall_score"), why)
    return Tallied(
        task=TokenClassification.name,
        blocks=blocks,
        forms=forms,
        loss=1 - np.divide(right, tokens, out=np.ones(len(right)), where=tokens > 0),
        truth=[list(row) for row in truth],
        predicted=[list(row) for row in predicted],
        labels=labels,
        cannot=cannot,
    )


def spells_entities(tags: set[str]) -> bool:
    """Whether tags are of a scheme that marks where entities begin (B, S), go on (I) and end (E, S)."""
    return all(tag == OUTSIDE or tag[:2] in ("B-", "I-", "E-", "S-") for tag in tags)


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The entities that tags spell: type, first and last word. As seqeval and CoNLL's own program find them.

    An ``I`` after nothing, or after another type, begins an entity all the same.

    Examples
    --------
    >>> sorted(entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
    [('LOC', 3, 3), ('LOC', 4, 4), ('PER', 0, 1)]
    """
    found: set[tuple[str, int, int]] = set()
    mark, kind, begin = OUTSIDE, "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        now, _, type_ = tag.partition("-")
        same = now != OUTSIDE and mark not in (OUTSIDE, "E", "S") and now not in ("B", "S") and type_ == kind
        if not same:
            if mark != OUTSIDE:
                found.add((kind, begin, place - 1))
            begin = place
        mark, kind = now, type_
    return found


def _words(model: Model, data: Data) -> list[list[str]]:
    spec = model.inputs[0]
    column = spec.columns[0] if spec.columns else spec.name
    return [value if isinstance(value, list) else str(value).split() for value in data.truth(column)]


def _per_word(tags: Classes, offsets: Tensor, words: Sequence[str]) -> Classes:
    """The tag of the first token of each word; -1 for a word beyond where the text was cut."""
    real = offsets[:, 1] > offsets[:, 0]
    starts, ends, tags = offsets[real, 0], offsets[real, 1], tags[real]
    lengths = np.array([len(word) for word in words], np.intp)
    begin = np.cumsum(lengths + 1) - lengths - 1
    place = np.searchsorted(ends, begin, side="right")
    inside = place < len(tags)
    inside[inside] &= starts[place[inside]] < (begin + lengths)[inside]
    found = np.full(len(words), -1, np.intp)
    found[inside] = tags[place[inside]]
    return found


def _tags(row: Sequence[Any], labels: tuple[str, ...], data: Data, number: int) -> list[str]:
    """Names of tags; an integer is the index of one."""
    found = []
    for tag in row:
        form = next((form for form in label_forms(tag) if form in labels), None)
        if form is None and isinstance(tag, int) and 0 <= tag < len(labels):
            form = labels[tag]
        if form is None:
            raise InvalidData(
                f"{data.where}: {tag!r} in row {number} is no tag of the model; it knows {', '.join(labels)}"
            )
        found.append(form)
    return found


def _as_many(tags: Classes, words: int, data: Data, number: int) -> list[int]:
    if len(tags) < words:
        raise InvalidData(
            f"{data.where} has {words} tags in row {number}, and the model gives {len(tags)}: one tag per word is needed"
        )
    return [int(tag) for tag in tags[:words]]


def _f1(hit: Floats, said: Floats, true: Floats) -> Floats:
    return divided(2 * hit, said + true, np.nan)[:, 0]


def _precision(hit: Floats, said: Floats, true: Floats) -> Floats:
    found = divided(hit, said)
    found[(said + true) == 0] = np.nan
    return found[:, 0]


def _recall(hit: Floats, said: Floats, true: Floats) -> Floats:
    found = divided(hit, true)
    found[(said + true) == 0] = np.nan
    return found[:, 0]
