"""How feature importance is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fairway.evaluation.pages import ACCENT, INK, MUTED, SURFACE, render_part, styled_axes, themed_svg
from fairway.evaluation.words import number, p_value, ranged

if TYPE_CHECKING:
    from markupsafe import Markup

    from fairway.evaluation.analyses.importance import Feature, Importance

TITLE = "Feature importance"
_DRAWN = 20
_LISTED = 8


def text(found: Importance) -> Iterator[str]:
    """The most important features."""
    if not found.features:
        yield f"  not measured: {found.note}"
        return
    yield f"  rise of the {found.loss} ({number(found.base)}) when shuffled, {found.rows:,} rows, {found.repeats} times"
    for each in found.features[:_LISTED]:
        yield f"  {each.name}: {ranged(each.rise, signed=True)}{'' if each.matters else ' (may be chance)'}"
    if len(found.features) > _LISTED:
        mattering = sum(each.matters for each in found.features)
        yield f"  of {len(found.features):,} features, {mattering:,} surely matter"
    if found.note:
        yield f"  {found.note}"


def page(found: Importance) -> Markup:
    """Bars with whiskers, and a table."""
    drawn = found.features[:_DRAWN]
    return render_part(
        "importance",
        found=found,
        plot=_plot(found, drawn) if drawn else None,
        drawn=drawn,
        number=number,
        ranged=ranged,
        p_value=p_value,
    )


def _plot(found: Importance, drawn: Sequence[Feature]) -> Markup:
    figure, axes = styled_axes(7.4, 0.3 * len(drawn) + 0.9)
    for place, each in enumerate(drawn):
        color = ACCENT if each.matters else MUTED
        axes.barh(place, each.rise.value, height=0.62, color=color, alpha=0.35, linewidth=0)
        if each.rise.low is not None and each.rise.high is not None:
            axes.plot([each.rise.low, each.rise.high], [place] * 2, color=color, linewidth=2, solid_capstyle="round")
        axes.plot([each.rise.value], [place], "o", color=color, markersize=6, markeredgecolor=SURFACE)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(
        range(len(drawn)), [name if len(name) <= 28 else name[:27] + "…" for name in (f.name for f in drawn)]
    )
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"rise of the {found.loss} when shuffled")
    shown = "; ".join(f"{each.name}: {ranged(each.rise)}" for each in drawn)
    return themed_svg(figure, title="Feature importance", description=shown)
