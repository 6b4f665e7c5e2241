"""Slices where the model is worse than elsewhere: searched for on one half of the rows, confirmed on the other."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from fairway.core.errors import InvalidConfig
from fairway.evaluation.comparison import holm
from fairway.evaluation.predictions import Classified
from fairway.evaluation.slicing.clusters import clusters, input_clusters
from fairway.evaluation.slicing.confirm import Level, halves, level, worse_p_value
from fairway.evaluation.slicing.lattice import Candidate, find_candidates
from fairway.evaluation.slicing.losses import Loss, row_losses
from fairway.evaluation.slicing.predicates import Predicate, column_predicates
from fairway.evaluation.tallied import Tallied
from fairway.sources.tables import is_label, plain_column

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.analyses.base import Subject
    from fairway.evaluation.predictions import Classes, Mask, Scored
    from fairway.sources.tables import Table

_ROWS = 100_000
_COLUMNS = 200
_ELEMENTS = 60_000_000
"""Numbers of the model's inputs that are held at once."""
_BANDS = (0.5, 0.7, 0.8, 0.9, 0.95)
_FEWEST_ROWS = 40


class WeakSlice(msgspec.Struct, frozen=True, omit_defaults=True):
    """A slice that is worse than the rest of the rows; all figures are of the half that confirmed it.

    Attributes
    ----------
    description : str
    loss : str
        What it is worse by: the mean of this loss is higher inside.
    inside, outside : Level
    p_value : float
        One-sided, of "it is not worse", corrected for the number of candidates (Holm).
    where : str
        For ``[[slices]]``; empty where SQL over the data's columns cannot say it.
    """

    description: str
    loss: str
    inside: Level
    outside: Level
    p_value: float
    where: str = ""


class WeakSlices(msgspec.Struct, frozen=True):
    """What the search found.

    Attributes
    ----------
    slices : tuple of WeakSlice
        Those confirmed, the surest first.
    predicates : int
        What slices could be made of; conjunctions of up to three were searched.
    candidates : int
        How many slices the search suggested: the p-values are corrected for them.
    searched, confirmed : int
        Rows of the half that was searched, and of the half that confirmed.
    confidence : float
        Of the intervals; a slice is confirmed by a corrected p-value of at most 1 less it.
    """

    slices: tuple[WeakSlice, ...]
    predicates: int
    candidates: int
    searched: int
    confirmed: int
    confidence: float


def analyse(subject: Subject) -> WeakSlices | None:
    """Search for weak slices; ``None`` where there are too few rows to halve.

    At most 100,000 rows are looked at (of images, fewer), drawn at random, and 200 columns. Slices are made of columns
    (whether inputs of the model or not; but not of the label), the predicted class, clusters of the model's inputs and of
    embeddings that it gives besides its answer. How confident the model is makes slices for overconfidence alone.
    """
    chosen = _sample(subject)
    table = subject.table if chosen is None else subject.table.select(chosen)
    rows = subject.rows if chosen is None else subject.rows.select(chosen)
    if len(rows) < _FEWEST_ROWS or len(rows) != table.rows:  # where what is scored is no single row, such as a query
        return None
    groups = rows.row_groups if isinstance(rows, Tallied) else rows.groups
    searched, kept = halves(len(rows), groups, subject.settings.seed)
    predicates = list(_predicates(subject, table, rows, searched))
    return search(predicates, row_losses(rows), searched, kept, groups, subject.settings.confidence, table)


def search(
    predicates: Sequence[Predicate],
    losses: Sequence[Loss],
    searched: Mask,
    kept: Mask,
    groups: Classes | None,
    confidence: float,
    table: Table | None = None,
) -> WeakSlices:
    """Find candidates on the ``searched`` rows, and confirm them on those ``kept``."""
    members = np.stack([each.rows for each in predicates], axis=1) if predicates else np.empty((len(searched), 0), bool)
    narrow = np.array([each.overconfidence_only for each in predicates], dtype=bool)
    allowed = np.stack([np.ones_like(narrow) if loss.signed else ~narrow for loss in losses])
    candidates = find_candidates(members[searched], [_part(loss, searched) for loss in losses], allowed=allowed)
    own = None if groups is None else groups[kept]
    tested: list[tuple[float, Mask, Loss, str, str]] = []
    for each in candidates:
        parts = [predicates[place] for place in each.predicates]
        inside, where = _resolved(parts, members, each, table)
        loss = _part(losses[each.loss], kept)
        tested.append((worse_p_value(loss, inside[kept], own), inside[kept], loss, _text(parts), where))
    confirmed = [
        WeakSlice(
            text,
            loss.name,
            level(loss, inside, confidence, own),
            level(loss, ~inside, confidence, own),
            adjusted,
            where,
        )
        for (_, inside, loss, text, where), adjusted in zip(tested, holm([p for p, *_ in tested]), strict=True)
        if adjusted is not None and adjusted <= 1 - confidence
    ]
    confirmed.sort(key=lambda found: found.p_value)
    return WeakSlices(
        tuple(confirmed), len(predicates), len(candidates), int(searched.sum()), int(kept.sum()), confidence
    )


