"""A report's figures, drawn in the page's colors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fairway.core.gate import Finding, Outcome
from fairway.core.metrics import Measurement, described
from fairway.evaluation.diagnostics import CalibrationBin, Confusion, Residuals
from fairway.evaluation.pages import ACCENT, BAD, GOOD, INK, LINE, MUTED, SURFACE, WARN, styled_axes, themed_svg
from fairway.evaluation.words import bound, number

if TYPE_CHECKING:
    from markupsafe import Markup

_COLORS = {Outcome.PASSED: GOOD, Outcome.FAILED: BAD, Outcome.ERROR: BAD, Outcome.INCONCLUSIVE: WARN}
_CHANGES = ("max_drop", "max_rise")
_FLOORS = ("min", "slice_min", "max_drop")
_NUMBERED_CELLS = 16


def limits_plot(findings: Sequence[Finding]) -> Markup | None:
    """Each judged measurement's interval against its limit, on its own scale; ``None`` if there is none to draw."""
    drawn = [f for f in findings if f.measurement is not None and f.measurement.known and not f.slice]
    if not drawn:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, 0.62 * len(drawn) + 0.1))
    for row, (axes, finding) in enumerate(zip(figure.subplots(len(drawn), 1, squeeze=False)[:, 0], drawn, strict=True)):
        _limit_row(axes, finding)
        top = 1 - 0.05 / len(drawn)
        axes.set_position((0.27, top - (row + 0.72) * top / len(drawn), 0.57, 0.42 * top / len(drawn)))
    return themed_svg(
        figure,
        title="Measurements against the gate's limits",
        description="; ".join(f"{f.outcome}: {f.reason}" for f in drawn),
    )


