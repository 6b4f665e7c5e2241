"""The page of a search: what was chosen, Pareto plots with the gate's limits, what each pass bought, what was refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bundle.format import Bundle
from fairway.core.gate import Gate, Limit, judge
from fairway.core.manifest import PassRecord
from fairway.core.metrics import Measurement
from fairway.optimization.labels import Box, choose
from fairway.optimization.pareto import limits, pareto_plot, points
from fairway.optimization.report import ORIGINAL, Candidate, Findings, Optimization, Status
from fairway.optimization.steps import steps, way
from tests.monitoring.browser import open_page

GATE: Gate = {
    "accuracy_score": Limit(min=0.9, max_drop=0.005),
    "latency_p50_ms": Limit(max=20),
    "memory_mb": Limit(max=4000),
}
FUSED = ("simplify", "attention", "narrow")


class Form(NamedTuple):
    """What is made up of one candidate."""

    passes: tuple[str, ...]
    accuracy: float
    latency: float | None
    memory: float
    size: float
    status: Status = Status.PASSED
    reason: str = ""


FORMS = {
    ORIGINAL: Form((), 0.942, 16.1, 310, 45.2),
    "graph": Form(("graph",), 0.942, 15.4, 306, 45.1, reason="passed; latency_p50_ms +216 % [+205, +230] against it"),
    "fused": Form((*FUSED, "graph"), 0.942, 11.2, 297, 44.8, reason="passed; slower than fused-int8-smooth"),
    "int8-dynamic": Form(("graph", "int8-dynamic"), 0.9405, 7.1, 190, 12.1, reason="passed; slower"),
    "fused-int8-dynamic": Form((*FUSED, "int8-dynamic"), 0.9401, 5.2, 184, 11.9, reason="passed; slower"),
    "fused-int8-smooth": Form(
        (*FUSED, "smooth", "int8-static"), 0.9398, 4.7, 181, 11.8, Status.CHOSEN, "latency_p50_ms -71 % [-73, -70]"
    ),
    "int8-static": Form(("graph", "int8-static"), 0.921, None, 0, 12.0, Status.REFUSED, "accuracy_score fell by 0.021"),
    "openvino-bf16": Form(("openvino-bf16",), 0.9419, 8.9, 402, 45.2, reason="passed; slower"),
    "fewer-tokens": Form(("tokens",), 0.935, None, 0, 44.8, Status.REFUSED, "accuracy_score fell by 0.007"),
    "int4-weights": Form((), 0, None, 0, 0, Status.NOTHING_TO_DO, "no weight is large enough"),
}


def measured(name: str, value: float, spread: float) -> Measurement:
    return Measurement(name, value, value - spread, value + spread, n=1000)


def candidate(name: str, form: Form) -> Candidate:
    if not form.size:
        return Candidate(name, "weights in 4 bits", form.status, form.reason)
    values = [measured("accuracy_score", form.accuracy, 0.008)]
    if form.latency is not None:
        values += [measured("latency_p50_ms", form.latency, 0.04 * form.latency), measured("memory_mb", form.memory, 3)]
        values += [measured("energy_mj_per_request", form.latency * 2.1, form.latency * 0.2)]
    base = {m.metric: m for m in candidate(ORIGINAL, FORMS[ORIGINAL]).measurements} if name != ORIGINAL else {}
    tight = {"accuracy_score": 0.002, "latency_p50_ms": 0.1, "memory_mb": 2, "energy_mj_per_request": 0.5}
    change = [measured(m.metric, m.value - base[m.metric].value, tight[m.metric]) for m in values if base]
    values += [msgspec.structs.replace(m, versus=ORIGINAL) for m in change]
    recipe = tuple(PassRecord(each) for each in form.passes)
    size = int(form.size * 1e6)
    verdict = judge(GATE, values)
    return Candidate(name, f"as {name}", form.status, form.reason, "", "", size, recipe, tuple(values), verdict)


@pytest.fixture
def found() -> Findings:
    made = tuple(candidate(name, form) for name, form in FORMS.items())
    told: dict[str, Any] = {"objective": "latency_p50_ms", "quality": "accuracy_score", "rounds": 5, "rows": 2000}
    told |= {"calibration_rows": 256, "elapsed_s": 402.0, "time_budget_s": 600.0, "candidates": made}
    chosen = "fused-int8-smooth"
    return Findings(model="mood", source="sha256:0", chosen=chosen, reason=FORMS[chosen].reason, **told)


@pytest.fixture
def optimization(found: Findings, digits_bundle: Bundle) -> Optimization:
    return Optimization(digits_bundle, found)


# --- what each pass bought ----------------------------------------------------------------------------------------


def test_a_step_leads_from_the_measured_form_that_shares_the_most_passes(found: Findings) -> None:
    made = {step.after: (step.before, step.passes) for step in steps(found)}
    assert made == {
        "graph": (ORIGINAL, ("graph",)),
        "fused": (ORIGINAL, FUSED),
        "int8-dynamic": (ORIGINAL, ("int8-dynamic",)),
        "fused-int8-dynamic": ("fused", ("int8-dynamic",)),
        "fused-int8-smooth": ("fused", ("smooth", "int8-static")),
        "openvino-bf16": (ORIGINAL, ("openvino-bf16",)),
    }


def test_the_steps_to_the_chosen_add_up_to_its_whole_change(found: Findings) -> None:
    taken = way(steps(found), "fused-int8-smooth")
    assert [step.after for step in taken] == ["fused", "fused-int8-smooth"]
    chosen = next(c for c in found.candidates if c.name == "fused-int8-smooth")
    whole = chosen.measurement("latency_p50_ms", ORIGINAL)
    assert whole is not None
    assert sum(step.cost.value for step in taken if step.cost) == pytest.approx(whole.value)


def test_a_step_from_the_original_has_the_paired_interval(found: Findings) -> None:
    fused = next(step for step in steps(found) if step.after == "fused")
    assert fused.quality is not None
    assert fused.quality.high - fused.quality.low == pytest.approx(0.004)


def test_other_parameters_are_another_way(found: Findings) -> None:
    candidates = list(found.candidates)
    fused = candidates[2]
    other = (PassRecord("simplify", {"rounds": 2}), *fused.recipe[1:])
    candidates[2] = msgspec.structs.replace(fused, recipe=other)
    made = steps(msgspec.structs.replace(found, candidates=tuple(candidates)))
    assert next(step for step in made if step.after == "fused-int8-smooth").before == ORIGINAL


# --- Pareto plots -------------------------------------------------------------------------------------------------


def test_the_gates_limits_are_lines_and_bounds_on_change_count_from_the_original(found: Findings) -> None:
    assert limits(found, "accuracy_score") == [0.9, pytest.approx(0.937)]
    assert limits(found, "latency_p50_ms") == [20.0]
    assert limits(found, "size_mb") == []


def test_what_was_refused_before_it_was_measured_still_has_a_size(found: Findings) -> None:
    named = {cost: {point.candidate.name for point in points(found, cost)} for cost in ("latency_p50_ms", "size_mb")}
    assert named["size_mb"] - named["latency_p50_ms"] == {"int8-static", "fewer-tokens"}
    assert "int4-weights" not in named["size_mb"]


def test_a_plot_tells_its_numbers_to_those_who_cannot_see_it(found: Findings) -> None:
    svg = str(pareto_plot(found, "latency_p50_ms"))
    assert "fused-int8-smooth: 0.9398 at 4.7" in svg


def test_one_candidate_alone_is_no_plot(found: Findings) -> None:
    alone = msgspec.structs.replace(found, candidates=found.candidates[:1])
    assert pareto_plot(alone, "latency_p50_ms") is None


@given(
    st.lists(st.tuples(st.floats(20, 380), st.floats(20, 180)), min_size=1, max_size=12),
)
def test_labels_that_found_room_cover_nothing(marks: list[tuple[float, float]]) -> None:
    frame = Box(0, 0, 400, 200)
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in marks]
    for number, (x, y) in enumerate(marks):
        text, (dx, dy) = choose(x, y, (f"{number} some-candidate", str(number)), taken, frame)
        box = Box(x + dx, y + dy - 5.1, x + dx + 0.62 * 8.5 * len(text), y + dy + 5.1)
        if text != str(number):  # the short one is written even where there is no room
            assert box.within(frame)
            assert not any(box.meets(other) for other in taken)
        taken.append(box)


# --- the page -----------------------------------------------------------------------------------------------------


def test_the_page_says_what_was_chosen_bought_and_refused(optimization: Optimization) -> None:
    html = optimization.as_html()
    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", html)
    assert titles == [
        "fused-int8-smooth keeps the gate",
        "Quality and what it costs",
        "What each pass bought",
        "Candidates",
        "Chosen, and passed over",
        "Refused",
        "Not measured in rounds",
        "How it was found",
    ]
    drawn = re.findall(r"<title[^>]*>(accuracy_score by \w+|What each pass bought)</title>", html)
    by = ("latency_p50_ms", "memory_mb", "size_mb", "energy_mj_per_request")
    assert drawn == [*(f"accuracy_score by {cost}" for cost in by), "What each pass bought"]
    assert "accuracy_score fell by 0.021" in html
    assert "<script" not in html


def test_the_page_shows_what_the_search_promised_and_what_other_rows_say(
    found: Findings, digits_bundle: Bundle
) -> None:
    other = msgspec.structs.replace(measured("accuracy_score", -0.004, 0.003), versus=ORIGINAL)
    candidates = [
        msgspec.structs.replace(c, held_out=(other,), front=True) if c.status is Status.CHOSEN else c
        for c in found.candidates
    ]
    told = msgspec.structs.replace(found, candidates=tuple(candidates), held_out_rows=500, ended="time was up")
    html = Optimization(digits_bundle, told).as_html()
    section = html.partition('id="held-out"')[2].partition("</section>")[0]
    assert re.findall(r"<td class=\"num\">([^<]+)<", section) == ["-0.002", "-0.004"]
    assert html.count('<span class="badge">front</span>') == 1
    assert "time was up" in html


def test_the_text_says_what_each_pass_bought(optimization: Optimization) -> None:
    text = optimization.as_text()
    assert re.search(r"fused +smooth, int8-static +fused-int8-smooth +-58% \[-59, -57\]", text)


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_the_page_is_accessible_and_fits(optimization: Optimization, scheme: str, width: int, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    path = tmp_path / "page.html"
    path.write_text(optimization.as_html(), "utf-8")
    with open_page(path, scheme=scheme, width=width) as (page, problems):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found: Any = Axe().run(page)
    assert not found.response["violations"], found.generate_report()
    assert not problems
