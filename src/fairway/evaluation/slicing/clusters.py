"""Clusters of rows that are alike in what the model sees, or in an embedding that it gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fairway.core.extras import require
from fairway.evaluation.slicing.predicates import Predicate

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor, TensorSpec
    from fairway.evaluation.predictions import Floats, Mask

_CLUSTERS = 8
_ROWS_EACH = 40
"""Searched rows per cluster, at least on average."""
_FITTED = 10_000
_DIMENSIONS = 32
_NAMED = 3
_STANDS_OUT = 0.5


def input_clusters(feed: Mapping[str, Tensor], specs: Sequence[TensorSpec], searched: Mask) -> Iterator[Predicate]:
    """K-means on the model's standardized numeric inputs, fitted on the searched rows alone."""
    names: list[str] = []
    parts: list[Floats] = []
    for spec in specs:
        array = feed[spec.name]
        if array.dtype.kind in "iufb":
            flat = array.reshape(len(array), -1).astype(np.float64)
            parts.append(flat)
            own = spec.columns if len(spec.columns) == flat.shape[1] else ()
            names += own or [f"{spec.name}[{place}]" for place in range(flat.shape[1])]
    if parts:
        yield from clusters(np.concatenate(parts, axis=1), searched, names, "inputs")


def clusters(points: Floats, searched: Mask, names: Sequence[str], what: str) -> Iterator[Predicate]:
    """K-means with up to eight clusters; each is described by what its mean stands out in.

    Parameters
    ----------
    points : float array of shape (rows, dimensions)
    searched : bool array of shape (rows,)
        The rows that the clusters are made from.
    names : sequence of str
        Of the dimensions; empty where they mean nothing to people.
    what : str
        What the points are, for the description.
    """
    count = min(_CLUSTERS, int(searched.sum()) // _ROWS_EACH)
    if count < 2 or not points.shape[1]:
        return
    sklearn = require("sklearn.cluster", extra="evaluate")
    scaled = _standardized(points, searched)
    own = scaled[searched]
    fitted = own[:: max(1, len(own) // _FITTED)]
    if points.shape[1] > _DIMENSIONS:
        reduction = require("sklearn.decomposition", extra="evaluate").PCA(
            min(_DIMENSIONS, len(fitted)), svd_solver="covariance_eigh", random_state=0
        )
        reduced = reduction.fit(fitted).transform(scaled)
        fitted = reduced[searched][:: max(1, len(own) // _FITTED)]
    else:
        reduced = scaled
    if len(np.unique(fitted, axis=0)) < count:
        return
    labels = sklearn.KMeans(count, n_init=3, random_state=0).fit(fitted).predict(reduced)
    for number in range(count):
        mine = labels == number
        center = scaled[searched & mine].mean(axis=0) if (searched & mine).any() else np.zeros(points.shape[1])
        yield Predicate(f"cluster {number + 1} of {count} by {what}{_described(center, names)}", mine)


def _described(center: Floats, names: Sequence[str]) -> str:
    if not names:
        return ""
    order = np.argsort(-np.abs(center), kind="stable")[:_NAMED]
    words = [f"{names[i]} {'high' if center[i] > 0 else 'low'}" for i in order if abs(center[i]) >= _STANDS_OUT]
    return f" ({', '.join(words)})" if words else ""


def _standardized(points: Floats, searched: Mask) -> Floats:
    own = np.where(np.isfinite(points[searched]), points[searched], np.nan)
    known = np.isfinite(own).any(axis=0)
    mean, deviation = np.zeros(points.shape[1]), np.ones(points.shape[1])
    mean[known], deviation[known] = np.nanmean(own[:, known], axis=0), np.nanstd(own[:, known], axis=0)
    scaled: Floats = (points - mean) / np.where(deviation > 0, deviation, 1)
    return np.clip(np.where(np.isfinite(scaled), scaled, 0.0), -10, 10)