def slices_plot(name: str, whole: Measurement | None, slices: Sequence[Measurement], limit: Finding | None) -> Markup:
    """One metric in every slice beside its value over all rows, and the limit."""
    known = [m for m in slices if m.known]
    figure, axes = styled_axes(7.4, 0.42 * len(slices) + 0.9)
    for place, found in enumerate(slices):
        if not found.known:
            axes.text(
                0.01, place, found.method, transform=axes.get_yaxis_transform(), color=MUTED, va="center", fontsize=9
            )
            continue
        color = _slice_color(found, limit)
        axes.plot([found.low, found.high], [place, place], color=color, linewidth=2.2, solid_capstyle="round")
        axes.plot([found.value], [place], "o", color=color, markersize=7, markeredgecolor=SURFACE)
    if whole is not None and whole.known:
        axes.axvspan(whole.low, whole.high, color=ACCENT, alpha=0.12, linewidth=0)
        axes.axvline(whole.value, color=ACCENT, linewidth=1.2)
        _label_top(axes, whole.value, "all rows", ACCENT)
    if limit is not None:
        axes.axvline(limit.limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        _label_top(axes, limit.limit, f"limit {number(limit.limit)}", INK, left=True)
    axes.set_yticks(range(len(slices)), [f"{m.slice} ({m.n:,})" for m in slices])
    axes.set_ylim(len(slices) - 0.5, -0.6)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xlabel(name)
    axes.spines["left"].set_visible(False)
    shown = "; ".join(f"{m.slice}: {number(m.value)} [{number(m.low)}, {number(m.high)}], {m.n:,} rows" for m in known)
    return themed_svg(figure, title=f"{name} by slice", description=shown or "No slice has rows.")


def confusion_plot(confusion: Confusion) -> Markup:
    """The confusion matrix: hits in the accent color, errors in the warning one, both as shares of the true class."""
    from matplotlib.patches import Rectangle

    counts = np.array(confusion.matrix, dtype=float)
    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = styled_axes(*(2 * [min(7.0, max(3.2, 1.2 + 0.42 * size))]))
    axes.grid(visible=False)
    worst = max(float((shares * (1 - np.eye(size))).max()), 1e-9)
    for true in range(size):
        for predicted in range(size):
            share, hit = shares[true, predicted], true == predicted
            strength = 0.12 + 0.68 * share if hit else 0.15 + 0.6 * share / worst
            if share > 0:
                axes.add_patch(
                    Rectangle(
                        (predicted + 0.03, true + 0.03), 0.94, 0.94, color=ACCENT if hit else BAD, alpha=strength, lw=0
                    )
                )
                if size <= _NUMBERED_CELLS:
                    color = SURFACE if strength > 0.6 else INK
                    text = f"{int(counts[true, predicted])}"
                    axes.text(predicted + 0.5, true + 0.5, text, ha="center", va="center", color=color, fontsize=9)
    every = max(1, size // 20)
    places = np.arange(0, size, every)
    names = [_short(confusion.labels[place]) for place in places]
    axes.set_xticks(places + 0.5, names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(places + 0.5, names)
    axes.set(xlim=(0, size), ylim=(size, 0), xlabel="predicted", ylabel="label", aspect="equal")
    axes.spines[:].set_visible(False)
    errors = ", ".join(f"{p.label} taken for {p.predicted} in {p.rows:,} rows" for p in confusion.pairs[:5])
    return themed_svg(figure, title="Confusion matrix", description=errors or "Every row was given its own class.")


def calibration_plot(bins: Sequence[CalibrationBin]) -> Markup:
    """Reliability diagram: how often the prediction is right, by the probability that the model gives it."""
    figure, axes = styled_axes(4.6, 4.2)
    axes.grid(axis="both", color=LINE, linewidth=0.8)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    total = sum(each.rows for each in bins)
    for each in bins:
        axes.plot(
            [each.confidence] * 2, [each.low, each.high], color=ACCENT, linewidth=2, solid_capstyle="round", alpha=0.55
        )
        axes.bar(each.start, 0.18 * each.rows / total, width=0.1, align="edge", color=ACCENT, alpha=0.22, linewidth=0)
    axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], "-", color=ACCENT, linewidth=1)
    axes.plot(
        [b.confidence for b in bins],
        [b.accuracy for b in bins],
        "o",
        color=ACCENT,
        markersize=7,
        markeredgecolor=SURFACE,
    )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability of the predicted class", ylabel="share that was right")
    shown = "; ".join(f"at {b.confidence:.2f}, {b.accuracy:.2f} of {b.rows:,} rows right" for b in bins)
    return themed_svg(figure, title="Reliability diagram", description=shown)


def residuals_plot(residuals: Residuals) -> Markup:
    """Histogram of prediction minus label."""
    figure, axes = styled_axes(7.0, 2.9)
    starts, widths = residuals.edges[:-1], np.diff(residuals.edges)
    axes.bar(starts, residuals.counts, width=widths * 0.94, align="edge", color=ACCENT, alpha=0.75, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    axes.axvline(residuals.mean, color=BAD, linewidth=1.2, linestyle=(0, (4, 3)))
    _label_top(axes, residuals.mean, f"mean {number(residuals.mean)}", BAD)
    axes.set(xlabel="prediction minus label", ylabel="rows")
    axes.margins(y=0.12)
    return themed_svg(
        figure,
        title="Distribution of errors",
        description=f"Mean {number(residuals.mean)}, standard deviation {number(residuals.deviation)}.",
    )


def _limit_row(axes: Any, finding: Finding) -> None:
    found = finding.measurement
    assert found is not None
    threshold = -finding.limit if finding.bound == "max_drop" else finding.limit
    ends = [end for end in (found.low, found.high, found.value, threshold) if np.isfinite(end)]
    if not described(finding.metric).tasks and finding.bound not in _CHANGES:
        ends.append(0.0)  # a cost is read as a length
    low, high = min(ends), max(ends)
    pad = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - pad, high + pad
    floor, color = finding.bound in _FLOORS, _COLORS[finding.outcome]
    axes.axvspan(*((threshold, high) if floor else (low, threshold)), color=GOOD, alpha=0.13, linewidth=0)
    axes.axvline(threshold, color=INK, linewidth=1.4)
    axes.plot([max(found.low, low), min(found.high, high)], [0, 0], color=color, linewidth=2.6, solid_capstyle="round")
    axes.plot([found.value], [0], "o", color=color, markersize=8, markeredgecolor=SURFACE)
    axes.set(xlim=(low, high), ylim=(-1, 1), yticks=[], xticks=[])
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)
    axes.axhline(0, color=LINE, linewidth=0.8, zorder=0)
    change = finding.bound in _CHANGES
    name = f"change of {finding.metric}" if change else finding.metric
    text = {"va": "center", "transform": axes.transAxes}
    axes.text(-0.03, 0.5, name, ha="right", color=INK, fontsize=10, **text)
    axes.text(
        1.03, 0.78, number(found.value, signed=change), ha="left", color=color, fontsize=10.5, weight="bold", **text
    )
    axes.text(1.03, 0.12, f"limit {bound(finding)}", ha="left", color=MUTED, fontsize=8.5, **text)


def _slice_color(found: Measurement, limit: Finding | None) -> str:
    if limit is None:
        return ACCENT
    if described(found.metric).higher_is_better:
        return GOOD if found.low >= limit.limit else BAD if found.high < limit.limit else WARN
    return GOOD if found.high <= limit.limit else BAD if found.low > limit.limit else WARN


def _label_top(axes: Any, x: float, text: str, color: str, *, left: bool = False) -> None:
    axes.annotate(
        text,
        (x, 1.0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-3 if left else 3, 2),
        textcoords="offset points",
        ha="right" if left else "left",
        color=color,
        fontsize=8.5,
    )


def _short(label: str) -> str:
    return label if len(label) <= 14 else label[:13] + "…"
