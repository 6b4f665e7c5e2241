"""How weak slices are shown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fairway.evaluation.pages import ACCENT, BAD, INK, SURFACE, render_part, styled_axes, themed_svg
from fairway.evaluation.words import number, p_value, percent

if TYPE_CHECKING:
    from markupsafe import Markup

    from fairway.evaluation.analyses.weak_slices import WeakSlice, WeakSlices
    from fairway.evaluation.slicing.confirm import Level

TITLE = "Weak slices"
_WIDTH = 100


def text(found: WeakSlices) -> Iterator[str]:
    """Two or three lines per slice, then how it was searched."""
    for each in found.slices:
        yield from _wrapped(f"{each.description} ({each.inside.rows:,} rows)", "  ", "    ")
        figures = f"{each.loss} {_level(each.inside)}, elsewhere {_level(each.outside)}, p {p_value(each.p_value)}"
        yield from _wrapped(figures, "    ", "    ")
        if each.where:
            yield from _wrapped(f"where = {_toml(each.where)}", "    ", "      ")
    yield from _wrapped(note(found), "  ", "  ")


def page(found: WeakSlices) -> Markup:
    """A plot per loss, a table, and what to put into ``fairway.toml``."""
    losses = list(dict.fromkeys(each.loss for each in found.slices))
    return render_part(
        "weak_slices",
        found=found,
        plots=[_plot(loss, [each for each in found.slices if each.loss == loss]) for loss in losses],
        level=_level,
        p_value=p_value,
        toml=_toml,
        percent=percent,
        note=note(found),
    )


def note(found: WeakSlices) -> str:
    """What was looked for, and how sure it is."""
    said = "No weak slice was confirmed. " if not found.slices else ""
    return (
        f"{said}Searched: conjunctions of up to 3 of {found.predicates:,} predicates, on {found.searched:,} rows; "
        f"suggested: {found.candidates}; confirmed on {found.confirmed:,} other rows: {len(found.slices)}. By chance alone, "
        f"at most {percent(1 - found.confidence)} of such searches confirm any. Not finding one does not show that there "
        "is none."
    )


def _level(found: Level) -> str:
    if found.low is None or found.high is None:
        return number(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def _toml(where: str) -> str:
    """A TOML string."""
    return f"'{where}'" if "'" not in where else '"' + where.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plot(loss: str, slices: list[WeakSlice]) -> Markup:
    figure, axes = styled_axes(8.2, 0.55 * len(slices) + 0.95)
    for place, each in enumerate(slices):
        for found, color, shift in ((each.inside, BAD, -0.12), (each.outside, ACCENT, 0.12)):
            if found.low is not None and found.high is not None:
                ends = [found.low, found.high]
                axes.plot(ends, [place + shift] * 2, color=color, linewidth=2.2, solid_capstyle="round")
            axes.plot([found.value], [place + shift], "o", color=color, markersize=7, markeredgecolor=SURFACE)
    names = ["\n".join(textwrap.wrap(f"{each.description} ({each.inside.rows:,})", 44)[:3]) for each in slices]
    axes.set_yticks(range(len(slices)), names)
    axes.set_ylim(len(slices) - 0.4, -0.6)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xlabel(f"{loss}, lower is better")
    axes.spines["left"].set_visible(False)
    shown = "; ".join(f"{e.description}: {_level(e.inside)}, elsewhere {_level(e.outside)}" for e in slices)
    return themed_svg(figure, title=f"{loss.capitalize()} in weak slices", description=shown)


def _wrapped(line: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(line, _WIDTH, initial_indent=first, subsequent_indent=later)
