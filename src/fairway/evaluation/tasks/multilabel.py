"""Multi-label classification: any number of labels per row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from fairway.core.errors import InferenceFailed, InvalidBundle, InvalidData
from fairway.evaluation.labels import label_forms
from fairway.evaluation.ordered import AveragePrecision
from fairway.evaluation.tallied import Form, Sums, Tallied, divided, mean_of, overlap_ends
from fairway.evaluation.tasks.base import Data, Task

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.predictions import Floats, Mask, Scored
    from fairway.model import Model

_SHOWN = 10
_THRESHOLD = 0.5


class MultiLabel(Task):
    """The label is a list of labels per row, text that names several (``news, sport``), or a pattern of 0/1 columns
    (``is_*``); the model gives one logit or probability per label, and those of at least 1/2 are its answer.
    """

    name = "multi-label"
    kinds = ("probabilities", "logits")
    main = ("f1_score",)

    def read(self, data: Data) -> dict[str, list[Any]]:
        """The columns of the truth."""
        data.check_rows()
        names = [name for name in data.table.columns if fnmatchcase(name, data.label)]
        return {name: data.truth(name) for name in (names if data.label not in names and names else [data.label])}

    def score(
        self, truth: dict[str, list[Any]], answers: Sequence[Tensor], models: Sequence[Model], data: Data
    ) -> list[Scored]:
        """All models need the first one's labels."""
        labels = _labels(models[0], answers[0])
        wanted = hot(truth, labels, data)
        scored: list[Scored] = []
        for model, part in zip(models, answers, strict=True):
            own = _labels(model, part)
            if set(own) != set(labels):
                raise InvalidBundle(f"{model.manifest.name} knows the labels {', '.join(own)}, not {', '.join(labels)}")
            assert model.manifest.prediction is not None
            order = [own.index(name) for name in labels]
            scored.append(tally(wanted, _probabilities(model.manifest.prediction.kind, part)[:, order], labels))
        return scored


def tally(truth: Mask, probabilities: Floats, labels: tuple[str, ...]) -> Tallied:
    """Rows of labels.

    Parameters
    ----------
    truth : bool array of shape (rows, labels)
    probabilities : float array of shape (rows, labels)
    labels : tuple of str
    """
    said = probabilities >= _THRESHOLD
    wrong = truth != said
    blocks = {
        "hit": truth & said,
        "said": said,
        "true": truth,
        "wrong": wrong.mean(axis=1, keepdims=True),
        "exact": ~wrong.any(axis=1, keepdims=True),
        "one": np.ones((len(truth), 1), bool),
    }
    overlap = ("hit", "said", "true")
    nothing = "no row has any label, and none was given"
    forms: dict[str, Form] = {
        "f1_score": Sums(overlap, _macro_f1, undefined=nothing, ends=overlap_ends),
        "f1_micro_score": Sums(overlap, _micro_f1, undefined=nothing, ends=overlap_ends),
        "precision_score": Sums(overlap, _macro_precision, undefined=nothing, ends=overlap_ends),
        "recall_score": Sums(overlap, _macro_recall, undefined=nothing, ends=overlap_ends),
        "average_precision_score": AveragePrecision(truth, probabilities),
        "exact_match_score": mean_of("exact", share=True),
        "hamming_loss": mean_of("wrong"),
    }
    names = np.array(labels, object)
    return Tallied(
        task=MultiLabel.name,
        blocks=blocks,
        forms=forms,
        loss=_cross_entropy(truth, probabilities) * wrong.any(axis=1),
        truth=[names[row].tolist() for row in truth],
        predicted=[names[row].tolist() for row in said],
        more={"probabilities": probabilities},
        labels=labels,
    )


