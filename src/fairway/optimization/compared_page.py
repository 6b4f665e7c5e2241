"""Two bundles beside each other as one HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fairway.evaluation.pages import BAD, GOOD, INK, MUTED, SURFACE, render_page, styled_axes, themed_svg
from fairway.evaluation.words import estimate
from fairway.optimization.compared import Answer, Compared, Row, Side
from fairway.optimization.compared_text import change_text, notes, percent_interval, row_name

if TYPE_CHECKING:
    from markupsafe import Markup

_BODY = """
{% macro answers(title, rows) %}
<div class="scroll"><table>
<caption>{{ title }}. First: {{ first.name }}. Second: {{ second.name }}.</caption>
<thead><tr><th scope="col">metric</th><th scope="col">answer</th><th scope="col" class="num">first</th>
<th scope="col" class="num">second</th><th scope="col" class="num">change</th>
<th scope="col">interval</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><th scope="row">{{ row.name }}</th><td>{{ parts.badge(row.answer) }}</td><td class="num">{{ row.first }}</td>
<td class="num">{{ row.second }}</td><td class="num">{{ row.change }}</td><td class="tight">{{ row.interval }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
<section class="verdict {{ tone }}">
<div class="mark" aria-hidden="true">{{ mark }}</div>
<div>
<h2>{{ headline }}</h2>
<p class="badges">{% for answer, count in counted %}{{ parts.badge(answer, count) }}{% endfor %}</p>
<p class="note">{{ notes }}</p>
</div>
</section>
<section>
<h2>Quality</h2>
{{ answers("On the same rows", quality) }}
</section>
<section>
<h2>As served</h2>
{% if plot %}
{{ parts.figure(plot, caption, wide=True) }}
{% endif %}
{{ answers("In the same rounds", performance) }}
</section>
<section>
<h2>What differs</h2>
{% if changes %}
<div class="scroll"><table>
<caption>By the bundles' manifests</caption>
<thead><tr><th scope="col">field</th><th scope="col">{{ first.name }}</th><th scope="col">{{ second.name }}</th></tr></thead>
<tbody>
{% for change in changes %}
<tr><th scope="row">{{ change.field }}</th><td><code>{{ change.first or "–" }}</code></td>
<td><code>{{ change.second or "–" }}</code></td></tr>
{% endfor %}
</tbody></table></div>
{% else %}<p>Nothing in the manifests differs.</p>{% endif %}
</section>
<section>
<h2>Which they are</h2>
<div class="grid">
{% for side in (first, second) %}<div><h3>{{ side.name }}</h3>{{ parts.facts(facts(side)) }}</div>
{% endfor %}</div>
</section>
"""

_COLORS = {Answer.BETTER: GOOD, Answer.WORSE: BAD}


def compared_page(found: Compared) -> str:
    """Render the page."""
    counts = Counter(row.answer for row in (*found.quality, *found.performance) if not row.slice)
    tone, mark, headline = _headline(counts)
    return render_page(
        f"{found.second.name} against {found.first.name}",
        _BODY,
        kicker="Fairway comparison",
        summary=f"{found.rows:,} rows, {found.rounds} interleaved rounds",
        tone=tone,
        mark=mark,
        headline=headline,
        counted=[(answer, counts[answer]) for answer in Answer if counts[answer]],
        notes=notes(found),
        first=found.first,
        second=found.second,
        quality=list(map(_cells, found.quality)),
        performance=list(map(_cells, found.performance)),
        caption=f"Change in percent of {found.first.name}. Dot: the median over rounds. Whisker: its interval. Where the "
        "whisker crosses the line at 0, nobody can tell.",
        plot=_forest(found.performance, found.first.name),
        changes=found.changes,
        facts=_facts,
    )


def _headline(counts: Counter[Answer]) -> tuple[str, str, str]:
    if counts[Answer.BETTER] and counts[Answer.WORSE]:
        return "warn", "⇅", "Better by some metrics, worse by others"
    if counts[Answer.BETTER]:
        return "good", "▲", "Better, and by no metric worse"
    if counts[Answer.WORSE]:
        return "bad", "▼", "Worse, and by no metric better"
    return "plain", "?", "Nobody can tell them apart"


def _cells(row: Row) -> dict[str, str]:
    change, interval = change_text(row)
    sides = {
        name: "—" if each is None else estimate(each) for name, each in (("first", row.first), ("second", row.second))
    }
    return {"name": row_name(row), "answer": row.answer.value, "change": change, "interval": interval, **sides}


def _facts(side: Side) -> dict[str, str]:
    return {
        "Digest": side.digest,
        "Size": f"{side.size_bytes / 1e6:,.3g} MB",
        "Engine": " ".join([side.engine.name, *(f"{name} {value}" for name, value in side.engine.options.items())]),
        "Passes": " → ".join(side.passes) or "none",
    }


def _forest(rows: Sequence[Row], versus: str) -> Markup | None:
    """Changes of what is served in percent of the first; ``None`` if there is none to draw."""
    drawn = [(row, ends) for row in rows if (ends := percent_interval(row)) is not None]
    if not drawn:
        return None
    figure, axes = styled_axes(9.4, 0.4 * len(drawn) + 0.9)
    axes.axvline(0, color=INK, linewidth=1)
    for place, (row, (value, low, high)) in enumerate(drawn):
        color = _COLORS.get(row.answer, MUTED)
        axes.plot([low, high], [place, place], color=color, linewidth=2.2, solid_capstyle="round")
        axes.plot([value], [place], "o", color=color, markersize=7, markeredgecolor=SURFACE)
    axes.set_yticks(range(len(drawn)), [f"{row_name(row)}: {row.answer.value}" for row, _ in drawn])
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"change in % of {versus}")
    shown = "; ".join(f"{row_name(row)} {value:+.1f} % [{low:+.1f}, {high:+.1f}]" for row, (value, low, high) in drawn)
    return themed_svg(figure, title="Changes as served", description=shown)
