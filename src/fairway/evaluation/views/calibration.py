"""How calibration is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fairway.evaluation.pages import ACCENT, BAD, INK, LINE, MUTED, SURFACE, WARN, render_part, styled_axes, themed_svg
from fairway.evaluation.words import number, p_value, ranged

if TYPE_CHECKING:
    from markupsafe import Markup

    from fairway.evaluation.analyses.calibration import Calibration, Fifth, Reliability

TITLE = "Calibration"
APPLY = "fairway pack --calibrate HELD_OUT.parquet"
"""What applies a temperature."""


def text(found: Calibration) -> Iterator[str]:
    """Errors, Brier score, and what scaling would change."""
    for of, both in _by_subject(found.diagrams).items():
        listed = ", ".join(f"{ranged(each.error)} in bins of equal {each.binning}" for each in both)
        yield f"  calibration error, {of}: {listed}"
    if found.brier is not None:
        yield f"  Brier score {ranged(found.brier)}: {_parts(found)}"
    for each in found.scalings:
        better = ", surely better" if each.better else ""
        yield (
            f"  {each.method} scaling: log loss {ranged(each.log_loss, signed=True)}, "
            f"error then {number(each.error.value)}{better}"
        )
    if found.scalings:
        yield f"  {advice(found)}"
    if found.band is not None:
        yield f"  prediction ±{number(found.band)} holds {ranged(found.coverage)} of the labels"
        changing, biased = p_value(found.heteroscedastic), p_value(found.biased)
        yield f"  the size of errors changes with the prediction: p {changing}; a fifth is biased: p {biased}"
    if found.note:
        yield f"  {found.note}"


def page(found: Calibration) -> Markup:
    """Diagrams, parts of the Brier score, scalings; or bands."""
    figures = [(of, _diagram(of, both)) for of, both in _by_subject(found.diagrams).items()]
    return render_part(
        "calibration",
        found=found,
        figures=figures,
        errors=_by_subject(found.diagrams),
        fifths=_fifths_plot(found.fifths) if found.fifths else None,
        advice=advice(found) if found.scalings else "",
        number=number,
        ranged=ranged,
        p_value=p_value,
    )


def advice(found: Calibration) -> str:
    """What to do, in one sentence."""
    if found.recommended == "temperature":
        return f"A temperature of {ranged(found.temperature)} would surely help. To apply one: {APPLY}"
    if found.recommended:
        return (
            "Isotonic scaling would surely help: fit it where the model is trained, on rows that it was not trained on."
        )
    return "No scaling surely helps: leave the probabilities as they are."


def _parts(found: Calibration) -> str:
    parts = (found.miscalibration, found.resolution, found.uncertainty)
    lost, won, given = (number(each.value) for each in parts if each is not None)
    return f"miscalibration {lost} - resolution {won} + uncertainty {given}"


def _by_subject(diagrams: Sequence[Reliability]) -> dict[str, list[Reliability]]:
    found: dict[str, list[Reliability]] = {}
    for each in diagrams:
        found.setdefault(each.of, []).append(each)
    return found


def _diagram(of: str, both: Sequence[Reliability]) -> Markup:
    """Shares that came true by probability: bins of equal mass with their intervals, those of equal width as squares."""
    figure, axes = styled_axes(4.6, 4.4)
    axes.grid(axis="both", color=LINE, linewidth=0.8)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for each in both:
        _points(axes, each)
    what = "probability of the predicted class" if of == "predicted class" else f"probability of {of}"
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel=what, ylabel="share that came true")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="upper left")
    mass = both[-1]
    shown = "; ".join(f"at {b.confidence:.2f}, {b.accuracy:.2f} of {b.rows:,} rows" for b in mass.bins)
    return themed_svg(figure, title=f"Reliability diagram of {of}", description=shown)


def _points(axes: Any, each: Reliability) -> None:
    mass = each.binning == "mass"
    color = ACCENT if mass else WARN
    x, y = [b.confidence for b in each.bins], [b.accuracy for b in each.bins]
    total = sum(b.rows for b in each.bins)
    if mass:
        for b in each.bins:
            axes.plot([b.confidence] * 2, [b.low, b.high], color=color, linewidth=2, solid_capstyle="round", alpha=0.5)
        axes.plot(x, y, "-", color=color, linewidth=1)
    else:
        for b in each.bins:
            axes.bar(b.start, 0.18 * b.rows / total, width=b.stop - b.start, align="edge", color=MUTED, alpha=0.2, lw=0)
    axes.plot(
        x,
        y,
        "o" if mass else "s",
        color=color,
        markersize=7 if mass else 5,
        markeredgecolor=SURFACE,
        label=f"equal {each.binning}",
        alpha=1 if mass else 0.75,
    )


def _fifths_plot(fifths: Sequence[Fifth]) -> Markup:
    """The mean error of each fifth with its interval, and how large errors are there."""
    figure, axes = styled_axes(7.0, 3.0)
    axes.grid(axis="both", color=LINE, linewidth=0.8)
    axes.axhline(0, color=INK, linewidth=1)
    for place, each in enumerate(fifths):
        axes.bar(place, 2 * each.size.value, bottom=-each.size.value, width=0.7, color=ACCENT, alpha=0.18, linewidth=0)
        if each.bias.low is not None and each.bias.high is not None:
            color = BAD if each.bias.above(0) or each.bias.below(0) else ACCENT
            axes.plot([place] * 2, [each.bias.low, each.bias.high], color=color, linewidth=2.2, solid_capstyle="round")
            axes.plot([place], [each.bias.value], "o", color=color, markersize=7, markeredgecolor=SURFACE)
    axes.set_xticks(range(len(fifths)), [f"{number(e.start)} to {number(e.stop)}" for e in fifths])
    axes.set(xlabel="prediction", ylabel="prediction minus label")
    shown = "; ".join(f"{number(e.start)} to {number(e.stop)}: mean error {ranged(e.bias)}" for e in fifths)
    return themed_svg(figure, title="Mean error by prediction", description=shown)