def hot(columns: dict[str, list[Any]], labels: tuple[str, ...], data: Data) -> Mask:
    """Which labels each row has, of shape (rows, labels). Raises :class:`InvalidData` for what is no label."""
    if len(columns) > 1 or next(iter(columns)) != data.label:
        return _from_columns(columns, labels, data)
    values = columns[data.label]
    if all(isinstance(row, list) and len(row) == len(labels) and set(row) <= {0, 1} for row in values):
        return np.array(values, bool)
    index = {label: place for place, label in enumerate(labels)}
    found = np.zeros((len(values), len(labels)), bool)
    unknown: dict[str, None] = {}
    for row, value in enumerate(values):
        for name in _names(value, index):
            place = next((index[form] for form in label_forms(name) if form in index), None)
            if place is None:
                unknown[label_forms(name)[0]] = None
            else:
                found[row, place] = True
    if unknown:
        listed = list(unknown)
        more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        raise InvalidData(
            f"{data.where}: {', '.join(map(repr, listed[:_SHOWN]))}{more} is no label of the model; it knows "
            f"{', '.join(map(repr, labels[:_SHOWN]))}{' …' if len(labels) > _SHOWN else ''}"
        )
    return found


def _names(value: Any, index: dict[str, int]) -> list[Any]:
    """A list is one; text is one label, or several between commas, semicolons or bars."""
    if isinstance(value, list):
        return value
    if not isinstance(value, str) or value in index:
        return [value]
    return [part.strip() for part in re.split(r"[,;|]", value) if part.strip()]


def _from_columns(columns: dict[str, list[Any]], labels: tuple[str, ...], data: Data) -> Mask:
    """A column's label is its name, or the part of it that the pattern's stars stand for."""
    pattern = re.compile("(.*)".join(map(re.escape, data.label.split("*"))))
    found = np.zeros((len(next(iter(columns.values()))), len(labels)), bool)
    missing = set(labels)
    for name, values in columns.items():
        inside = pattern.fullmatch(name)
        label = name if name in labels else inside[1] if inside and inside.groups() else name
        if label not in labels:
            raise InvalidData(f"{data.where}: column {name!r} is no label of the model; it knows {', '.join(labels)}")
        if not set(values) <= {0, 1}:
            raise InvalidData(f"{data.where}: column {name!r} holds other values than 0 and 1")
        found[:, labels.index(label)] = np.array(values, bool)
        missing.discard(label)
    if missing:
        raise InvalidData(f"{data.where}: no column for the model's {', '.join(map(repr, sorted(missing)))}")
    return found


def _labels(model: Model, raw: Tensor) -> tuple[str, ...]:
    width = int(np.prod(raw.shape[1:]))
    labels = model.manifest.labels or tuple(map(str, range(width)))
    if len(labels) != width:
        raise InvalidBundle(f"the model gives {width} scores per row for {len(labels)} labels")
    return labels


def _probabilities(kind: str, raw: Tensor) -> Floats:
    scores: Floats = raw.reshape(len(raw), -1).astype(np.float64)
    if kind == "logits":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-scores))
    if (scores < -0.001).any() or (scores > 1.001).any():
        raise InferenceFailed(
            f"the model answers scores from {scores.min():.3g} to {scores.max():.3g}, which are no probabilities; declare its "
            "prediction as 'logits' if that is what they are"
        )
    return np.clip(scores, 0, 1)


def _cross_entropy(truth: Mask, probabilities: Floats) -> Floats:
    chosen = np.where(truth, probabilities, 1 - probabilities)
    losses: Floats = -np.log(np.clip(chosen, np.finfo(np.float64).eps, 1)).sum(axis=1)
    return losses


def _macro(above: Floats, below: Floats, seen: Floats) -> Floats:
    """The mean over labels that occur; a quotient without a denominator is 0, as in scikit-learn."""
    present = seen > 0
    return divided((divided(above, below) * present).sum(axis=1), present.sum(axis=1).astype(float), np.nan)


def _macro_f1(hit: Floats, said: Floats, true: Floats) -> Floats:
    return _macro(2 * hit, said + true, said + true)


def _macro_precision(hit: Floats, said: Floats, true: Floats) -> Floats:
    return _macro(hit, said, said + true)


def _macro_recall(hit: Floats, said: Floats, true: Floats) -> Floats:
    return _macro(hit, true, said + true)


def _micro_f1(hit: Floats, said: Floats, true: Floats) -> Floats:
    return divided(2 * hit.sum(axis=1), (said + true).sum(axis=1), np.nan)
