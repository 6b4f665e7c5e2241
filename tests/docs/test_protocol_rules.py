"""Every rule of the page on protocol rules names tests that there are, one of them with a client from outside."""

from __future__ import annotations

import ast
import re

import pytest

from fairway.testing.conformance import cases
from tests.docs.test_docs import ROOT

PAGE = (ROOT / "docs" / "reference" / "protocol-rules.md").read_text("utf-8")
ROWS = {int(number): shown for number, shown in re.findall(r"^\| (\d+) \|.*\|(.*)\|$", PAGE, re.MULTILINE)}
CLIENT = re.compile(r"import (tritonclient|httpx)|importorskip\(\"tritonclient|\bhttp\.client\b|\bkserve\b")


def test_no_rule_is_missing() -> None:
    assert sorted(ROWS) == [*range(1, 17), *range(30, 35)]


@pytest.mark.parametrize("number", ROWS)
def test_a_rule_names_tests_that_there_are(number: int) -> None:
    named = re.findall(r"`([^`]+)`", ROWS[number])
    tests = [name.split("::") for name in named if "::" in name]
    clients = 0
    for path, function in tests:
        source = (ROOT / path).read_text("utf-8")
        found = {
            node.name
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert function in found, f"{path} has no {function}"
        clients += bool(CLIENT.search(source))
    assert clients, f"no test of rule {number} has a client from outside"
    known = {case.id for case in cases("robust")}
    assert {name for name in named if "::" not in name} <= known
