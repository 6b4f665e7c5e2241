"""How much the model loses when its inputs are perturbed, and how sure it is of inputs unlike any that it knows."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from fairway.core.errors import FairwayError
from fairway.core.metrics import Measurement, metric
from fairway.evaluation.difference import differences
from fairway.evaluation.intervals import proportion_interval
from fairway.evaluation.measure import measure
from fairway.evaluation.metrics import main_metric
from fairway.evaluation.perturbations.answers import is_scored, scored
from fairway.evaluation.perturbations.base import LEVELS, Perturbation
from fairway.evaluation.perturbations.images import image_perturbations, is_image
from fairway.evaluation.perturbations.numbers import is_numbers, number_perturbations
from fairway.evaluation.perturbations.texts import is_text, text_perturbations
from fairway.evaluation.predictions import Classified

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.analyses.base import Subject
    from fairway.evaluation.predictions import Scored

CLEAN = "clean"
_CONFIDENT = 0.9
_ELEMENTS = 30_000_000


class Strength(msgspec.Struct, frozen=True, omit_defaults=True):
    """One level of a perturbation.

    ``value`` is the metric's, and ``change`` its paired difference to the clean rows; both ``None`` where the model fails on
    such inputs, and ``error`` says how.
    """

    level: int
    strength: float
    value: Measurement | None = None
    change: Measurement | None = None
    p_value: float | None = None
    error: str = ""


class Curve(msgspec.Struct, frozen=True, omit_defaults=True):
    """A perturbation of one input at rising strength.

    ``sure_from`` is the least level from which on the loss is sure: tested from the strongest down, until one is not.
    """

    input: str
    kind: str
    name: str
    unit: str
    levels: tuple[Strength, ...]
    sure_from: int | None = None


class Confidence(msgspec.Struct, frozen=True):
    """How many of ``rows`` answers have a probability above 0.9, with the exact interval of that share."""

    name: str
    share: float
    low: float
    high: float
    rows: int


class Robustness(msgspec.Struct, frozen=True):
    """What was perturbed, and what it did.

    Attributes
    ----------
    metric : str
    rows : int
        On which everything was tried, drawn at random.
    clean : Measurement
        The metric without perturbation, on these rows.
    curves : tuple of Curve
    confident : tuple of Confidence
        Of the rows as they are, then of inputs unlike any that the model knows; empty without probabilities.
    untested : tuple of str
        Inputs that no perturbation fits.
    """

    metric: str
    rows: int
    clean: Measurement
    curves: tuple[Curve, ...]
    confident: tuple[Confidence, ...]
    untested: tuple[str, ...]


def analyse(subject: Subject) -> Robustness | None:
    """Perturb every input by itself, at five strengths, on up to ``[evaluate] robustness_rows`` rows."""
    if not is_scored(subject.rows) or not subject.settings.robustness_rows or len(subject.rows) < 2:
        return None
    name = main_metric(subject.rows, subject.model.manifest.task)
    chosen = _chosen(subject)
    clean = subject.rows.select(chosen)
    feed = subject.table.feed(subject.model.inputs, chosen, label=subject.label)
    plans = [(spec.name, *_perturbations(feed[spec.name], spec.allow_nan)) for spec in subject.model.inputs]
    total = sum(len(found) for _, _, found in plans)
    curves = []
    for key, kind, perturbations in plans:
        for each in perturbations:
            curves.append(_curve(subject, feed, clean, key, kind, each, name))
            if subject.progress is not None:
                subject.progress("perturbing inputs", len(curves), total)
    return Robustness(
        name,
        len(clean),
        measure(clean, [name], subject.settings)[0],
        tuple(curves),
        tuple(_confidence(subject, feed, clean)),
        tuple(key for key, kind, _ in plans if not kind),
    )


def _chosen(subject: Subject) -> Tensor:
    rows = len(subject.rows)
    per_row = sum(int(np.prod([256 if size < 0 else size for size in s.shape[1:]])) for s in subject.model.inputs)
    most = min(rows, subject.settings.robustness_rows, max(2, _ELEMENTS // max(1, per_row)))
    return np.sort(np.random.default_rng([subject.settings.seed, 20]).choice(rows, most, replace=False))


def _perturbations(values: Tensor, takes_missing: bool) -> tuple[str, Sequence[Perturbation]]:
    if is_image(values):
        return "image", image_perturbations(values)
    if is_text(values):
        return "text", text_perturbations()
    if is_numbers(values):
        return "numbers", number_perturbations(values, takes_missing=takes_missing)
    return "", ()


def _curve(
    subject: Subject, feed: Mapping[str, Tensor], clean: Scored, key: str, kind: str, change: Perturbation, name: str
) -> Curve:
    seed = zlib.crc32(f"{subject.settings.seed} {key} {change.name}".encode())
    levels = []
    for level in range(1, LEVELS + 1):
        strength = change.strengths[level - 1]
        try:
            perturbed = {**feed, key: change.at(feed[key], level, seed)}
            rows = scored(subject.model, perturbed, clean, subject.settings.batch_size)
        except FairwayError as error:
            levels.append(Strength(level, strength, error=str(error)))
            continue
        found = differences(rows, clean, [name], subject.settings, versus=CLEAN)[0]
        value = measure(rows, [name], subject.settings)[0]
        levels.append(Strength(level, strength, value, found.measurement, found.p_value))
    return Curve(key, kind, change.name, change.unit, tuple(levels), _sure_from(levels, subject.settings.confidence))


def _sure_from(levels: Sequence[Strength], confidence: float) -> int | None:
    """A fixed sequence of tests, each at the full level, that stops where one does not reject."""
    sure = None
    for each in reversed(levels):
        if not each.error:
            if each.change is None or each.p_value is None or each.p_value > 1 - confidence:
                break
            gain = each.change.value if metric(each.change.metric).higher_is_better else -each.change.value
            if gain >= 0:
                break
        sure = each.level
    return sure


def _confidence(subject: Subject, feed: Mapping[str, Tensor], clean: Scored) -> Iterator[Confidence]:
    if not isinstance(clean, Classified) or clean.probabilities is None:
        return
    yield _share("the test rows", clean, subject.settings.confidence)
    rng = np.random.default_rng([subject.settings.seed, 21])
    shuffled = {name: _shuffled(values, rng) for name, values in feed.items()}
    strange = {name: _strange(values, rng) for name, values in feed.items()}
    for name, inputs in (("values shuffled between rows", shuffled), ("far from all rows, or noise", strange)):
        try:
            rows = scored(subject.model, inputs, clean, subject.settings.batch_size)
        except FairwayError:
            continue  # refusing such inputs is no false confidence
        assert isinstance(rows, Classified)
        yield _share(name, rows, subject.settings.confidence)


def _share(name: str, rows: Classified, confidence: float) -> Confidence:
    assert rows.probabilities is not None
    hits = int((rows.probabilities.max(axis=1) > _CONFIDENT).sum())
    return Confidence(name, hits / len(rows), *proportion_interval(hits, len(rows), confidence), len(rows))


def _shuffled(values: Tensor, rng: np.random.Generator) -> Tensor:
    """Columns, pixels or letters, each drawn from another row or place: marginal distributions stay, what joins them goes."""
    if values.dtype == object:
        mixed = np.empty(values.size, dtype=object)
        for place, each in enumerate(values.ravel().tolist()):
            letters = np.array(list(each))
            rng.shuffle(letters)
            mixed[place] = bytes(letters.tolist()) if isinstance(each, bytes) else "".join(letters.tolist())
        return mixed.reshape(values.shape)
    flat = values.reshape(len(values), -1)
    return np.asarray(rng.permuted(flat, axis=0)).reshape(values.shape)


def _strange(values: Tensor, rng: np.random.Generator) -> Tensor:
    """Numbers ten standard deviations off, images of noise, texts of random letters; of codes, any that occur."""
    if values.dtype == object:
        drawn = np.empty(values.size, dtype=object)
        for place, each in enumerate(values.ravel().tolist()):
            letters = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz   "), size=max(1, len(each))))
            drawn[place] = letters.encode() if isinstance(each, bytes) else letters
        return drawn.reshape(values.shape)
    if values.dtype.kind != "f" or is_image(values):
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        return (low + (high - low) * rng.random(values.shape)).astype(values.dtype)
    flat = values.reshape(len(values), -1).astype(np.float64)
    known = np.where(np.isfinite(flat), flat, 0.0)
    far = known.mean(axis=0) + 10 * known.std(axis=0) * rng.choice([-1, 1], size=flat.shape)
    return np.asarray(far.reshape(values.shape).astype(values.dtype))
