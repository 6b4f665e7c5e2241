"""How robustness is shown."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fairway.evaluation.pages import INK, LINE, MUTED, SERIES, SURFACE, render_part, styled_axes, themed_svg
from fairway.evaluation.words import interval, number

if TYPE_CHECKING:
    from markupsafe import Markup

    from fairway.evaluation.analyses.robustness import Curve, Robustness, Strength

TITLE = "Robustness"


def text(found: Robustness) -> Iterator[str]:
    """One line per perturbation, then how sure the model is of strange inputs, then what this does not say."""
    yield f"  {found.metric} by strength (0: as it is), on {found.rows:,} rows; *: from here on, the loss is sure"
    width = max((len(_name(found, each)) for each in found.curves), default=0)
    for each in found.curves:
        figures = " ".join(f"{_figure(level, each):>8}" for level in each.levels)
        yield f"  {_name(found, each):<{width}} {number(found.clean.value):>8} {figures}"[:100]
    for line in confident(found):
        yield f"  {line}"
    yield from textwrap.wrap(note(found), 100, initial_indent="  ", subsequent_indent="  ")


def page(found: Robustness) -> Markup:
    """A plot per input, a table, and what is not tested."""
    inputs = list(dict.fromkeys(each.input for each in found.curves))
    return render_part(
        "robustness",
        found=found,
        plots=[_plot(found, key, [each for each in found.curves if each.input == key]) for key in inputs],
        called=lambda each: _name(found, each),
        figure=lambda level: number(level.value.value) if level.value is not None else "fails",
        title=lambda level: interval(level.value) if level.value is not None else level.error,
        change=lambda each: _change(each.levels[-1]),
        number=number,
        confident=confident(found),
        note=note(found),
    )


def confident(found: Robustness) -> list[str]:
    """How often the model is sure, of what it knows and of what it does not."""
    return [
        f"{each.name}: {100 * each.share:.3g} % [{100 * each.low:.3g}, {100 * each.high:.3g}] of answers above 0.9"
        for each in found.confident
    ]


def note(found: Robustness) -> str:
    """What is tested and what is not."""
    untested = f" Not perturbed: {', '.join(found.untested)}." if found.untested else ""
    return (
        "Tested: one random change at a time, of the kinds listed, assuming that it leaves the label as it is. A loss is sure "
        "by paired tests from the strongest level down; perturbations are not corrected for each other. Not tested: worst "
        f"cases that somebody searches for (adversarial inputs), several changes at once, other kinds.{untested}"
    )


def _name(found: Robustness, each: Curve) -> str:
    return each.name if len({one.input for one in found.curves}) == 1 else f"{each.input}: {each.name}"


def _figure(level: Strength, curve: Curve) -> str:
    shown = "fails" if level.value is None else number(level.value.value)
    return f"{shown}{'*' if curve.sure_from == level.level else ''}"


def _change(level: Strength) -> str:
    if level.change is None:
        return "fails"
    return f"{number(level.change.value, signed=True)} {interval(level.change)}"


def _plot(found: Robustness, key: str, curves: Sequence[Curve]) -> Markup:
    columns = 3
    rows = math.ceil(len(curves) / columns)
    figure, first = styled_axes(9.4, 2.35 * rows)
    figure.delaxes(first)
    shared = None
    for place, curve in enumerate(curves):
        axes = figure.add_subplot(rows, columns, place + 1, sharey=shared)
        shared = shared or axes
        _curve(axes, found, curve, SERIES[0])
        if place % columns:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel(found.metric, fontsize=9, color=MUTED)
    described = "; ".join(
        f"{each.name}: {', '.join(_figure(level, each) for level in each.levels)} from {number(found.clean.value)}"
        for each in curves
    )
    return themed_svg(figure, title=f"{found.metric} by perturbation of {key}", description=described)


def _curve(axes: object, found: Robustness, curve: Curve, color: str) -> None:
    from typing import Any, cast

    plot = cast(Any, axes)
    known = [level for level in curve.levels if level.value is not None]
    values = [found.clean, *(level.value for level in known if level.value is not None)]
    places = [0, *(level.level for level in known)]
    low = [v.low if math.isfinite(v.low) else v.value for v in values]
    high = [v.high if math.isfinite(v.high) else v.value for v in values]
    plot.axhline(found.clean.value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    plot.fill_between(places, low, high, color=color, alpha=0.18, linewidth=0)
    plot.plot(places, [v.value for v in values], color=color, linewidth=1.6)
    for place, value in zip(places, values, strict=True):
        sure = curve.sure_from is not None and place >= curve.sure_from
        plot.plot([place], [value.value], "o", markersize=6, color=color if sure else SURFACE, markeredgecolor=color)
    plot.set_title(curve.name, fontsize=9.5, loc="left", color=INK)
    plot.set_xticks(range(6), ["0", *(f"{level.strength:g}" for level in curve.levels)], fontsize=8)
    plot.set_xlabel(curve.unit, fontsize=8, color=MUTED)
    plot.set_xlim(-0.3, 5.3)
    plot.spines[["top", "right"]].set_visible(False)
    plot.spines[["left", "bottom"]].set_color(LINE)
    plot.tick_params(colors=MUTED, length=0, labelsize=8)
    plot.grid(axis="y", color=LINE, linewidth=0.8)
