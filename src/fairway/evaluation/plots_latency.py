"""How long requests take, as a figure: how they are spread, and how rare the slow ones are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fairway.core.gate import Finding, Outcome
from fairway.core.latency import LatencyProfile
from fairway.core.metrics import Measurement
from fairway.evaluation.pages import ACCENT, BAD, GOOD, INK, LINE, MUTED, SERIES, SURFACE, WARN, styled_axes, themed_svg
from fairway.evaluation.words import number, percent

if TYPE_CHECKING:
    from markupsafe import Markup

    from fairway.evaluation.report import Report

_COLORS = {Outcome.PASSED: GOOD, Outcome.FAILED: BAD, Outcome.ERROR: BAD, Outcome.INCONCLUSIVE: WARN}
_QUANTILES = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}


def latency_figure(report: Report) -> Markup | None:
    """Distribution and tail of each load, with percentiles, their intervals and limits; ``None`` if nothing was measured."""
    found = [m for m in report.measurements if m.metric in _QUANTILES and m.known and not m.slice and not m.versus]
    profiles = [each for each in report.latency if each.counts]
    if profiles:
        return _distribution(profiles, found, report.verdict.findings)
    return _percentiles(found, report.verdict.findings) if found else None


def _distribution(
    profiles: Sequence[LatencyProfile], found: Sequence[Measurement], findings: Sequence[Finding]
) -> Markup:
    """Left: share of requests per bin. Right: share of requests that take longer, on a logarithmic scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, 3.3), layout="constrained")
    spread, tail = figure.subplots(1, 2)
    colors = (ACCENT, *SERIES[1:])
    for place, profile in enumerate(profiles):
        color = colors[place % len(colors)]
        edges, shares = np.array(profile.edges_ms), np.array(profile.counts) / profile.requests
        spread.stairs(
            shares, edges, fill=True, color=color, alpha=0.28 if len(profiles) > 1 else 0.75, label=_load(profile)
        )
        if len(profiles) > 1:
            spread.stairs(shares, edges, color=color, linewidth=1.4)
        slower = 1 - np.array(profile.shares())
        seen = slower > 0
        tail.plot(edges[seen], slower[seen], color=color, linewidth=1.8)
        for each in (m for m in found if m.at_rps == profile.at_rps):
            _percentile_mark(tail, each, color, findings, name=place == 0)
    for axes in (spread, tail):
        _style(axes)
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds from request to answer")
        axes.xaxis.set_major_formatter(lambda x, _: number(x))
        axes.xaxis.set_minor_formatter("")
    spread.yaxis.set_major_formatter(lambda y, _: percent(y))
    spread.set_ylabel("share of requests")
    tail.set_yscale("log")
    least = min(1 / each.requests for each in profiles)
    tail.set_ylim(max(least * 0.7, 1e-6), 1.3)
    tail.yaxis.set_major_formatter(lambda y, _: percent(y))
    tail.yaxis.set_minor_formatter("")
    tail.set_ylabel("share that takes longer")
    if len(profiles) > 1:
        spread.legend(frameon=False, fontsize=8.5, labelcolor=MUTED)
    said = "; ".join(f"{_percentile(m)}: {number(m.value)} ms" for m in found)
    failed = sum(each.failures for each in profiles)
    return themed_svg(
        figure, title="Latency", description=said + (f"; {failed:,} requests had no answer" if failed else "")
    )


def _percentile_mark(axes: Any, found: Measurement, color: str, findings: Sequence[Finding], *, name: bool) -> None:
    height = 1 - _QUANTILES[found.metric]
    high = found.high if np.isfinite(found.high) else found.value
    axes.plot([found.low, high], [height] * 2, color=color, linewidth=4, alpha=0.35, solid_capstyle="round")
    axes.plot([found.value], [height], "o", color=color, markersize=7, markeredgecolor=SURFACE)
    if name:
        label = found.metric.removeprefix("latency_").removesuffix("_ms")
        axes.annotate(
            f"{label}  {number(found.value)} ms",
            (high, height),
            xytext=(8, 4),
            textcoords="offset points",
            color=INK,
            fontsize=9,
        )
    for finding in findings:
        if finding.measurement == found:
            axes.plot([finding.limit] * 2, [height / 1.9, height * 1.9], color=_COLORS[finding.outcome], linewidth=2.4)
            axes.annotate(
                f"limit {number(finding.limit)}",
                (finding.limit, height / 1.9),
                xytext=(-4, -4),
                textcoords="offset points",
                ha="right",
                color=MUTED,
                fontsize=8.5,
            )


def _percentiles(found: Sequence[Measurement], findings: Sequence[Finding]) -> Markup:
    """Percentiles alone, of a report that has no distribution."""
    figure, axes = styled_axes(7.4, 0.42 * len(found) + 0.9)
    for place, each in enumerate(found):
        high = each.high if np.isfinite(each.high) else each.value
        axes.plot([each.low, high], [place, place], color=ACCENT, linewidth=2.2, solid_capstyle="round")
        axes.plot([each.value], [place], "o", color=ACCENT, markersize=7, markeredgecolor=SURFACE)
        for finding in findings:
            if finding.measurement == each:
                axes.plot(
                    [finding.limit] * 2, [place - 0.34, place + 0.34], color=_COLORS[finding.outcome], linewidth=2.2
                )
                axes.text(
                    finding.limit, place - 0.4, f"limit {number(finding.limit)}", color=MUTED, fontsize=8, ha="center"
                )
    axes.set_yticks(range(len(found)), [_percentile(each) for each in found])
    axes.set_ylim(len(found) - 0.5, -0.7)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xlim(left=0)
    axes.margins(x=0.08)
    axes.set_xlabel("milliseconds")
    axes.spines["left"].set_visible(False)
    shown = "; ".join(f"{_percentile(each)}: {number(each.value)} ms" for each in found)
    return themed_svg(figure, title="Latency", description=shown)


def _style(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(which="both", colors=MUTED, length=0, labelsize=9)
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)
    axes.set_axisbelow(True)
    axes.grid(axis="both", color=LINE, linewidth=0.8)


def _load(profile: LatencyProfile) -> str:
    return "callers that wait" if profile.at_rps is None else f"at {number(profile.at_rps)}/s"


def _percentile(found: Measurement) -> str:
    name = found.metric.removeprefix("latency_").removesuffix("_ms")
    return name if found.at_rps is None else f"{name} at {number(found.at_rps)}/s"
