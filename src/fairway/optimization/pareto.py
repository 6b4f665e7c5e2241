"""Quality against what it costs, one candidate a mark: who is beaten by nobody, and where the gate's limits lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fairway.core.metrics import Measurement, metric
from fairway.evaluation.pages import ACCENT, BAD, INK, LINE, MUTED, SURFACE, styled_axes, themed_svg
from fairway.evaluation.tiles import label
from fairway.evaluation.words import number
from fairway.optimization.labels import place_labels
from fairway.optimization.report import ORIGINAL, Candidate, Findings, Status

if TYPE_CHECKING:
    from markupsafe import Markup

COSTS = ("memory_mb", "size_mb", "energy_mj_per_request")
"""What quality is also drawn against, where it was measured."""

_REACH = 1.0
"""A limit further away than so many times the width of the data is named at the edge: drawn, it would squash the rest."""


class Point(msgspec.Struct, frozen=True):
    """One candidate's place.

    Attributes
    ----------
    number : int
        Among all candidates; tables show it, too.
    cost, quality : Measurement
    change : Measurement or None
        Of quality, to the original on the same rows: what the gate judges bounds on change by.
    """

    number: int
    candidate: Candidate
    cost: Measurement
    quality: Measurement
    change: Measurement | None


def front(points: list[tuple[float, float]], *, cost_up: bool, quality_up: bool) -> list[tuple[float, float]]:
    """The points that no other point beats or equals in both, by cost.

    Examples
    --------
    >>> front([(1, 0.8), (2, 0.9), (3, 0.85)], cost_up=False, quality_up=True)
    [(1, 0.8), (2, 0.9)]
    """
    x, y = (-1 if cost_up else 1), (1 if quality_up else -1)
    kept: list[tuple[float, float]] = []
    for point in sorted(set(points), key=lambda p: (x * p[0], -y * p[1])):
        if not kept or y * point[1] > y * kept[-1][1]:
            kept.append(point)
    return kept


def points(found: Findings, cost: str) -> list[Point]:
    """Every candidate of which both are known. The size of one that was never measured is known all the same."""
    placed: list[Point] = []
    for place, candidate in enumerate(found.candidates):
        paid, quality = candidate.measurement(cost), candidate.measurement(found.quality)
        if paid is None and cost == "size_mb" and candidate.size_bytes:
            paid = Measurement.exact(cost, candidate.size_bytes / 1e6)
        if paid is not None and quality is not None:
            change = candidate.measurement(found.quality, ORIGINAL) if place else None
            placed.append(Point(place, candidate, paid, quality, change))
    return placed


def limits(found: Findings, name: str) -> list[float]:
    """Where the gate bounds a metric over all rows; a bound on change counts from the original."""
    original = found.candidates[0]
    base, verdict = original.measurement(name), original.verdict
    bounds = {f.bound: f.limit for f in verdict.findings if f.metric == name and not f.slice} if verdict else {}
    fixed = [bounds[bound] for bound in ("min", "max") if bound in bounds]
    moves = {"max_drop": -1, "max_rise": 1}
    return fixed + ([base.value + sign * bounds[b] for b, sign in moves.items() if b in bounds] if base else [])


def pareto_plot(found: Findings, cost: str, *, width: float = 9.4, height: float = 4.6) -> Markup | None:
    """Quality by ``cost``; ``None`` where fewer than two candidates have both."""
    drawn = points(found, cost)
    if len(drawn) < 2:
        return None
    figure, axes = styled_axes(width, height)
    axes.grid(axis="both", color=LINE, linewidth=0.5)
    line = front(
        [(p.cost.value, p.quality.value) for p in drawn],
        cost_up=metric(cost).higher_is_better,
        quality_up=metric(found.quality).higher_is_better,
    )
    axes.step(*zip(*line, strict=True), where="post", color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for point in drawn:
        _draw(axes, point)
    axes.margins(0.12)
    axes.set_xlabel(axis_label(cost))
    axes.set_ylabel(axis_label(found.quality))
    axes.autoscale_view()
    _limit_lines(axes, limits(found, cost), vertical=True, up=metric(cost).higher_is_better)
    _limit_lines(axes, limits(found, found.quality), vertical=False, up=metric(found.quality).higher_is_better)
    first = sorted(
        drawn, key=lambda p: p.candidate.status is not Status.CHOSEN
    )  # there is most room for the first label
    place_labels(
        figure, axes, [(p.cost.value, p.quality.value, str(p.number), f"{p.number} {p.candidate.name}") for p in first]
    )
    shown = "; ".join(f"{p.candidate.name}: {number(p.quality.value)} at {number(p.cost.value)}" for p in drawn)
    return themed_svg(figure, title=f"{found.quality} by {cost}", description=shown)


def axis_label(name: str) -> str:
    """A metric's name for people, with its unit.

    Examples
    --------
    >>> axis_label("latency_p50_ms"), axis_label("accuracy_score")
    ('latency p50 (ms)', 'accuracy')
    """
    words, unit = label(name)
    return f"{words} ({unit})" if unit else words


def legend(drawn: Sequence[Candidate]) -> list[tuple[str, str]]:
    """Which mark stands for what, of those that are there."""
    kinds = {_kind(candidate) for candidate in drawn}
    return [(mark, kind) for kind, mark in _SIGNS.items() if kind in kinds]


_WHISKER: dict[str, Any] = {"linewidth": 2.4, "alpha": 0.5, "solid_capstyle": "butt", "zorder": 2}
_WIDER: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.4, "zorder": 2}

_SIGNS = {"original": "◆", "chosen": "◉", "passed": "●", "refused": "✕"}


def _kind(candidate: Candidate) -> str:
    if candidate.status is Status.CHOSEN:
        return "chosen"
    if candidate.name == ORIGINAL:
        return "original"
    return "refused" if candidate.status is Status.REFUSED else "passed"


def _draw(axes: Any, point: Point) -> None:
    kind = _kind(point.candidate)
    color = {"original": INK, "refused": BAD}.get(kind, ACCENT)
    at = x, y = (point.cost.value, point.quality.value)
    axes.plot([_end(point.cost, point.cost.low), _end(point.cost, point.cost.high)], [y, y], color=color, **_WHISKER)
    axes.plot(
        [x, x], [_end(point.quality, point.quality.low), _end(point.quality, point.quality.high)], color=color, **_WIDER
    )
    if point.change is not None and point.change.known:
        base = y - point.change.value
        ends = [base + _end(point.change, end) for end in (point.change.low, point.change.high)]
        axes.plot([x, x], ends, color=color, **_WHISKER)
    style: dict[str, Any] = {"color": color, "edgecolor": SURFACE, "linewidth": 1, "zorder": 3, "s": 55}
    if kind == "chosen":
        axes.scatter(*at, s=170, facecolor="none", edgecolor=color, linewidth=1.8, zorder=3)
    axes.scatter(*at, marker={"original": "D", "refused": "X"}.get(kind, "o"), **style)


def _end(found: Measurement, end: float) -> float:
    """An end of the interval; where the data bound it on that side by nothing, no whisker."""
    return end if math.isfinite(end) else found.value


def _limit_lines(axes: Any, found: Sequence[float], *, vertical: bool, up: bool) -> None:
    """The gate's limits as lines, the side that it refuses shaded; those far away as a word at the edge."""
    low, high = axes.get_xlim() if vertical else axes.get_ylim()
    width = high - low
    near = [x for x in found if low - _REACH * width <= x <= high + _REACH * width]
    low, high = min([low, *(x - 0.05 * width for x in near)]), max([high, *(x + 0.05 * width for x in near)])
    draw, shade = (axes.axvline, axes.axvspan) if vertical else (axes.axhline, axes.axhspan)
    for limit in near:
        draw(limit, color=BAD, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1)
        shade(*((low, limit) if up else (limit, high)), color=BAD, alpha=0.07, linewidth=0, zorder=0)
    (axes.set_xlim if vertical else axes.set_ylim)(low, high)
    if far := [x for x in found if x not in near]:
        words = ", ".join(f"limit {number(x)} lies outside" for x in far)
        place = (
            {"xy": (1.0, 1.0), "ha": "right", "va": "bottom"}
            if vertical
            else {"xy": (0.0, 1.0), "ha": "left", "va": "bottom"}
        )
        axes.annotate(words, xycoords="axes fraction", color=MUTED, fontsize=8, **place)
