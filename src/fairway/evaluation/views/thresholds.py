"""How thresholds are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fairway.evaluation.pages import ACCENT, BAD, GOOD, INK, LINE, MUTED, SERIES, render_part, styled_axes, themed_svg
from fairway.evaluation.words import number, ranged

if TYPE_CHECKING:
    from markupsafe import Markup

    from fairway.evaluation.analyses.thresholds import ClassThresholds, Operating
    from fairway.evaluation.curves import Curve

TITLE = "Thresholds"
_DRAWN = 4
GOALS = {
    "default": "as it is",
    "f1": "best F1",
    "precision": "precision ≥ 0.9",
    "recall": "recall ≥ 0.9",
    "cost": "least cost",
}


def text(found: Sequence[ClassThresholds]) -> Iterator[str]:
    """Areas per class; operating points of the first."""
    for each in found:
        yield f"  {each.label}: AUC {ranged(each.auc)}, average precision {ranged(each.average_precision)}"
        if len(found) == 1:
            yield from map(_line, each.operating)


def page(found: Sequence[ClassThresholds]) -> Markup:
    """Curves and a table of operating points."""
    drawn = found[:_DRAWN]
    figures = [
        (
            "ROC",
            _curves(
                [(each.label, each.roc) for each in drawn],
                "ROC curve",
                "share of the others that are taken too",
                "recall",
                diagonal=True,
            ),
        ),
        (
            "precision and recall",
            _curves(
                [(each.label, each.precision_recall) for each in drawn], "Precision-recall curve", "recall", "precision"
            ),
        ),
    ]
    costs = [(each.label, _cost_plot(each)) for each in found if each.cost is not None]
    return render_part(
        "thresholds",
        found=found,
        figures=figures,
        costs=costs,
        goals=GOALS,
        number=number,
        ranged=ranged,
        priced=any(each.cost is not None for each in found),
        hidden=max(0, len(found) - _DRAWN),
    )


def _line(each: Operating) -> str:
    at = "" if each.threshold is None else f" at {number(each.threshold)}"
    line = f"    {GOALS[each.goal]}{at}: precision {ranged(each.precision)}, recall {ranged(each.recall)}"
    if each.cost is not None:
        line += f", cost {ranged(each.cost)}"
    if each.change is not None:
        line += f"; {'cost' if each.goal == 'cost' else 'F1'} {ranged(each.change, signed=True)}"
    return line + (", surely better" if each.better else "")


def _curves(named: Sequence[tuple[str, Curve]], title: str, x: str, y: str, *, diagonal: bool = False) -> Markup:
    figure, axes = styled_axes(4.6, 4.4)
    axes.grid(axis="both", color=LINE, linewidth=0.8)
    if diagonal:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for place, (label, curve) in enumerate(named):
        color = ACCENT if len(named) == 1 else SERIES[place]
        axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.18 if len(named) == 1 else 0.1, lw=0)
        axes.plot(curve.x, curve.y, color=color, linewidth=1.8, label=label)
    axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.02), xlabel=x, ylabel=y)
    if len(named) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="lower right" if diagonal else "lower left")
    shown = "; ".join(
        f"{label}: " + ", ".join(f"{number(curve.y[i])} at {number(curve.x[i])}" for i in _some(len(curve.x)))
        for label, curve in named
    )
    return themed_svg(figure, title=title, description=shown)


def _cost_plot(each: ClassThresholds) -> Markup:
    curve = each.cost
    assert curve is not None
    figure, axes = styled_axes(7.0, 3.2)
    axes.grid(axis="both", color=LINE, linewidth=0.8)
    axes.fill_between(curve.x, curve.low, curve.high, color=ACCENT, alpha=0.18, linewidth=0)
    axes.plot(curve.x, curve.y, color=ACCENT, linewidth=1.8)
    best = next((one for one in each.operating if one.goal == "cost"), None)
    default = each.operating[0]
    if default.cost is not None:
        axes.axhline(default.cost.value, color=BAD, linewidth=1.2, linestyle=(0, (4, 3)))
        _note(axes, 1.0, default.cost.value, "as it is", BAD)
    if best is not None and best.threshold is not None:
        axes.axvline(best.threshold, color=GOOD, linewidth=1.2)
        axes.annotate(
            f"threshold {number(best.threshold)}",
            (best.threshold, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(4, -10),
            textcoords="offset points",
            color=GOOD,
            fontsize=8.5,
        )
    axes.set(xlim=(0, 1), xlabel="threshold", ylabel="cost per row")
    axes.set_ylim(bottom=0)
    shown = ", ".join(f"{number(curve.y[i])} at {number(curve.x[i])}" for i in _some(len(curve.x)))
    return themed_svg(figure, title=f"Cost by threshold, {each.label}", description=shown)


def _note(axes: Any, x: float, y: float, text: str, color: str) -> None:
    axes.annotate(text, (x, y), xytext=(-2, 4), textcoords="offset points", ha="right", color=color, fontsize=8.5)


def _some(count: int) -> list[int]:
    """A few of so many places, for a description in words."""
    return sorted({round(part * (count - 1) / 4) for part in range(5)})
