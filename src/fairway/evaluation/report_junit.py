"""A report as JUnit XML: every finding of the gate is a test case, so that CI shows it as it shows tests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from fairway.core.gate import Finding, Outcome
from fairway.evaluation.words import bound, estimate, interval, sampling

if TYPE_CHECKING:
    from fairway.evaluation.report import Report

_TAGS = {
    Outcome.FAILED: "failure",
    Outcome.ERROR: "error",
    Outcome.INCONCLUSIVE: "skipped",
    Outcome.NOT_APPLICABLE: "skipped",
}
_ATTRIBUTES = {"failure": "failures", "error": "errors", "skipped": "skipped"}
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document may contain, not even escaped."""


def render_junit(report: Report) -> str:
    """One test suite of one case per finding: failed, error, or skipped with the reason; inconclusive is skipped.

    JUnit has no word for "cannot tell", so a suite without failures may still be inconclusive: the property ``verdict``
    and the exit code of ``fairway evaluate`` say so. A gate without limits is one skipped case.

    References
    ----------
    The elements and attributes are those that Jenkins, GitLab and GitHub's actions read; they are collected in
    https://github.com/testmoapp/junitxml.
    """
    findings = report.verdict.findings
    cases = [_case(report, finding) for finding in findings] or [_nothing(report)]
    count = {name: str(sum(case.find(tag) is not None for case in cases)) for tag, name in _ATTRIBUTES.items()}
    counts = {"tests": str(len(cases)), **count, "time": "0"}
    root = ElementTree.Element("testsuites", {"name": "fairway evaluate", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _plain(f"gate of {report.model}"), **counts})
    properties = ElementTree.SubElement(suite, "properties")
    facts = {
        "verdict": str(report.verdict.outcome),
        "model": report.model,
        "bundle": report.bundle,
        "data": report.data,
        "origin": report.origin,
        "rows": str(report.rows),
        "intervals": sampling(report),
        "champion": report.champion.name if report.champion else "",
    }
    for name, value in facts.items():
        if value:
            ElementTree.SubElement(properties, "property", {"name": name, "value": _plain(value)})
    suite.extend(cases)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(report: Report, finding: Finding) -> ElementTree.Element:
    where = f" in {finding.slice}" if finding.slice else ""
    case = ElementTree.Element(
        "testcase",
        {
            "classname": _plain(f"fairway.{report.model}.{finding.metric}"),
            "name": _plain(f"{finding.metric}{where}: {finding.bound} {bound(finding)}"),
            "time": "0",
        },
    )
    if tag := _TAGS.get(finding.outcome):
        why = ElementTree.SubElement(case, tag, {"message": _plain(finding.reason), "type": str(finding.outcome)})
        if tag == "skipped" or finding.measurement is None:
            return case
        found = finding.measurement
        why.text = _plain(f"{found.metric} {estimate(found)} {interval(found)}, n {found.n:,}; {found.method}")
    return case


def _nothing(report: Report) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", {"classname": _plain(f"fairway.{report.model}"), "name": "gate", "time": "0"}
    )
    ElementTree.SubElement(case, "skipped", {"message": report.verdict.reasons[0], "type": str(report.verdict.outcome)})
    return case


def _plain(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
