"""Ranking and retrieval: a score per row, by which the rows of a query are put in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.evaluation.groups import group_numbers
from fairway.evaluation.labels import label_column, true_values
from fairway.evaluation.predictions import read_values
from fairway.evaluation.tallied import Tallied, mean_of
from fairway.evaluation.tasks.base import Data, Task
from fairway.evaluation.tasks.pairs import cosines

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.predictions import Classes, Floats, Scored
    from fairway.model import Model

DEPTH = 10
"""How far down a list is looked at by the metrics that say so."""


class Judged(NamedTuple):
    """How relevant each row is (0 is not), and of which query it is."""

    relevance: Floats
    query: Classes


class Ranking(Task):
    """The label is each row's relevance, 0 or more, ``[evaluate] query`` the column of its query; the model gives a score, or
    vectors whose cosine is the score. A query is one independent unit; one without a relevant row is left out.
    """

    name = "ranking"
    kinds = ("value", "embedding")
    main = ("ndcg_at_10_score",)

    def read(self, data: Data) -> Judged:
        """Relevance and query of every row."""
        if not data.settings.query:
            raise InvalidConfig("ranking needs to know which rows are of one query: query = 'COLUMN' under [evaluate]")
        relevance = true_values(label_column(data.table, data.label), data.where)
        if (relevance < 0).any():
            raise InvalidData(
                f"{data.where} is negative in row {int((relevance < 0).argmax())}; a relevance is 0 or more"
            )
        return Judged(relevance, group_numbers(data.table, data.settings.query, "query"))

    def ask(self, model: Model, data: Data) -> Tensor:
        """The score of every row."""
        assert model.manifest.prediction is not None
        if model.manifest.prediction.kind == "embedding":
            return cosines(model, data)
        found: Tensor = read_values(super().ask(model, data), np.zeros(data.table.rows)).predicted
        return found

    def score(
        self,
        truth: Judged,
        answers: Sequence[Tensor],
        models: Sequence[Model],  # noqa: ARG002
        data: Data,  # noqa: ARG002
    ) -> list[Scored]:
        """Query by query."""
        return [tally(truth, np.asarray(part, np.float64)) for part in answers]


def tally(truth: Judged, scores: Floats) -> Tallied:
    """Rows of queries.

    Where scores are equal, nDCG and average precision are those of scikit-learn (the mean over all orders, and all at once);
    reciprocal rank and recall put the relevant rows last.

    References
    ----------
    K. Järvelin, J. Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM Transactions on Information Systems
    20(4), 2002; F. McSherry, M. Najork, "Computing information retrieval performance measures efficiently in the presence of
    tied scores", ECIR 2008.
    """
    relevance, query = truth
    count = int(query.max()) + 1
    ideal = _places(query, -relevance, np.zeros(len(query)))
    ranked = _places(query, -scores, relevance)
    relevant = relevance > 0
    wanted = np.bincount(query, weights=relevant, minlength=count)
    judged = wanted > 0
    blocks: dict[str, Tensor] = {"judged": judged[:, None]}

    def per_query(values: Tensor) -> Floats:
        sums: Floats = np.bincount(query, weights=values, minlength=count).astype(np.float64)
        return sums

    for name, depth in (("ndcg", 0), ("ndcg_at", DEPTH)):
        gained = per_query(relevance * _tied_discount(ranked, depth))
        best = per_query(relevance * _discount(ideal.place, depth))
        blocks[name] = np.divide(gained, best, out=np.zeros(count), where=judged)[:, None]
    first = np.full(count, np.inf)
    np.minimum.at(first, query[relevant], ranked.place[relevant] + 1.0)
    blocks["reciprocal"] = (1 / first)[:, None]
    above = per_query(relevant & (ranked.place < DEPTH))
    blocks["recall"] = np.divide(above, wanted, out=np.zeros(count), where=judged)[:, None]
    precise = per_query(np.where(relevant, _hits_through(ranked, relevant) / (ranked.stop + 1.0), 0.0))
    blocks["precise"] = np.divide(precise, wanted, out=np.zeros(count), where=judged)[:, None]
    none = {"undefined": "no query has a relevant row"}
    forms = {
        "ndcg_score": mean_of("ndcg", "judged", **none),
        "ndcg_at_10_score": mean_of("ndcg_at", "judged", **none),
        "reciprocal_rank_score": mean_of("reciprocal", "judged", **none),
        "average_precision_score": mean_of("precise", "judged", **none),
        "recall_at_10_score": mean_of("recall", "judged", **none),
    }
    loss = np.where(judged, 1 - blocks["ndcg"][:, 0], 0.0)
    return Tallied(
        task=Ranking.name,
        blocks=blocks,
        forms=forms,
        loss=np.where(loss < 1e-12, 0.0, loss),
        truth=relevance,
        predicted=scores,
        more={"query": query},
        unit_of=query,
    )


class _Places(NamedTuple):
    """Of each row within its query: its place from 0, and the first and last place of the rows with the same score."""

    place: Classes
    start: Classes
    stop: Classes
    order: Classes
    head: Classes


def _places(query: Classes, key: Floats, ties: Floats) -> _Places:
    """Ascending by ``key``, then by ``ties``."""
    order = np.lexsort((ties, key, query))
    rows = np.arange(len(order))
    new_query = np.diff(query[order], prepend=-1) != 0
    new_key = new_query | (np.diff(key[order], prepend=np.nan) != 0)
    head = np.maximum.accumulate(np.where(new_query, rows, 0))
    start = np.maximum.accumulate(np.where(new_key, rows, 0))
    group = np.cumsum(new_key) - 1
    stop = (np.append(np.flatnonzero(new_key)[1:], len(order)) - 1)[group]
    found = np.empty((4, len(order)), np.intp)
    found[:, order] = np.stack([rows - head, start - head, stop - head, head])
    return _Places(found[0], found[1], found[2], order, found[3])


def _discount(place: Classes, depth: int) -> Floats:
    gain = 1 / np.log2(place + 2.0)
    return np.where(place < depth, gain, 0.0) if depth else gain


def _tied_discount(ranked: _Places, depth: int) -> Floats:
    """The mean discount of the places that rows of one score share."""
    longest = int(ranked.stop.max(initial=0)) + 1
    upto = np.concatenate([[0.0], np.cumsum(_discount(np.arange(longest), depth))])
    shared: Floats = (upto[ranked.stop + 1] - upto[ranked.start]) / (ranked.stop - ranked.start + 1)
    return shared


def _hits_through(ranked: _Places, relevant: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Floats:
    """How many rows of the query are relevant down to the last one with the same score."""
    upto = np.concatenate([[0.0], np.cumsum(relevant[ranked.order])])
    found: Floats = upto[ranked.head + ranked.stop + 1] - upto[ranked.head]
    return found
