"""A drift report as one self-contained HTML page with plots."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairway.core.extras import require
from fairway.evaluation.pages import ACCENT, INK, LINE, MUTED, SERIES, render_page, styled_axes, themed_svg
from fairway.monitoring.text import facts, sentence, size, when

if TYPE_CHECKING:
    from markupsafe import Markup

    from fairway.monitoring.report import DriftReport, Histogram

_TONES = {
    "drift": ("bad", "✗", "Drift"),
    "no drift": ("good", "✓", "No drift"),
    "inconclusive": ("warn", "?", "Inconclusive"),
}
_TABLE_ROWS = 20
_LINES = len(SERIES)
_TICKS = 7
_LABEL = 9

_CAPTION = (
    "Divergence from the baseline of the features that moved most. Above the dashed line a change is large enough to matter; "
    "a dot is drift: large enough, and not by chance."
)
_BODY = """
<section class="verdict {{ tone[0] }}">
<h2>{{ tone[1] }} {{ tone[2] }}</h2>
<p>{{ report.reason }}</p>
{{ parts.facts(facts) }}
</section>
{% if over_time %}
<section>
<h2>Effect over time</h2>
{{ parts.figure(over_time, over_time_caption) }}
</section>
{% endif %}
{% if look %}
<section>
<h2>What moved</h2>
<p class="note">Look {{ look.number }}: {{ when }}, {{ "{:,}".format(look.rows) }} rows against
{{ "{:,}".format(report.baseline_rows) }} of the baseline.
{% if hidden %}Of {{ report.findings|length }} checks the {{ rows|length }} that matter most.{% endif %}</p>
<div class="scroll"><table>
<thead><tr><th>Feature</th><th>Side</th><th>Check</th><th class="num">Effect</th><th>What changed</th>
<th class="num">p, adjusted</th><th></th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td>{{ row.feature }}</td><td>{{ row.side }}</td><td>{{ row.check }}</td><td class="num">{{ row.size }}</td>
<td>{{ row.sentence }}</td><td class="num">{{ row.p }}</td>
<td>{% if row.drifted %}<span class="badge bad">✗ drift</span>{% endif %}</td></tr>
{% endfor %}
</tbody></table></div>
</section>
<section>
<h2>Then and now</h2>
<p class="note">Share of the rows in each bin. Where values allow it, bins hold equally many rows of the baseline.</p>
<div class="grid">
{% for histogram in histograms %}
{{ parts.figure(histogram) }}
{% endfor %}
</div>
</section>
{% endif %}
<section>
<h2>How this is judged</h2>
<p class="note">Rows are compared with the bundle's baseline in looks of {{ "{:,}".format(report.min_rows) }} rows or more.
Drift is a change that is large: at least {{ report.min_effect }} bits of Jensen–Shannon divergence (0 is equal, 1 no overlap),
or {{ "%.2g"|format(report.min_share * 100) }} % of the rows newly missing or out of range; and that is not by chance: p-values
hold at any number of rows, and are adjusted by Holm's method over the checks of a look. Each look has a smaller allowance than
the one before, so that the chance of any false alarm, however long this goes on, is at most
{{ "%.2g"|format(report.alpha * 100) }} %, if rows are independent.</p>
</section>
"""


def report_as_html(report: DriftReport) -> str:
    """Render the page. Raises :class:`~fairway.core.errors.MissingExtra` without Jinja and Matplotlib."""
    look = report.looks[report.shown] if report.shown is not None else None
    name = f"{report.model}:{report.version}" if report.model else "No traffic"
    rows = [
        {
            "feature": f.feature,
            "side": f.side,
            "check": f.check,
            "size": size(f),
            "sentence": sentence(f),
            "p": f"{f.p_value:.1e}" if f.p_value < 0.001 else f"{f.p_value:.3f}",
            "drifted": f.drifted,
        }
        for f in report.findings[:_TABLE_ROWS]
    ]
    return render_page(
        name,
        _BODY,
        kicker="Drift report",
        report=report,
        tone=_TONES[report.outcome.value],
        facts=facts(report),
        look=look,
        when=when(look) if look else "",
        rows=rows,
        hidden=len(report.findings) > len(rows),
        over_time=_over_time(report) if len(report.looks) > 1 else None,
        over_time_caption=_CAPTION,
        histograms=[_histogram(histogram) for histogram in report.histograms],
    )


def _over_time(report: DriftReport) -> Markup:
    figure, axes = styled_axes(8.0, 3.2)
    names = list(report.looks[report.shown or 0].effects)[:_LINES]
    times = [look.ended_at for look in report.looks]
    for name, color in zip(names, SERIES, strict=False):
        effects = [look.effects.get(name, np.nan) for look in report.looks]
        axes.plot(times, effects, color=color, linewidth=1.5, label=name)
        caught = [at for at, look in enumerate(report.looks) if name in look.drifted]
        axes.plot([times[at] for at in caught], [effects[at] for at in caught], "o", color=color, markersize=5)
    axes.axhline(report.min_effect, color=MUTED, linewidth=1, linestyle="--")
    axes.set_ylabel("effect, bits")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.grid(visible=False, axis="x")
    ticks = spaced(times)
    axes.set_xticks(ticks, _clock_labels(ticks))
    figure.legend(loc="outside right upper", frameon=False, fontsize=9, labelcolor=MUTED)
    largest = max((effect for look in report.looks for effect in look.effects.values()), default=0.0)
    return themed_svg(
        figure,
        title="Effect over time",
        description=f"{len(report.looks)} looks; the largest effect is {largest:.3f} bits, and {report.min_effect:g} matter.",
    )


def spaced(times: list[float]) -> list[float]:
    """Those of ascending ``times`` whose labels do not run into each other: looks come when rows do, not evenly.

    Examples
    --------
    >>> spaced([0.0, 1.0, 2.0, 70.0])
    [0.0, 70.0]
    """
    least = (times[-1] - times[0]) / _TICKS
    shown = times[:1]
    for at in times[1:]:
        if at - shown[-1] >= least:
            shown.append(at)
    return shown


def _clock_labels(times: list[float]) -> list[str]:
    """UTC, as precise as their distance asks for."""
    span = times[-1] - times[0]
    pattern = "%H:%M:%S" if span < 600 else "%H:%M" if span < 86_400 else "%b %d %H:%M"
    return [datetime.fromtimestamp(at, UTC).strftime(pattern) for at in times]


def _histogram(histogram: Histogram) -> Markup:
    figure, axes = styled_axes(5.0, 2.3)
    then, now = (_shares(counts) for counts in (histogram.baseline, histogram.current))
    bins = np.arange(len(then))
    axes.bar(bins, then, 0.9, color=MUTED, alpha=0.35, label="baseline")
    axes.step(np.append(bins, bins[-1] + 1) - 0.5, np.append(now, now[-1]), where="post", color=ACCENT, label="now")
    _ticks(axes, histogram)
    axes.set_title(histogram.feature, loc="left", fontsize=10, color=INK)
    axes.set_ylim(bottom=0)
    axes.grid(visible=False, axis="x")
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.yaxis.set_major_locator(require("matplotlib.ticker", extra="evaluate").MaxNLocator(4))
    axes.yaxis.set_major_formatter(require("matplotlib.ticker", extra="evaluate").PercentFormatter(1.0, decimals=0))
    axes.legend(
        frameon=False, fontsize=8, labelcolor=MUTED, handlelength=1.2, ncols=2, loc="lower right", bbox_to_anchor=(1, 1)
    )
    most = int(np.argmax(np.abs(now - then)))
    return themed_svg(
        figure,
        title=histogram.feature,
        description=f"Largest change at {histogram.labels[most]}: {then[most]:.1%} of the rows then, {now[most]:.1%} now.",
    )


def _ticks(axes: Any, histogram: Histogram) -> None:
    """Values at the edges between numeric bins, names under discrete ones: as many as fit."""
    if histogram.edges:
        step = -(-len(histogram.edges) // _TICKS)
        at = range(0, len(histogram.edges), step)
        axes.set_xticks([place + 0.5 for place in at], [f"{histogram.edges[place]:.3g}" for place in at])
        return
    labels = [label if len(label) <= _LABEL else label[: _LABEL - 1] + "…" for label in histogram.labels]
    step = -(-len(labels) // (_TICKS * 2 if max(map(len, labels)) <= 3 else _TICKS))
    shown = sorted({*range(0, len(labels) - 1, step), len(labels) - 1})
    axes.set_xticks(shown, [labels[place] for place in shown])


def _shares(counts: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.array(counts, np.float64)
    shares: NDArray[np.float64] = array / max(float(array.sum()), 1.0)
    return shares
