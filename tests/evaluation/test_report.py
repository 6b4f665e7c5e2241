"""A report reads the same from JSON, fits a terminal, and is a page that anybody can read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairway.core.errors import InvalidData, NewerFormat
from fairway.core.gate import Limit, Outcome, judge
from fairway.core.metrics import Measurement
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.report import FORMAT, Report
from fairway.evaluation.settings import SliceSettings
from fairway.model import Model
from fairway.sources.tables import Table

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def test_json_gives_the_report_back(report: Report) -> None:
    assert Report.from_json(report.as_json()) == report


def test_json_keeps_what_is_unknown_unbounded_or_broken(report: Report) -> None:
    odd = (
        Measurement.failed("load_ms", "the process died"),
        Measurement.unknown("f1_score", "no rows", slice="none"),
        Measurement("log_loss", 0.1, 0.0, float("inf"), n=3),
    )
    changed = msgspec.structs.replace(report, measurements=odd, verdict=judge(report.gate, odd))
    again = Report.from_json(changed.as_json())
    assert again == changed
    for text in (again.as_text(), again.as_html()):
        assert "nan" not in re.split(r"\W+", text.lower())


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xff", b'{"format": "x"}', b"null"])
def test_what_is_no_report_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidData, match="no evaluation report"):
        Report.from_json(raw)


def test_a_newer_report_is_named_as_such(report: Report) -> None:
    newer = msgspec.structs.replace(report, format=FORMAT + 1)
    with pytest.raises(NewerFormat, match="upgrade"):
        Report.from_json(newer.as_json())


def test_the_text_begins_with_the_verdict_and_its_error_rates(report: Report) -> None:
    first, second = report.as_text().splitlines()[:2]
    assert first == f"{report.verdict.outcome.upper()}: digits on 450 rows"
    assert "a wrong pass happens in at most about 2.5 %" in second


def test_the_text_fits_a_terminal_whatever_the_names(report: Report) -> None:
    long = "a slice with a very long name " * 5
    slices = tuple(msgspec.structs.replace(each, name=long + each.name) for each in report.slices)
    measured = tuple(msgspec.structs.replace(m, slice=long + m.slice) if m.slice else m for m in report.measurements)
    for each in (report, msgspec.structs.replace(report, slices=slices, measurements=measured)):
        assert max(map(len, each.as_text().splitlines())) <= 100


def test_the_text_shows_every_metric_slice_and_finding(report: Report) -> None:
    text = " ".join(report.as_text().split())
    for found in report.measurements:
        assert found.metric in text
    for each in report.slices:
        assert f"{each.name}: {each.rows} rows where {each.where}" in text
    for finding in report.verdict.findings:
        assert finding.reason in text


def test_the_page_escapes_what_users_name(report: Report) -> None:
    page = report.as_html()
    assert "faint &lt;ink&gt;" in page
    assert "<ink>" not in page


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.NOT_APPLICABLE])
def test_every_verdict_has_its_headline(report: Report, outcome: Outcome) -> None:
    page = msgspec.structs.replace(report, verdict=msgspec.structs.replace(report.verdict, outcome=outcome)).as_html()
    assert f'<h2 id="verdict">{str(outcome).capitalize()}' in page


def test_a_report_of_hundreds_of_classes_stays_small() -> None:
    from fairway.evaluation.diagnostics import confusion
    from fairway.evaluation.predictions import Classified

    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 500, (2, 5000))
    found = confusion(Classified(truth, predicted, None, tuple(map(str, range(500)))))
    assert found.matrix == ()
    assert len(found.pairs) == 20


# in a real browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not CHROMIUM.exists():
        reason = f"{CHROMIUM} is missing; install the package chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable_in_light_and_dark(chromium: Any, report: Report, tmp_path: Path, scheme: str) -> None:
    """Nothing is fetched, nothing is complained about, and text stands out from its background (WCAG AA: 4.5 to 1)."""
    file = tmp_path / "report.html"
    file.write_text(report.as_html(), "utf-8")
    page = chromium.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 800})
    said: list[str] = []
    fetched: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(file.as_uri())
    contrast = page.evaluate(_CONTRAST)
    page.close()
    assert said == []
    assert fetched == [file.as_uri()]
    assert len(contrast) > 50
    weakest = min(contrast, key=lambda found: found[0])
    assert weakest[0] >= 4.5, weakest


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_no_serious_fault(chromium: Any, report: Report, tmp_path: Path, scheme: str, width: int) -> None:
    """WCAG 2.2 A and AA, by axe-core; with every fold open."""
    from axe_playwright_python.sync_playwright import Axe

    file = tmp_path / "report.html"
    file.write_text(report.as_html().replace("<details>", "<details open>"), "utf-8")
    context = chromium.new_context(bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(file.as_uri())
    found = Axe().run(page).response
    context.close()
    assert len(found["passes"]) > 20
    serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in serious] == []


@pytest.mark.browser
def test_the_contents_lead_to_every_section(chromium: Any, report: Report, tmp_path: Path) -> None:
    from playwright import sync_api

    file = tmp_path / "report.html"
    file.write_text(report.as_html(), "utf-8")
    page = chromium.new_page(viewport={"width": 1280, "height": 700})
    page.goto(file.as_uri())
    links = page.locator("nav.contents a")
    assert links.count() == page.locator("main h2").count() >= 8
    links.filter(has_text="Where this comes from").click()
    sync_api.expect(page.locator("#provenance")).to_be_in_viewport()
    sync_api.expect(page.locator("nav.contents")).to_be_in_viewport()  # it stays in sight
    page.close()


@pytest.mark.browser
def test_it_prints_whole_on_paper(chromium: Any, report: Report, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(report.as_html(), "utf-8")
    page = chromium.new_page(viewport={"width": 794, "height": 1123})
    page.goto(file.as_uri())
    page.emulate_media(media="print")
    width = page.evaluate("document.documentElement.scrollWidth")
    shown = page.locator("nav.contents").is_visible()
    pdf = page.pdf(format="A4")
    page.close()
    assert (width, shown) == (794, False)
    assert pdf.startswith(b"%PDF")


@pytest.mark.browser
def test_the_page_fits_a_phone(chromium: Any, report: Report, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(report.as_html(), "utf-8")
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    page.goto(file.as_uri())
    width = page.evaluate("document.documentElement.scrollWidth")
    page.close()
    assert width == 390


@pytest.mark.browser
def test_a_screen_reader_finds_titles_headings_and_figures(chromium: Any, report: Report, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(report.as_html(), "utf-8")
    page = chromium.new_page()
    page.goto(file.as_uri())
    figures, described = page.get_by_role("img").count(), page.locator("svg > title").count()
    headings, tables = page.get_by_role("heading", level=1).count(), page.locator("table").count()
    captions, language = page.locator("table > caption").count(), page.locator("html").get_attribute("lang")
    page.close()
    assert (headings, language) == (1, "en")
    assert figures == described >= 4
    assert captions == tables >= 4


_CONTRAST = """() => {
  const channel = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 };
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll('h1, h2, h3, p, li, th, td, caption, figcaption, dt, dd, .badge')) {
    if (!element.textContent.trim()) continue;
    const [a, b] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.tagName + ': ' + element.textContent.slice(0, 40)]);
  }
  return found;
}"""


def test_names_of_data_neither_command_a_terminal_nor_break_a_table(model: Model, table: Table) -> None:
    slices = (SliceSettings("\x1b[2Jtwo\nlines | <b>\u202e", "ink > 0.3"),)
    report = evaluate(model, table, label="digit", slices=slices, gate={"accuracy_score": Limit(slice_min=0.5)})
    text = report.as_text()
    assert not set(text) & {"\x1b", "\u202e"}
    assert "[2Jtwo lines | <b>" in next(
        line for line in text.splitlines() if "accuracy_score" in line and "two" in line
    )
    rows = [line for line in report.as_markdown().splitlines() if "two" in line and line.startswith("|")]
    assert rows
    assert all("<b>" not in row and r"\|" in row for row in rows)
