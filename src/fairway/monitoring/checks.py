"""One look: every check of every feature, against the baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairway.monitoring.features import Feature
from fairway.monitoring.report import Check, Finding
from fairway.monitoring.settings import MonitorSettings
from fairway.monitoring.sketches import FeatureCounts, FeatureSketches
from fairway.monitoring.statistics import Floats, beyond_p, divergences, exchange_p, holm, sampling_floors


def check_features(
    baseline: FeatureSketches, current: FeatureSketches, allowance: float, settings: MonitorSettings
) -> list[Finding]:
    """All findings of one look, those that matter most first.

    A feature without rows on either side has no finding: it was not seen, which is not the same as unchanged.
    """
    found = [
        *_distributions(baseline, current),
        *_missing(baseline, current),
        *_out_of_range(baseline, current),
    ]
    adjusted = holm([finding.p_value for finding in found])
    least: dict[Check, float] = {
        "distribution": settings.min_effect,
        "missing": settings.min_share,
        "out of range": settings.min_share,
    }
    judged = [
        Finding(
            f.feature,
            f.side,
            f.check,
            f.effect,
            float(p),
            bool(p <= allowance) and f.effect > 0 and f.effect >= least[f.check],
            f.baseline,
            f.current,
        )
        for f, p in zip(found, adjusted, strict=True)
    ]
    return sorted(judged, key=lambda finding: _importance(finding, least[finding.check]))


def distribution_p(baseline: Floats, current: Floats, ordered: Floats) -> Floats:
    """How surprising each feature's bins are if nothing changed.

    Each bin is tested and, where bins are ``ordered``, each edge (how many rows are below it); Bonferroni over these.

    Parameters
    ----------
    baseline, current : ndarray of shape (features, bins)
        Rows per bin; features with fewer bins are padded with zeros.
    ordered : ndarray of bool, shape (features,)
    """
    then, now = baseline.sum(axis=1, keepdims=True), current.sum(axis=1, keepdims=True)
    below_then, below_now = baseline.cumsum(axis=1), current.cumsum(axis=1)
    together = below_then + below_now
    inner = (together > 0) & (together < then + now) & ordered[:, None].astype(bool)
    singles = exchange_p(current, now, baseline, then)
    edges = np.where(inner, exchange_p(below_now, now, below_then, then), 1.0)
    tests = np.count_nonzero(baseline + current, axis=1) + np.count_nonzero(inner, axis=1)
    smallest = np.minimum(singles.min(axis=1), edges.min(axis=1))
    p_values: Floats = np.minimum(1.0, smallest * np.maximum(tests, 1))
    return p_values


def _distributions(baseline: FeatureSketches, current: FeatureSketches) -> list[Finding]:
    seen = [
        (feature, then, now)
        for feature, then, now in _triples(baseline, current)
        if feature.bins > 1 and then.rows and now.rows
    ]
    if not seen:
        return []
    width = max(feature.bins for feature, _, _ in seen)
    before = np.array([_padded(then, width) for _, then, _ in seen])
    after = np.array([_padded(now, width) for _, _, now in seen])
    ordered = np.array([feature.ordered for feature, _, _ in seen])
    p_values = distribution_p(before, after, ordered)
    effects = np.maximum(0.0, divergences(before, after) - sampling_floors(before, after))
    return [
        _finding(
            feature,
            "distribution",
            float(effect),
            float(p),
            (then.mean if feature.ordered else None, now.mean if feature.ordered else None),
        )
        for (feature, then, now), effect, p in zip(seen, effects, p_values, strict=True)
    ]


def _missing(baseline: FeatureSketches, current: FeatureSketches) -> list[Finding]:
    seen = [
        (feature, (then.missing, then.rows + then.missing), (now.missing, now.rows + now.missing))
        for feature, then, now in _triples(baseline, current)
        if feature.may_be_missing and then.rows + then.missing and now.rows + now.missing
    ]
    if not seen:
        return []
    gaps_then, rows_then = np.array([then for _, then, _ in seen], np.float64).T
    gaps_now, rows_now = np.array([now for _, _, now in seen], np.float64).T
    shares = (gaps_then / rows_then, gaps_now / rows_now)
    p_values = exchange_p(gaps_now, rows_now, gaps_then, rows_then)
    return [
        _finding(feature, "missing", abs(float(after - before)), float(p), (float(before), float(after)))
        for (feature, _, _), before, after, p in zip(seen, *shares, p_values, strict=True)
    ]


def _out_of_range(baseline: FeatureSketches, current: FeatureSketches) -> list[Finding]:
    seen = [
        (feature, (now.below, now.above), now.rows, then.rows)
        for feature, then, now in _triples(baseline, current)
        if feature.ordered and then.rows and now.rows
    ]
    if not seen:
        return []
    outside = np.array([out for _, out, _, _ in seen], np.float64)
    rows_now, rows_then = np.array([rows for _, _, *rows in seen], np.float64).T
    p_values = np.minimum(1.0, 2 * beyond_p(outside, rows_now[:, None], rows_then[:, None]).min(axis=1))
    shares = outside.sum(axis=1) / rows_now
    return [
        _finding(feature, "out of range", float(share), float(p), (0.0, float(share)))
        for (feature, *_), share, p in zip(seen, shares, p_values, strict=True)
    ]


def _importance(finding: Finding, least: float) -> tuple[object, ...]:
    """Drift first, by how far beyond the least that matters; then the rest, by how surprising."""
    size = -finding.effect / (least or 1e-9)
    if finding.drifted:
        return (0, 0.0, 0, size, finding.feature, finding.check)
    return (1, finding.p_value, int(finding.check != "distribution"), size, finding.feature, finding.check)


def _triples(
    baseline: FeatureSketches, current: FeatureSketches
) -> Sequence[tuple[Feature, FeatureCounts, FeatureCounts]]:
    return list(zip(baseline.features, baseline.counts, current.counts, strict=True))


def _padded(counts: FeatureCounts, width: int) -> list[float]:
    return [*map(float, counts.bins), *[0.0] * (width - len(counts.bins))]


def _finding(
    feature: Feature, check: Check, effect: float, p: float, shown: tuple[float | None, float | None]
) -> Finding:
    return Finding(feature.name, feature.source.side, check, effect, p, False, *shown)
