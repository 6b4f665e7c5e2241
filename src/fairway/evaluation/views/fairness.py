"""How fairness by group is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fairway.evaluation.pages import ACCENT, BAD, INK, LINE, MUTED, SURFACE, render_part, styled_axes, themed_svg
from fairway.evaluation.words import number, p_value, ranged

if TYPE_CHECKING:
    from markupsafe import Markup

    from fairway.evaluation.analyses.fairness import Fairness, GroupRate

TITLE = "Fairness by group"


def text(found: Sequence[Fairness]) -> Iterator[str]:
    """Largest differences per column, and the groups that differ."""
    for each in found:
        yield f"  {each.column}: {', '.join(f'{name} ({rows:,})' for name, rows in each.groups.items())}"
        for gap in each.gaps:
            ratio = "" if gap.ratio is None else f", least ratio {ranged(gap.ratio)}"
            yield f"    {gap.metric}: differs by up to {ranged(gap.difference)}{ratio}"
        for rate in each.rates:
            if rate.differs:
                yield f"    {rate.group} differs from the rest: {rate.metric} {ranged(rate.value)}, p {p_value(rate.p_value)}"
        if each.small:
            yield f"    inconclusive, of fewer than 30 rows: {', '.join(each.small)}"


def page(found: Sequence[Fairness]) -> Markup:
    """Per column a plot of every metric, and tables."""
    plots = {each.column: _plot(each) for each in found}
    return render_part("fairness", found=found, plots=plots, number=number, ranged=ranged, p_value=p_value)


def _plot(each: Fairness) -> Markup:
    """One row of panels: each group's metric with its interval."""
    metrics = list(dict.fromkeys(rate.metric for rate in each.rates))
    names = list(each.groups)
    figure, first = styled_axes(9.4, 0.34 * len(names) + 1.1)
    figure.delaxes(first)
    for place, metric in enumerate(metrics):
        axes = figure.add_subplot(1, len(metrics), place + 1)
        axes.spines[:].set_visible(False)
        axes.tick_params(colors=MUTED, length=0, labelsize=8.5)
        axes.grid(axis="x", color=LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        for rate in each.rates:
            if rate.metric == metric and rate.value is not None:
                row = names.index(rate.group)
                color = BAD if rate.differs else MUTED if rate.group in each.small else ACCENT
                if rate.value.low is not None and rate.value.high is not None:
                    ends = [rate.value.low, rate.value.high]
                    axes.plot(ends, [row, row], color=color, linewidth=2.2, solid_capstyle="round")
                axes.plot([rate.value.value], [row], "o", color=color, markersize=6, markeredgecolor=SURFACE)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names if place == 0 else [""] * len(names))
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_title(metric, fontsize=9, color=INK, loc="left")
        axes.locator_params(axis="x", nbins=4)
    shown = "; ".join(f"{r.group}: {r.metric} {ranged(r.value)}" for r in _main(each))
    return themed_svg(figure, title=f"Metrics by {each.column}", description=shown)


def _main(each: Fairness) -> list[GroupRate]:
    metrics = [rate.metric for rate in each.rates]
    wanted = "selection rate" if "selection rate" in metrics else metrics[0]
    return [rate for rate in each.rates if rate.metric == wanted]
