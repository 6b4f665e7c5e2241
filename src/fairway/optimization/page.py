"""The search's outcome as one HTML page: the verdict, Pareto plots, what each pass bought, what was refused and why."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fairway.core.gate import Outcome
from fairway.core.metrics import Measurement, described
from fairway.evaluation.pages import BAD, GOOD, INK, MUTED, SURFACE, render_page, styled_axes, themed_svg
from fairway.evaluation.tiles import label
from fairway.evaluation.words import estimate, interval, number
from fairway.optimization.cells import percent_cell, quality_change_cell, row, way_cells
from fairway.optimization.pareto import COSTS, axis_label, legend, pareto_plot
from fairway.optimization.report import ORIGINAL, Candidate, Findings, Optimization, Status
from fairway.optimization.steps import Step, steps, way

if TYPE_CHECKING:
    from markupsafe import Markup

_HEADLINES = {
    Outcome.PASSED: ("good", "✓", "keeps the gate"),
    Outcome.FAILED: ("bad", "✗", "does not keep the gate"),
    Outcome.ERROR: ("bad", "!", "could not be judged"),
}
_UNSURE = ("warn", "?", "cannot be told from the gate's limits")
_WORST = (Outcome.FAILED, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASSED)
_BADGES = {Status.CHOSEN.value: "good", Status.REFUSED.value: "bad", Status.FAILED.value: "warn"}
_WHY = (
    ("Chosen, and passed over", "All of these keep the gate", (Status.CHOSEN, Status.PASSED)),
    ("Refused", "By the gate, which limits were broken or could not be told", (Status.REFUSED,)),
    (
        "Not measured in rounds",
        "What came of these instead",
        tuple(set(Status) - {Status.CHOSEN, Status.PASSED, Status.REFUSED}),
    ),
)
_SMALL = {"width": 4.8, "height": 3.4}
_TILES = ("latency_p99_ms", "throughput_rps", "memory_mb", "size_mb", "load_ms", "energy_mj_per_request")


def page(optimization: Optimization) -> str:
    """Render the page."""
    found, verdict = optimization.findings, optimization.verdict
    original, made = optimization.candidates[0], steps(optimization.findings)
    tone, mark, said = _HEADLINES.get(verdict.outcome, _UNSURE)
    kept = "the original is kept" if optimization.kept_original else f"{found.chosen} is chosen"
    others = [cost for cost in COSTS if cost != found.objective]
    plots = [pareto_plot(found, found.objective), *(pareto_plot(found, cost, **_SMALL) for cost in others)]
    return render_page(
        f"{found.model}: {kept}",
        files("fairway.optimization").joinpath("templates/optimization.html").read_text("utf-8"),
        kicker="Fairway optimization",
        summary=f"{len(optimization.candidates) - 1} candidates under the gate, {found.rounds} interleaved rounds",
        tone=tone,
        mark=mark,
        headline=f"{found.chosen} {said}",
        reason=found.reason,
        verdict=verdict,
        tiles=_tiles(optimization.winner, original, found),
        plots=[plot for plot in plots if plot is not None],
        caption=_CAPTION,
        legend=legend(optimization.candidates),
        steps=[_step(step, original, found) for step in made],
        waterfall=_waterfall(way(made, found.chosen), found),
        quality=found.quality or "quality",
        objective=found.objective,
        rows=[row(candidate, found, original) for candidate in optimization.candidates],
        badges=_BADGES,
        front={candidate.name for candidate in optimization.candidates if candidate.front},
        held_out=_held_out(optimization),
        tuned=found.tuned,
        ways=[(way, way_cells(way, found.objective)) for way in (found.tuned.ways if found.tuned else ())],
        why=[(title, said, listed) for title, said, kinds in _WHY if (listed := _of(optimization, kinds))],
        facts=_facts(found),
    )


_CAPTION = (
    "Each mark is one candidate, with its number and where there is room its name. Whiskers are intervals: thin, of the "
    "quality itself; thick, of its difference to the original on the same rows, and of the cost. The dashed line joins those "
    "that no other beats in both (the Pareto front). Shaded: what the gate refuses."
)


def _of(optimization: Optimization, kinds: tuple[Status, ...]) -> list[Candidate]:
    return [c for c in optimization.candidates if c.status in kinds and (c.name != ORIGINAL or c.reason)]


def _held_out(optimization: Optimization) -> list[dict[str, Any]]:
    """Changes of quality on the rows that the search looked at, and on those that it did not."""
    name = optimization.findings.quality
    return [
        {
            "name": candidate.name,
            "searched": quality_change_cell(candidate.measurement(name, ORIGINAL)),
            "held_out": quality_change_cell(found),
        }
        for candidate in optimization.candidates
        for found in candidate.held_out
        if found.metric == name and found.versus and not found.slice
    ]


def _facts(found: Findings) -> dict[str, str]:
    return {
        "Original": found.source,
        "Rows evaluated": f"{found.rows:,}, of which {found.held_out_rows:,} were held out of the search",
        "Rows that calibrated": f"{found.calibration_rows:,}",
        "Rounds of measurements": f"{found.rounds}",
        "Time": f"{found.elapsed_s:.0f} s of {found.time_budget_s:.0f} s",
        "Judged": found.judged or "–",
        "The search ended": found.ended or "–",
    }


def _tiles(chosen: Candidate, original: Candidate, found: Findings) -> list[dict[str, Any]]:
    """The chosen form's numbers, the objective and the quality first."""
    names = dict.fromkeys((found.objective, found.quality, *_TILES))
    return [_tile(m, chosen, original) for name in names if (m := chosen.measurement(name)) and m.has_value]


