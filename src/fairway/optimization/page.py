"""The search's outcome as one HTML page: the table, the reasons, and the Pareto plot."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

from fairway.core.metrics import METRICS, metric
from fairway.evaluation.pages import INK, LINE, MUTED, SERIES, render_page, styled_axes, themed_svg
from fairway.optimization.cells import row
from fairway.optimization.report import Candidate, Findings, Optimization, Status

if TYPE_CHECKING:
    from markupsafe import Markup

_BODY = """
<section class="verdict {{ tone }}">
<h2>{{ chosen }}</h2>
<p>{{ reason }}</p>
<ul class="reasons">{% for line in verdict.reasons %}<li>{{ line }}</li>{% endfor %}</ul>
</section>
{% if plot %}
<section>
<h2>Quality and cost</h2>
{{ parts.figure(plot, caption) }}
</section>
{% endif %}
<section>
<h2>Candidates</h2>
<div class="scroll"><table>
<caption>Intervals in brackets. Changes are against the original, on the same rows and in the same rounds.</caption>
<thead><tr><th scope="col">candidate</th><th scope="col"></th>
{% for cell in (quality, "change", objective, "change", "memory MB", "size MB") %}<th scope="col" class="num">{{ cell }}</th>
{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}
<tr><th scope="row">{{ row.name }}</th>
<td><span class="badge {{ badges.get(row.status, 'plain') }}">{{ row.status }}</span></td>
{% for cell in (row.quality, row.quality_change, row.cost, row.cost_change, row.memory_mb, row.size_mb) %}
<td class="num">{{ cell.value }}{% if cell.interval %}<br><small class="note">{{ cell.interval }}</small>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
</section>
<section>
<h2>Why</h2>
<div class="scroll"><table>
<thead><tr><th scope="col">candidate</th>
<th scope="col">what it is</th><th scope="col">why</th><th scope="col">passes</th></tr></thead>
<tbody>
{% for candidate in candidates %}
<tr><th scope="row">{{ candidate.name }}</th><td>{{ candidate.summary }}</td><td>{{ candidate.reason or "–" }}</td>
<td>{{ candidate.recipe | map(attribute="name") | join(" → ") or "–" }}</td></tr>
{% endfor %}
</tbody></table></div>
</section>
<section>
<h2>How it was found</h2>
{{ parts.facts(facts) }}
</section>
"""

_TONES = {"passed": "good", "failed": "bad", "error": "bad", "inconclusive": "warn"}


def page(optimization: Optimization) -> str:
    """Render the page."""
    found = optimization.findings
    original = optimization.candidates[0]
    verdict = optimization.verdict
    badges = {Status.CHOSEN.value: "good", Status.REFUSED.value: "bad", Status.FAILED.value: "warn"}
    points = [c for c in optimization.candidates if _at(c, found)]
    kept = "the original is kept" if optimization.kept_original else f"{found.chosen} is chosen"
    return render_page(
        f"{found.model}: {kept}",
        _BODY,
        kicker="Optimization",
        summary=f"{len(optimization.candidates) - 1} candidates under the gate, {found.rounds} interleaved rounds",
        tone=_TONES.get(verdict.outcome.value, "plain"),
        chosen=f"{found.chosen}: {verdict.outcome.value}",
        reason=found.reason,
        verdict=verdict,
        plot=_pareto(points, found) if points else None,
        caption=_caption(found),
        quality=found.quality or "quality",
        objective=found.objective,
        rows=[row(candidate, found, original) for candidate in optimization.candidates],
        badges=badges,
        candidates=optimization.candidates,
        facts=_facts(found),
    )


def _facts(found: Findings) -> dict[str, str]:
    return {
        "Original": found.source,
        "Rows evaluated": f"{found.rows:,}",
        "Rows that calibrated": f"{found.calibration_rows:,}",
        "Rounds of measurements": f"{found.rounds}",
        "Time": f"{found.elapsed_s:.0f} s of {found.time_budget_s:.0f} s",
    }


def _caption(found: Findings) -> str:
    better = "higher" if metric(found.quality).higher_is_better else "lower"
    cheaper = "to the right" if metric(found.objective).higher_is_better else "to the left"
    return (
        f"Each circle is one candidate; its area is the bundle's size. Better is {better} and {cheaper}. The line joins those "
        "that no other beats in both (the Pareto front); whiskers are intervals. Ringed: chosen. Hollow: refused by the gate."
    )


def _at(candidate: Candidate, found: Findings) -> tuple[float, float] | None:
    cost, quality = candidate.measurement(found.objective), candidate.measurement(found.quality)
    return (cost.value, quality.value) if cost and quality else None


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


def _pareto(candidates: list[Candidate], found: Findings) -> Markup:
    figure, axes = styled_axes(7.5, 4.2)
    axes.grid(axis="both", color=LINE, linewidth=0.5)
    largest = max(c.size_bytes for c in candidates)
    places = [(c, *place) for c in candidates if (place := _at(c, found))]
    line = front(
        [(x, y) for _, x, y in places],
        cost_up=metric(found.objective).higher_is_better,
        quality_up=metric(found.quality).higher_is_better,
    )
    axes.step(*zip(*line, strict=True), where="post", color=MUTED, linewidth=1, linestyle="--", zorder=1)
    colors = dict(zip((c.name for c, _, _ in places), cycle(SERIES), strict=False))
    for candidate, x, y in sorted(places, key=lambda place: -place[0].size_bytes):  # small ones on top
        _draw(axes, candidate, (x, y), found, largest, colors[candidate.name])
    axes.legend(
        handles=[_key(axes, candidate, colors[candidate.name]) for candidate, _, _ in places],
        loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9, labelcolor=INK,
    )  # fmt: skip
    axes.margins(0.1)
    axes.set_xlabel(_label(found.objective))
    axes.set_ylabel(_label(found.quality))
    shown = ", ".join(f"{c.name} {y:.4g} at {x:.4g}" for c, x, y in places)
    title = f"{found.quality} by {found.objective}"
    return themed_svg(figure, title=title, description=f"{title}: {shown}")


def _draw(axes: Any, candidate: Candidate, at: tuple[float, float], found: Findings, largest: int, color: str) -> None:
    cost, quality = candidate.measurement(found.objective), candidate.measurement(found.quality)
    assert cost is not None
    assert quality is not None
    whiskers = [[[abs(v.value - v.low)], [abs(v.high - v.value)]] for v in (cost, quality)]
    axes.errorbar(*at, xerr=whiskers[0], yerr=whiskers[1], color=color, linewidth=1, alpha=0.5, zorder=2)
    area = 30 + 470 * candidate.size_bytes / max(largest, 1)
    face = "none" if candidate.status is Status.REFUSED else color
    edge = INK if candidate.status is Status.CHOSEN else color
    axes.scatter(*at, s=area, facecolor=face, edgecolor=edge, linewidth=1.5, alpha=0.8, zorder=3)


def _key(axes: Any, candidate: Candidate, color: str) -> Any:
    """The legend's entry: a circle of one size, hollow if refused, ringed if chosen."""
    face = "none" if candidate.status is Status.REFUSED else color
    edge = INK if candidate.status is Status.CHOSEN else color
    return axes.scatter([], [], s=60, facecolor=face, edgecolor=edge, linewidth=1.5, label=candidate.name)


def _label(name: str) -> str:
    unit = next(
        (unit for end, unit in (("_ms", "ms"), ("_mb", "MB"), ("_rps", "requests/s")) if name.endswith(end)), ""
    )
    words = name.removesuffix("_ms").removesuffix("_mb").removesuffix("_rps").replace("_", " ")
    return f"{words} ({unit})" if unit else words if name in METRICS else name
