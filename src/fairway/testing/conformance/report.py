"""What a run found, for people, programs and CI."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias
from xml.etree import ElementTree as xml

Outcome: TypeAlias = Literal["passed", "failed", "not offered", "not run"]
SIGNS: dict[Outcome, str] = {"passed": "✓", "failed": "✗", "not offered": "–", "not run": "?"}


@dataclass(frozen=True)
class Result:
    """One case's outcome. ``why`` says what was wrong, or why it was not offered or not run."""

    id: str
    level: str
    outcome: Outcome
    rule: str
    why: str = ""
    sent: str = ""
    came: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """A run of the suite against one server.

    Attributes
    ----------
    url : str
    server, version : str
        As its metadata say; empty if they could not be read.
    results : tuple of Result
    """

    url: str
    server: str
    version: str
    results: tuple[Result, ...]

    def count(self, outcome: Outcome) -> int:
        """How many cases ended so."""
        return sum(result.outcome == outcome for result in self.results)

    @property
    def passed(self) -> bool:
        """Whether something was tested and nothing failed."""
        return self.count("passed") > 0 and not self.count("failed") and not self.count("not run")

    @property
    def exit_code(self) -> int:
        """0: passed; 1: failed; 2: nothing failed, but the server could not be tested to the end, or not at all."""
        if self.count("failed"):
            return 1
        return 0 if self.passed else 2

    def as_text(self, *, verbose: bool = False) -> str:
        """A table by level, then every failure; ``verbose``: every case."""
        lines = [f"{self.server or 'a server'} {self.version} at {self.url}", ""]
        lines += self._table()
        if verbose:
            lines += ["", *(f"{SIGNS[r.outcome]} {r.id}{f': {r.why}' if r.why else ''}" for r in self.results)]
        for result in self.results:
            if result.outcome == "failed":
                lines += ["", f"✗ {result.id} ({result.level}): {result.why}", f"    rule: {result.rule}"]
                lines += [f"    sent: {result.sent}", f"    came: {result.came}"]
        for outcome in ("not offered", "not run"):
            lines += self._reasons(outcome)
        return "\n".join(lines)

    def as_json(self) -> str:
        """Everything, as one JSON document."""
        head = {"url": self.url, "server": self.server, "version": self.version, "passed": self.passed}
        counts = {outcome: self.count(outcome) for outcome in SIGNS}
        return json.dumps(head | {"counts": counts, "results": [asdict(result) for result in self.results]}, indent=2)

    def as_junit(self) -> str:
        """The XML that CI systems read."""
        failed, skipped = self.count("failed"), self.count("not offered") + self.count("not run")
        suite = xml.Element(
            "testsuite",
            name=f"open-inference-protocol {self.server} {self.version}".strip(),
            tests=str(len(self.results)),
            failures=str(failed),
            skipped=str(skipped),
            errors="0",
        )
        for result in self.results:
            entry = xml.SubElement(
                suite, "testcase", classname=result.level, name=result.id, time=f"{result.seconds:.3f}"
            )
            if result.outcome == "failed":
                told = f"rule: {result.rule}\nsent: {result.sent}\ncame: {result.came}"
                xml.SubElement(entry, "failure", message=_printable(result.why)).text = _printable(told)
            elif result.outcome != "passed":
                xml.SubElement(entry, "skipped", message=_printable(f"{result.outcome}: {result.why}"))
        return xml.tostring(suite, encoding="unicode", xml_declaration=True)

    def _table(self) -> list[str]:
        rows = [("level", *SIGNS)]
        for level in dict.fromkeys(result.level for result in self.results):
            found = Counter(result.outcome for result in self.results if result.level == level)
            rows.append((level, *(str(found[outcome]) for outcome in SIGNS)))
        rows.append(("all", *(str(self.count(outcome)) for outcome in SIGNS)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return [
            "  ".join(_cell(text, width, i) for i, (text, width) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]

    def _reasons(self, outcome: Outcome) -> list[str]:
        found = Counter(result.why for result in self.results if result.outcome == outcome)
        return [*([""] if found else []), *(f"{outcome} ({count}): {why}" for why, count in found.items())]


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def _printable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if c in "\n\t" or ord(c) >= 32 else f"\\x{ord(c):02x}" for c in text)