def _tile(found: Measurement, chosen: Candidate, original: Candidate) -> dict[str, Any]:
    name, unit = label(found.metric)
    change = None if chosen.name == ORIGINAL else chosen.measurement(found.metric, ORIGINAL)
    quality = bool(described(found.metric).tasks)
    shown = quality_change_cell(change) if quality else percent_cell(change, original.measurement(found.metric))
    return {
        "label": name,
        "value": estimate(found),
        "unit": unit,
        "interval": interval(found),
        "change": "" if change is None else str(shown),
        "tone": _kept_tone(found.metric, chosen) if quality else _gain_tone(change),
    }


def _kept_tone(name: str, chosen: Candidate) -> str:
    """How the gate found a quality: that a cheaper form has a little less of it is no fault."""
    outcomes = {f.outcome for f in chosen.verdict.findings if f.metric == name} if chosen.verdict else set()
    return next((_HEADLINES.get(each, _UNSURE)[0] for each in _WORST if each in outcomes), "")


def _gain_tone(change: Measurement | None) -> str:
    """Good or bad where the whole interval says so."""
    if change is None or not change.known or change.low <= 0 <= change.high:
        return ""
    return "good" if (change.value > 0) == described(change.metric).higher_is_better else "bad"


def _step(step: Step, original: Candidate, found: Findings) -> dict[str, Any]:
    before = next((c for c in found.candidates if c.name == step.before), original)
    return {
        "before": step.before,
        "passes": ", ".join(step.passes),
        "after": step.after,
        "cost": percent_cell(step.cost, before.measurement(found.objective)),
        "quality": quality_change_cell(step.quality),
    }


def _waterfall(taken: tuple[Step, ...], found: Findings) -> Markup | None:
    """The objective from the original to what was chosen, one bar a step; ``None`` where it is one step or none."""
    if len(taken) < 2:
        return None
    measured = {c.name: c.measurement(found.objective) for c in found.candidates}
    rows = [("original", measured[ORIGINAL], None), *((", ".join(s.passes), measured[s.after], s) for s in taken)]
    figure, axes = styled_axes(9.4, 0.55 * len(rows) + 0.9)
    before = None
    for place, (_, value, step) in enumerate(rows):
        assert value is not None
        color = {"good": GOOD, "bad": BAD}.get(_gain_tone(step.cost), MUTED) if step else INK
        start = before.value if before else 0.0
        axes.barh(
            place, value.value - start, left=start, height=0.5, color=color, alpha=0.75 if step else 0.35, linewidth=0
        )
        axes.plot([value.low, value.high], [place, place], color=INK, linewidth=1.4)
        axes.plot([value.value], [place], "o", color=INK, markersize=5, markeredgecolor=SURFACE)
        before = value
    axes.set_yticks(range(len(rows)), [("+ " if step else "") + name for name, _, step in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(axis_label(found.objective))
    shown = "; ".join(f"{name}: {number(value.value)}" for name, value, _ in rows if value)
    return themed_svg(figure, title="What each pass bought", description=shown)
