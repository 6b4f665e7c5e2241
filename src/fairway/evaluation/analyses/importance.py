"""Which inputs the model relies on: how much worse it gets when one of them is shuffled over the rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from fairway.core.tensors import Datatype
from fairway.evaluation.comparison import holm
from fairway.evaluation.estimates import Estimate, mean_estimate
from fairway.evaluation.influence import spread
from fairway.evaluation.intervals import skewed_p_value
from fairway.evaluation.predictions import Classified, Regressed, read_classes, read_values
from fairway.evaluation.resampling import class_losses

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor, Tensors, TensorSpec
    from fairway.evaluation.analyses.base import Subject
    from fairway.evaluation.predictions import Classes, Floats

ANSWERS = 200_000
"""Rows that the model is asked about, at most, in all."""
_FEW_ANSWERS = 10_000
"""The same of a model that takes one row at a time, or large rows: texts, or more than a thousand elements."""
_LARGE = 1_000
_ROWS, _FEWEST_ROWS, _REPEATS = 2_000, 200, 5
_PATCHES = 4


class Feature(msgspec.Struct, frozen=True):
    """One feature: by how much the mean loss rises when it is shuffled.

    ``p_value`` is of "it does not matter", corrected for the number of features (Holm).
    """

    name: str
    rise: Estimate
    p_value: float | None
    matters: bool


class Importance(msgspec.Struct, frozen=True):
    """Permutation importance.

    Attributes
    ----------
    loss : str
        What rises: ``log loss`` in nats, ``error`` (the share of wrong rows) or ``absolute error`` in the label's unit.
    base : float
        The loss as it is.
    rows, repeats : int
        How many rows were shuffled, and how often.
    features : tuple of Feature
        The most important first.
    note : str
        What was done to stay within the number of answers, or why nothing was.
    """

    loss: str
    base: float
    rows: int
    repeats: int
    features: tuple[Feature, ...]
    note: str = ""


class _Part(NamedTuple):
    """What is shuffled at once: some elements of one input, or (``None``) the whole of it."""

    name: str
    input: str
    elements: Classes | None


def analyse(subject: Subject) -> Importance | None:
    """Shuffle every feature in turn, on a seeded sample of rows, and ask the model again.

    Columns of a table are features of their own. A vector is shuffled element by element if it is the only input, else as a
    whole; an image in 4 by 4 patches; a text as a whole, if there are other inputs. The number of answers is bounded: fewer
    rows and repeats are taken where features are many, and neighbors go together where they are very many.

    References
    ----------
    L. Breiman, "Random forests", Machine Learning 45(1), 2001, sec. 10.
    A. Fisher, C. Rudin, F. Dominici, "All models are wrong, but many are useful", JMLR 20(177), 2019.
    """
    rows, settings = subject.rows, subject.settings
    if not isinstance(rows, Classified | Regressed):
        return None
    loss, losses = _losses(rows)
    parts = list(_parts(subject.model.inputs, subject))
    if len(parts) < 2:
        return Importance(
            loss, float(losses.mean()), 0, 0, (), "The model has a single input that is taken as a whole."
        )
    answers = _FEW_ANSWERS if _one_by_one(subject) or _heavy(subject) else ANSWERS
    count, repeats, parts, note = _plan(len(rows), parts, answers)
    rng = np.random.default_rng([settings.seed, 71])
    chosen = np.arange(len(rows)) if count == len(rows) else np.sort(rng.choice(len(rows), count, replace=False))
    few = _chosen(rows, chosen)
    feed = subject.table.feed(subject.model.inputs, chosen, label=subject.label)
    before = losses[chosen]
    rises = []
    for done, part in enumerate(parts, 1):
        after = np.mean(
            [_losses(_ask(subject, _shuffled(feed, part, rng.permutation(count)), few))[1] for _ in range(repeats)],
            axis=0,
        )
        rises.append(after - before)
        if subject.progress is not None:
            subject.progress("shuffling features", done, len(parts))
    features = _features(parts, rises, few.groups, settings.confidence)
    return Importance(loss, float(before.mean()), count, repeats, features, note)


def _features(
    parts: list[_Part], rises: list[Floats], groups: Classes | None, confidence: float
) -> tuple[Feature, ...]:
    found = [mean_estimate(rise, groups, confidence) for rise in rises]
    p_values = [
        skewed_p_value(each.value, spread(rise - each.value, groups)._replace(skewness=0.0)) if rise.any() else 1.0
        for each, rise in zip(found, rises, strict=True)
    ]
    adjusted = holm(p_values)
    features = [
        Feature(part.name, each, p, p is not None and p <= 1 - confidence and each.value > 0)
        for part, each, p in zip(parts, found, adjusted, strict=True)
    ]
    return tuple(sorted(features, key=lambda feature: -feature.rise.value))


def _losses(rows: Classified | Regressed) -> tuple[str, Floats]:
    if isinstance(rows, Classified):
        if rows.probabilities is not None:
            return "log loss", class_losses(rows)
        return "error", (rows.truth != rows.predicted).astype(np.float64)
    return "absolute error", np.abs(rows.predicted - rows.truth)


def _parts(inputs: tuple[TensorSpec, ...], subject: Subject) -> Iterator[_Part]:
    sample = subject.table.feed(inputs, slice(0, 1), label=subject.label)
    for spec in inputs:
        shape = sample[spec.name].shape[1:]
        width = math.prod(shape)
        if spec.datatype is Datatype.BYTES and width == 1:
            yield _Part(spec.name, spec.name, None)
        elif len(spec.columns) == width:
            yield from (_Part(name, spec.name, np.array([place])) for place, name in enumerate(spec.columns))
        elif len(shape) >= 2 and len(inputs) == 1:
            yield from _patches(spec.name, shape)
        elif width > 1 and len(inputs) == 1:
            names = _names(subject, spec, width)
            yield from (_Part(name, spec.name, np.array([place])) for place, name in enumerate(names))
        else:
            yield _Part(spec.name, spec.name, None)


def _names(subject: Subject, spec: TensorSpec, width: int) -> tuple[str, ...]:
    """Those of the columns that fill the input; of the elements of a single one, numbers."""
    columns = subject.table.needed([spec], label=subject.label)
    return columns if len(columns) == width else tuple(f"{spec.name}[{place}]" for place in range(width))


def _patches(name: str, shape: tuple[int, ...]) -> Iterator[_Part]:
    """The two longest axes cut into four pieces each; all other axes go along."""
    places = np.arange(math.prod(shape)).reshape(shape)
    first, second = sorted(sorted(range(len(shape)), key=lambda axis: -shape[axis])[:2])
    for rows in np.array_split(np.arange(shape[first]), _PATCHES):
        for columns in np.array_split(np.arange(shape[second]), _PATCHES):
            if len(rows) and len(columns):
                chosen = places.take(rows, axis=first).take(columns, axis=second).ravel()
                yield _Part(f"{name} {rows[0]}–{rows[-1]}, {columns[0]}–{columns[-1]}", name, chosen)


def _plan(rows: int, parts: list[_Part], answers: int) -> tuple[int, int, list[_Part], str]:
    """Rows, repeats and parts such that their product is at most ``answers``."""
    note = ""
    most = max(2, answers // min(_FEWEST_ROWS, rows))
    if len(parts) > most:
        size = math.ceil(len(parts) / most)
        parts, before = _joined(parts, size), len(parts)
        note = f"{before:,} features were shuffled in groups of up to {size} neighbors."
    count = max(min(rows, _ROWS, answers // len(parts)), min(rows, _FEWEST_ROWS))
    repeats = int(np.clip(answers // (len(parts) * count), 1, _REPEATS))
    return count, repeats, parts, note


def _joined(parts: list[_Part], size: int) -> list[_Part]:
    made: list[_Part] = []
    for name in dict.fromkeys(part.input for part in parts):
        own = [part for part in parts if part.input == name]
        if own[0].elements is None:
            made += own
            continue
        for start in range(0, len(own), size):
            group = own[start : start + size]
            elements = np.concatenate([part.elements for part in group if part.elements is not None])
            made.append(_Part(f"{group[0].name} … {group[-1].name}", name, elements))
    return made


def _shuffled(feed: Tensors, part: _Part, order: Classes) -> dict[str, Tensor]:
    given = feed[part.input]
    if part.elements is None:
        return {**feed, part.input: given[order]}
    flat = given.reshape(len(given), -1).copy()
    flat[:, part.elements] = flat[np.ix_(order, part.elements)]
    return {**feed, part.input: flat.reshape(given.shape)}


def _ask(subject: Subject, feed: Tensors, rows: Classified | Regressed) -> Classified | Regressed:
    prediction = subject.model.manifest.prediction
    assert prediction is not None
    fixed = max((spec.shape[0] for spec in subject.model.inputs if spec.shape), default=-1)
    size = max(fixed, 1) if _one_by_one(subject) else subject.settings.batch_size
    answers = []
    for start in range(0, len(rows), size):
        part = {name: array[start : start + size] for name, array in feed.items()}
        count = min(size, len(rows) - start)
        if fixed > count:  # a model of a fixed number of rows: the last one again and again
            part = {name: np.concatenate([a, np.repeat(a[-1:], fixed - count, axis=0)]) for name, a in part.items()}
        answers.append(np.asarray(subject.model.infer(part)[prediction.output])[:count])
    raw = np.concatenate(answers)
    if isinstance(rows, Regressed):
        return read_values(raw, rows.truth)
    own = subject.model.manifest.labels or rows.labels[: max(2, math.prod(raw.shape[1:]))]
    return read_classes(prediction.kind, raw, rows.truth, own, rows.labels)


def _one_by_one(subject: Subject) -> bool:
    model = subject.model
    return not model.manifest.engine.batching or any(spec.shape[:1] != (-1,) for spec in model.inputs)


def _heavy(subject: Subject) -> bool:
    sample = subject.table.feed(subject.model.inputs, slice(0, 1), label=subject.label)
    steps = subject.model.manifest.processing.pre
    return bool(steps) or sum(array[0].size for array in sample.values()) > _LARGE


def _chosen(rows: Classified | Regressed, chosen: Classes) -> Classified | Regressed:
    mask = np.zeros(len(rows), dtype=bool)
    mask[chosen] = True
    return rows.select(mask)