def _sample(subject: Subject) -> Tensor | None:
    rows, most = len(subject.rows), _ROWS
    if sizes := [math.prod(256 if size < 0 else size for size in s.shape[1:]) for s in subject.model.inputs]:
        most = max(_FEWEST_ROWS, min(_ROWS, _ELEMENTS // max(1, sum(sizes))))
    if rows <= most:
        return None
    return np.sort(np.random.default_rng([subject.settings.seed, 18]).choice(rows, most, replace=False))


def _predicates(subject: Subject, table: Table, rows: Scored, searched: Mask) -> Iterator[Predicate]:
    group = subject.settings.group
    names = [name for name in table.columns if name != group and not is_label(name, subject.label)][:_COLUMNS]
    for name in names:
        if (values := plain_column(table, name)) is not None:
            yield from column_predicates(name, values, columns=len(names))
    if isinstance(rows, Classified):
        yield from _answers(rows)
    feed = table.feed(subject.model.inputs, label=subject.label)
    for spec in subject.model.inputs:
        if feed[spec.name].ndim > 2 and spec.name not in names:  # images that were decoded
            yield from column_predicates(spec.name, feed[spec.name], columns=1)
    yield from input_clusters(feed, subject.model.inputs, searched)
    yield from _embedding_clusters(subject, table, searched)


def _answers(rows: Classified) -> Iterator[Predicate]:
    for place in np.unique(rows.predicted)[:30]:
        yield Predicate(f"predicted {rows.labels[place]}", rows.predicted == place)
    if rows.probabilities is not None:
        confidence = rows.probabilities.max(axis=1)
        for cut in _BANDS:
            yield Predicate(f"confidence > {cut:g}", confidence > cut, overconfidence_only=True)
            yield Predicate(f"confidence ≤ {cut:g}", confidence <= cut, overconfidence_only=True)


def _embedding_clusters(subject: Subject, table: Table, searched: Mask) -> Iterator[Predicate]:
    """Of outputs with several numbers per row that are not the answer."""
    prediction = subject.model.manifest.prediction
    names = [
        spec.name
        for spec in subject.model.outputs
        if len(spec.shape) == 2 and spec.datatype.is_float and spec.shape[1] not in (0, 1)
        if prediction is not None and spec.name != prediction.output
    ]
    fixed = any(spec.shape[:1] != (-1,) for spec in subject.model.inputs)
    if not names or fixed or not subject.model.manifest.engine.batching:
        return
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for _, feed in table.feeds(subject.model.inputs, subject.settings.batch_size, label=subject.label):
        given = subject.model.infer(feed)
        for name in names:
            parts[name].append(given[name])
    for name in names:
        points = np.concatenate(parts[name]).astype(np.float64)
        if points.shape == (table.rows, points.shape[-1]) and points.shape[1] > len(subject.model.manifest.labels):
            yield from clusters(points, searched, (), f"the output {name}")


def _part(loss: Loss, chosen: Mask) -> Loss:
    return Loss(loss.name, loss.values[chosen], loss.binary, loss.signed)


def _text(parts: Sequence[Predicate]) -> str:
    return " and ".join(each.text for each in parts)


def _resolved(parts: Sequence[Predicate], members: Mask, candidate: Candidate, table: Table | None) -> tuple[Mask, str]:
    """The rows of a slice, and its SQL where there is one: then the rows are those that SQL selects."""
    inside: Mask = np.asarray(members[:, candidate.predicates].all(axis=1))
    where = " AND ".join(each.where for each in parts) if all(each.where for each in parts) else ""
    if where and table is not None:
        with contextlib.suppress(InvalidConfig):
            return table.mask(where), where
        where = ""
    return inside, where
