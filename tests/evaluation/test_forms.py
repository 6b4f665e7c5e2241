"""The forms for machines and for reviewers: JUnit that CI's readers take, Markdown that fits a comment."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from junitparser import JUnitXml
from markdown_it import MarkdownIt

from fairway.core.gate import Finding, Limit, Outcome, Verdict, judge
from fairway.core.metrics import Measurement
from fairway.evaluation.report import Report
from fairway.evaluation.report_markdown import LIMIT, escaped, marker, render_markdown

GITHUB = MarkdownIt("gfm-like", {"linkify": False, "html": True})


def judged(report: Report, *outcomes: Outcome) -> Report:
    """The report with one finding of each outcome."""
    found = Measurement("accuracy_score", 0.9, 0.88, 0.92, n=900)
    findings = tuple(
        Finding("accuracy_score", "min", 0.95, outcome, f"it {outcome} & more", f"part {place}", found)
        for place, outcome in enumerate(outcomes)
    )
    return msgspec.structs.replace(report, verdict=Verdict(Outcome.FAILED, findings, 0.025, 0.1))


# JUnit


def test_every_finding_is_a_case_that_readers_of_junit_understand(report: Report) -> None:
    outcomes = (Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.NOT_APPLICABLE)
    suite: Any
    (suite,) = JUnitXml.fromstring(judged(report, *outcomes).as_junit().encode())
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (5, 1, 1, 2)
    said = [(case.result[0].type, case.result[0].message) if case.result else None for case in suite]
    assert said == [None, *((str(o), f"it {o} & more") for o in outcomes[1:])]
    assert {p.name: p.value for p in suite.properties()}["bundle"] == report.bundle
    assert len({case.name for case in suite}) == 5


def test_a_gate_without_limits_is_a_skipped_case_not_a_green_suite_of_none(report: Report) -> None:
    bare = msgspec.structs.replace(report, gate={}, verdict=judge({}, report.measurements))
    suite: Any
    (suite,) = JUnitXml.fromstring(bare.as_junit().encode())
    assert (suite.tests, suite.skipped) == (1, 1)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_no_name_breaks_the_xml(report: Report, name: str) -> None:
    finding = Finding("accuracy_score", "slice_min", 0.9, Outcome.FAILED, f"in {name}", name)
    odd = msgspec.structs.replace(report, verdict=Verdict(Outcome.FAILED, (finding,), 0.0, 0.0), origin=name)
    ElementTree.fromstring(odd.as_junit().encode())


# Markdown


def test_the_verdict_comes_first_and_every_metric_is_in_the_table(report: Report) -> None:
    text = report.as_markdown()
    first, second = text.splitlines()[:2]
    assert first == marker("digits") == "<!-- fairway-report: digits -->"
    assert second.startswith("### ")
    assert second.endswith(f"digits: {report.verdict.outcome}")
    table = text.partition("<details>")[0]
    for found in report.measurements:
        assert found.slice or escaped(found.metric) in table


def test_github_renders_its_tables_and_folds(report: Report) -> None:
    page = GITHUB.render(report.as_markdown())
    assert page.count("<table>") == page.count("<details>") + 1 >= 5
    assert page.count("<details>") == page.count("</details>")
    assert page.index("<h3>") < page.index("<table>")
    assert "| ---" not in page


@pytest.mark.parametrize(
    "name", ["a|b", "<img src=x>", "`", "**", "@everyone", "#12", "a\n\n# b", "</details>", "--> x"]
)
def test_no_name_adds_markup_or_mentions_anybody(report: Report, name: str) -> None:
    names = {"faint <ink>": name, "bold": f"{name} 2", "": ""}
    measured = tuple(msgspec.structs.replace(m, slice=names[m.slice]) for m in report.measurements)
    odd = msgspec.structs.replace(report, measurements=measured, origin=name, verdict=judge(report.gate, measured))
    text, plain = odd.as_markdown(), report.as_markdown()
    page = GITHUB.render(text)
    assert "<img" not in page
    assert not re.search(r"[@#]\w", re.sub(r"&#\w+;", "", text))
    for tag in ("<table>", "<details>", "</details>", "<h1>", "<h3>", "<tr>"):
        assert page.count(tag) == GITHUB.render(plain).count(tag), tag
    assert set(re.findall(r"^\|.*\|$", text, re.MULTILINE)) != set()


@pytest.mark.parametrize("slices", [10, 3_000])
def test_it_fits_a_comment_and_says_what_does_not(report: Report, slices: int) -> None:
    many = tuple(
        Measurement("accuracy_score", 0.9, 0.8, 0.95, n=90, slice=f"part {i} " + "ö" * 60) for i in range(slices)
    )
    gate = {"accuracy_score": Limit(slice_min=0.85)}
    whole = msgspec.structs.replace(report, measurements=(*report.measurements, *many), verdict=judge(gate, many))
    text = whole.as_markdown()
    assert len(text) < LIMIT
    assert ("more lines do not fit" in text) == (slices == 3_000)
    assert text.count("<details>") == text.count("</details>")
    assert len(render_markdown(whole, 10_000)) < 10_000
