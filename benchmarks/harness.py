"""What every benchmark shares: repeat, summarize, print a table, write ``benchmarks/results/NAME.json``."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


class Figure(msgspec.Struct, frozen=True):
    """One measured number. ``target`` is ``<= X`` or ``>= X``, or empty; ``holds`` is whether it was met."""

    name: str
    value: float
    unit: str
    spread: float
    target: str = ""
    holds: bool | None = None


def figure(name: str, values: Sequence[float], unit: str, target: str = "") -> Figure:
    """The median of repeated measurements, with half the range between their quartiles as the spread."""
    middle = statistics.median(values)
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (middle, middle, middle)
    holds = None
    if target:
        sign, _, bound = target.partition(" ")
        holds = middle <= float(bound) if sign == "<=" else middle >= float(bound)
    return Figure(name, round(middle, 3), unit, round((high - low) / 2, 3), target, holds)


def repeated(times: int, measure: Callable[[], float]) -> list[float]:
    """Measure ``times`` times, after one unmeasured run that warms the caches."""
    measure()
    return [measure() for _ in range(times)]


def report(name: str, figures: Sequence[Figure], packages: Sequence[str]) -> None:
    """Print the table, write the JSON, and exit 1 if a target does not hold."""
    table = Table(title=f"bench-{name}")
    for column in ("measured", "value", "± spread", "unit", "target", "holds"):
        table.add_column(column, justify="left" if column in ("measured", "unit") else "right")
    for f in figures:
        holds = "" if f.holds is None else "yes" if f.holds else "NO"
        table.add_row(f.name, f"{f.value:g}", f"{f.spread:g}", f.unit, f.target, holds)
    Console(width=110).print(table)
    document = {
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "figures": [msgspec.to_builtins(f) for f in figures],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    sys.exit(any(f.holds is False for f in figures))


def machine() -> dict[str, object]:
    """What the numbers were taken on."""
    cpu = "unknown"
    info = Path("/proc/cpuinfo")
    if info.is_file():
        cpu = next(
            (line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu
        )
    return {"cpu": cpu, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}
