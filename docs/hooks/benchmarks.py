"""MkDocs hook: figures of benchmarks come from what the benchmarks wrote, so that none is copied by hand.

A line ``<!-- benchmark: servers.tiny -->`` in a page gives way to the rows of one workload, ``targets`` to ratios and
targets, ``left_out`` to what could not be measured, ``machine`` to what it ran on, ``profile.rest`` to the parts of one
request's time, ``evaluation.predictions`` to figures of that part of evaluation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

MARKER = re.compile(r"^<!-- benchmark: (\w+)(?:\.([\w-]+))? -->$", re.MULTILINE)
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
WIRES = {"": "", "json": "JSON", "binary": "binary", "grpc": "gRPC", "arrays": "JSON of its own"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace markers by what they stand for."""
    return MARKER.sub(lambda found: made(found[1], found[2] or ""), markdown)


def made(what: str, argument: str = "") -> str:
    """The text for one marker."""
    makers: dict[str, Callable[..., str]] = {
        "servers": servers,
        "targets": targets,
        "left_out": left_out,
        "machine": machine,
        "profile": profile,
        "evaluation": evaluation,
        "optimization": optimization,
    }
    return makers[what](argument) if argument else makers[what]()


def servers(workload: str) -> str:
    """Every server's row for one workload."""
    rows = [row for row in _read("serving")["rows"] if row["workload"] == workload]
    if not rows:
        return "Not measured in this run."
    counts = sorted({int(count) for row in rows for count in row["per_s"]})
    few, most = str(counts[0]), str(counts[-1])
    head = ["server", "wire", *(f"{count}: requests/s" for count in counts)]
    head += [f"{few}: median, µs", f"{most}: p99, µs", "CPU, µs", "of Fairway's"]
    return _table(
        head,
        (
            (
                row["name"],
                WIRES[row["wire"]],
                *(_number(row["per_s"].get(str(count))) for count in counts),
                _number(row["p50_us"].get(few)),
                _number(row["p99_us"].get(most)),
                _number(row["cpu_us"]),
                "" if row["of_fairway"] is None else f"{row['of_fairway']:.2f}",
            )
            for row in rows
        ),
    )


def targets() -> str:
    """Ratios, each within the rounds of one heat, and whether targets hold."""
    return _figures("serving")


def optimization(part: str) -> str:
    """Figures of one part of the optimization benchmark, and where they were measured."""
    if not (RESULTS / f"optimization_{part}.json").is_file():
        return f"Not measured yet: `python -m benchmarks.optimization {part}`."
    document = _read(f"optimization_{part}")
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return f"{_figures(f'optimization_{part}')}\n\nOn {_said(document['machine'])}, with {versions}."


def _figures(file: str) -> str:
    said = {True: "yes", False: "**no**"}
    return _table(
        ("measured", "value", "± spread", "unit", "target", "holds"),
        (
            (
                f["name"],
                f"{f['value']:,g}",
                f"{f['spread']:,g}",
                f["unit"],
                f["target"],
                said.get(f["holds"], "cannot tell" if f["target"] else ""),
            )
            for f in _read(file)["figures"]
        ),
    )


def left_out() -> str:
    """What could not be measured, and why."""
    reasons = _read("serving")["left_out"]
    return "\n".join(f"- {' '.join(reason.split())}" for reason in reasons) or "Nothing was left out."


def machine() -> str:
    """One sentence: the machine and the versions."""
    document = _read("serving")
    on = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in {**document["versions"], **document["peers"]}.items())
    quick = " It was a quick run, with fewer and shorter rounds." if document["quick"] else ""
    kept = document.get("kept", [])
    then = document.get("kept_machine") or on
    earlier = (
        f"\n\nKept from an earlier run, of an earlier Fairway, on {_said(then)}: {'; '.join(kept)}." if kept else ""
    )
    return f"Measured on {_said(on)}, with {versions}.{quick}{earlier}"


def _said(machine: dict[str, Any]) -> str:
    return f"{machine['cores']} cores of {machine['cpu']} ({machine['system']})"


def profile(name: str) -> str:
    """The parts of one request's time."""
    return _table(
        ("part", "µs"),
        (
            (f"{'… of which ' if part['within'] else ''}{part['name']}", f"{part['us']:,.2f}")
            for part in _read("profile_serving")["profiles"][name]
        ),
    )


def evaluation(part: str) -> str:
    """Figures of one part of the evaluation benchmark."""
    if not (RESULTS / f"evaluation_{part}.json").is_file():
        return f"Not measured yet: `python -m benchmarks.evaluation {part}`."
    figures = _read(f"evaluation_{part}")["figures"]
    return _table(
        ("measured", "value", "unit", "target"),
        ((f["name"], f"{f['value']:,g}", f["unit"], f["target"]) for f in figures),
    )


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    aligned = ["---", *("---" if name in ("wire", "unit", "target", "holds") else "---:" for name in head[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, aligned, *rows))
