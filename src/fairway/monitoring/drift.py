"""Has the world moved away from the baseline? A pure judgment of windows, valid however often it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter

import msgspec

from fairway.core.errors import FairwayError
from fairway.monitoring.baseline import DEFAULTS, Baseline
from fairway.monitoring.checks import check_features
from fairway.monitoring.report import DriftOutcome, DriftReport, Finding, Histogram, Look
from fairway.monitoring.settings import MonitorSettings
from fairway.monitoring.sketches import FeatureSketches
from fairway.monitoring.statistics import alpha_at
from fairway.registry.records import Window
from fairway.rollout.traffic import Traffic


def drift(
    baseline: Baseline | None,
    windows: Iterable[Window],
    settings: MonitorSettings = DEFAULTS,
    *,
    first_look: int = 1,
) -> DriftReport:
    r"""Compare what a version was sent, and what it answered, with its baseline. Pure: same arguments, same report.

    Windows of the same start (from several replicas) count together; consecutive ones are merged until they hold
    ``min_rows`` rows, and each such group is judged once: a *look*. Rows that do not fill a group yet are not judged.

    Parameters
    ----------
    baseline : Baseline or None
        ``None`` if the bundle has none: the report is then inconclusive.
    windows : iterable of Window
        Of one version, from its first on, in any order. Starting later spends the allowance for false alarms again.
    settings : MonitorSettings
    first_look : int, default 1
        The number of the first look, for a caller that has judged the earlier windows before, or no longer has them: counting
        each of their periods as a look keeps ``alpha``.

    Raises
    ------
    ValueError
        If the windows are not all of one model's one version.

    Notes
    -----
    Per look and feature, three things are checked: the distribution over the baseline's bins, the share of missing
    values, and the share of values outside of the baseline's range. A change is drift if its size reaches
    ``min_effect`` (or ``min_share``) *and* chance is ruled out. P-values are finite-sample bounds
    (:func:`~fairway.monitoring.statistics.exchange_p`), adjusted over all checks of the look by Holm's method and compared
    with look *k*'s allowance :math:`6 \alpha / (\pi^2 k^2)`. The allowances add up to ``alpha``, so by Bonferroni's
    inequality the chance of one or more false alarms, ever, is at most ``alpha``, if rows are drawn independently.
    Callers that repeat themselves make rows dependent: ``min_effect`` keeps small flukes quiet, but nothing is guaranteed.
    """
    ordered = sorted(windows, key=attrgetter("started_at", "replica"))
    if len({(window.model, window.version) for window in ordered}) > 1:
        raise ValueError("drift is judged per version: all windows must be of one model's one version")
    traffic, damaged = _traffic(ordered)
    report = DriftReport(
        model=ordered[-1].model if ordered else "",
        version=ordered[-1].version if ordered else 0,
        outcome=DriftOutcome.INCONCLUSIVE,
        reason="the bundle has no baseline: pack it again with reference data",
        alpha=settings.alpha,
        min_effect=settings.min_effect,
        min_share=settings.min_share,
        min_rows=settings.min_rows,
        baseline_rows=baseline.rows if baseline is not None else 0,
        requests=traffic.requests,
        errors=traffic.errors,
        rows=traffic.rows,
        unreadable=tuple(damaged),
    )
    return report if baseline is None else _judged(report, baseline, ordered, settings, first_look)


class _Group(msgspec.Struct):
    """Rows of consecutive windows."""

    started_at: float
    ended_at: float
    first_row: int
    sketches: FeatureSketches


def _judged(
    report: DriftReport, baseline: Baseline, windows: list[Window], settings: MonitorSettings, first_look: int
) -> DriftReport:
    damaged: list[str] = []
    looks: list[Look] = []
    effects: list[dict[str, float]] = []
    shown: tuple[int, _Group, list[Finding]] | None = None
    counted = skipped = pending = 0
    for group in _groups(baseline, windows, settings.min_rows, damaged):
        rows = group.sketches.rows
        counted, skipped = counted + rows, skipped + group.sketches.skipped
        if rows < settings.min_rows:
            pending = rows
            continue
        number = first_look + len(looks)
        allowance = alpha_at(number, settings.alpha)
        findings = check_features(baseline.sketches, group.sketches, allowance, settings)
        drifted = tuple(dict.fromkeys(f.feature for f in findings if f.drifted))
        looks.append(Look(number, group.started_at, group.ended_at, group.first_row, rows, allowance, drifted))
        effects.append({f.feature: f.effect for f in findings if f.check == "distribution"})
        if drifted or shown is None or not looks[shown[0]].drifted:
            shown = len(looks) - 1, group, findings
    summary = msgspec.structs.replace(
        report,
        counted=counted,
        skipped=skipped,
        pending=pending,
        unreadable=tuple(dict.fromkeys((*report.unreadable, *damaged))),
        looks=tuple(looks),
    )
    if shown is not None:
        summary = _with_details(summary, baseline, effects, shown, settings.top_features)
    outcome, reason = _verdict(summary)
    return msgspec.structs.replace(summary, outcome=outcome, reason=reason)


def _groups(baseline: Baseline, windows: list[Window], min_rows: int, damaged: list[str]) -> Iterator[_Group]:
    """Merge windows greedily, whole periods at a time. The last group may hold too few rows."""
    group: _Group | None = None
    row = 0
    for started_at, period in groupby(windows, key=attrgetter("started_at")):
        for window in period:
            if not window.features:
                continue
            try:
                sketches = FeatureSketches.decode(window.features, baseline.features)
            except FairwayError as error:
                damaged.append(str(error))
                continue
            if group is None:
                group = _Group(started_at, window.ended_at, row, FeatureSketches(baseline.features))
            group.sketches.merge(sketches)
            group.ended_at = max(group.ended_at, window.ended_at)
        if group is not None and group.sketches.rows >= min_rows:
            row += group.sketches.rows
            yield group
            group = None
    if group is not None:
        yield group


def _with_details(
    report: DriftReport,
    baseline: Baseline,
    effects: list[dict[str, float]],
    shown: tuple[int, _Group, list[Finding]],
    top: int,
) -> DriftReport:
    at, group, findings = shown
    names = tuple(dict.fromkeys(f.feature for f in findings))[:top]
    places = {feature.name: place for place, feature in enumerate(baseline.features)}
    histograms = []
    for name in names:
        feature, place = baseline.features[places[name]], places[name]
        histograms.append(
            Histogram(
                name,
                feature.bin_labels(),
                feature.edges,
                feature.low,
                feature.high,
                tuple(baseline.sketches.counts[place].bins),
                tuple(group.sketches.counts[place].bins),
            )
        )
    looks = tuple(
        msgspec.structs.replace(look, effects={name: of[name] for name in names if name in of})
        for look, of in zip(report.looks, effects, strict=True)
    )
    return msgspec.structs.replace(
        report, looks=looks, shown=at, findings=tuple(findings), histograms=tuple(histograms)
    )


def _verdict(report: DriftReport) -> tuple[DriftOutcome, str]:
    found = [look for look in report.looks if look.drifted]
    if found:
        first, features = found[0], len(found[-1].drifted)
        lasts = "and lasts" if report.looks[-1].drifted else f"but not in the latest look ({report.looks[-1].number})"
        return DriftOutcome.DRIFT, (
            f"{features} feature{'s' * (features > 1)} moved; first caught at row {first.first_row + first.rows:,} "
            f"(look {first.number} of {report.looks[-1].number}), {lasts}"
        )
    if report.looks:
        judged = sum(look.rows for look in report.looks)
        return DriftOutcome.NO_DRIFT, (
            f"no change beyond chance of {report.min_effect:g} bits or more in {judged:,} rows, "
            f"judged in {len(report.looks)} look{'s' * (len(report.looks) > 1)}"
        )
    if report.unreadable and not report.counted:
        return DriftOutcome.INCONCLUSIVE, f"no window could be read: {report.unreadable[0]}"
    return DriftOutcome.INCONCLUSIVE, (
        f"{report.counted:,} rows so far, and a judgment needs {report.min_rows:,}: send more, or lower monitor.min_rows"
    )


def _traffic(windows: list[Window]) -> tuple[Traffic, list[str]]:
    total = Traffic()
    damaged = []
    for window in windows:
        try:
            total.merge(Traffic.decode(window.traffic))
        except FairwayError as error:
            damaged.append(str(error))
    return total, damaged
