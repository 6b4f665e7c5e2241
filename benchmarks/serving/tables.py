"""The table on the terminal, and ``benchmarks/results/serving.json``, from which the documentation's is made."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS, Figure, machine
from benchmarks.serving.contestants import PEER_LIST
from benchmarks.serving.environments import pinned_version
from benchmarks.serving.figures import Row

_PACKAGES = ("fairway", "numpy", "onnxruntime", "uvicorn", "httptools", "uvloop", "orjson", "grpcio", "protobuf")
_COUNTS = (1, 16, 64)
_WIRES = {"": "", "json": "JSON", "binary": "binary", "grpc": "gRPC", "arrays": "own JSON"}


def show(rows: Sequence[Row], figures: Sequence[Figure], left_out: Sequence[str]) -> None:
    """Print everything."""
    console = Console(width=140)
    for workload in dict.fromkeys(row.workload for row in rows):
        console.print(_servers(workload, [row for row in rows if row.workload == workload]))
    if figures:
        console.print(_figures(figures))
    for reason in left_out:
        console.print(f"left out: {reason}", markup=False)


def save(
    rows: Sequence[Row], figures: Sequence[Figure], left_out: Sequence[str], *, quick: bool, merge: bool = False
) -> None:
    """Write the JSON; with ``merge``, into what is there: what was not measured now stays, and ``kept`` names it."""
    pinned = {peer.package: pinned_version(peer.file, peer.package) for peer in PEER_LIST}
    document = {
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}},
        "peers": pinned,
        "quick": quick,
        "rows": [msgspec.to_builtins(row, str_keys=True) for row in rows],
        "figures": [msgspec.to_builtins(f) for f in figures],
        "left_out": list(left_out),
        "kept": [],
        "kept_machine": None,
    }
    path = RESULTS / "serving.json"
    if merge and path.is_file():
        document = _merged(msgspec.json.decode(path.read_bytes()), document)
    RESULTS.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The new run's document, with what only the old one has."""

    def row(said: dict[str, Any]) -> str:
        return ", ".join(part for part in (said["workload"], said["name"], _WIRES[said["wire"]]) if part)

    def figure(said: dict[str, Any]) -> str:
        return str(said["name"])

    made = dict(new)
    kept: list[str] = []
    for key, name in (("rows", row), ("figures", figure)):
        now = {name(said): said for said in new[key]}
        before = [name(said) for said in old[key]]
        made[key] = [now.pop(name(said), said) for said in old[key]] + list(now.values())
        kept += [each for each in before if each not in {name(said) for said in new[key]}]
    left_out = [reason for reason in old["left_out"] if reason not in new["left_out"]]
    return {
        **made,
        "left_out": [*new["left_out"], *left_out],
        "kept": kept,
        "kept_machine": old["machine"] if kept else None,
        "quick": old["quick"] or new["quick"],
    }


def _servers(workload: str, rows: Sequence[Row]) -> Table:
    counts = [count for count in _COUNTS if any(count in row.per_s for row in rows)]
    table = Table(title=f"{workload}: requests/s on one core, by connections", title_justify="left")
    table.add_column("server")
    table.add_column("wire")
    for count in counts:
        table.add_column(f"{count}", justify="right")
    for name in (f"p50 at {counts[0]}, us", f"p99 at {counts[-1]}, us", "CPU, us/request", "of fairway"):
        table.add_column(name, justify="right")
    for row in rows:
        share = "" if row.of_fairway is None else f"{row.of_fairway:.2f}"
        table.add_row(
            row.name,
            _WIRES[row.wire],
            *(_number(row.per_s.get(count)) for count in counts),
            _number(row.p50_us.get(counts[0])),
            _number(row.p99_us.get(counts[-1])),
            _number(row.cpu_us),
            share,
        )
    return table


def _figures(figures: Sequence[Figure]) -> Table:
    table = Table(title="targets and ratios, each within the rounds of one heat", title_justify="left")
    for column in ("measured", "value", "± spread", "unit", "target", "holds"):
        table.add_column(column, justify="left" if column in ("measured", "unit") else "right")
    for f in figures:
        holds = ("cannot tell" if f.target else "") if f.holds is None else "yes" if f.holds else "NO"
        table.add_row(f.name, f"{f.value:g}", f"{f.spread:g}", f.unit, f.target, holds)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"
