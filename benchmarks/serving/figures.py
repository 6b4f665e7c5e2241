"""What is said of the measurements: a row for each server and wire, and ratios with the targets that they are held to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from benchmarks.harness import Figure, figure
from benchmarks.serving.heats import IN_PROCESS, Measured
from benchmarks.serving.load import Load

LIMITS = "limits"
FAIRWAY = "fairway"


class Row(msgspec.Struct, frozen=True):
    """One server over one wire: medians over the rounds, by number of connections.

    ``of_fairway``: requests/s at the most connections as a share of Fairway's in the same rounds, over the same wire, or JSON.
    """

    workload: str
    name: str
    wire: str
    per_s: dict[int, float]
    p50_us: dict[int, float]
    p99_us: dict[int, float]
    cpu_us: float
    of_fairway: float | None


def rows(measured: Sequence[Measured]) -> list[Row]:
    """Fairway once for each workload and wire: from the first heat that has it."""
    said: dict[tuple[str, str, str], Row] = {}
    for each in measured:
        said.setdefault((each.workload, each.name, each.wire), _row(each, measured))
    wires = {"": 0, "json": 1, "arrays": 1, "binary": 2, "grpc": 3}
    return sorted(said.values(), key=lambda row: wires[row.wire])


def _row(each: Measured, measured: Sequence[Measured]) -> Row:
    def middle(value: Callable[[Load], float]) -> dict[int, float]:
        return {c: round(statistics.median(map(value, loads)), 1) for c, loads in each.loads.items()}

    most = max(each.loads)
    share = None
    own = [m for m in measured if (m.heat, m.workload, m.name) == (each.heat, each.workload, FAIRWAY)]
    own = [m for m in own if m.wire == each.wire] or [m for m in own if m.wire == "json"] or own
    if own and own[0] is not each and most in own[0].loads:
        pairs = zip(each.loads[most], own[0].loads[most], strict=True)
        share = round(statistics.median(a.per_s / b.per_s for a, b in pairs), 3)
    cpu = statistics.median(load.cpu_us for load in each.loads[most])
    return Row(
        each.workload,
        each.name,
        each.wire,
        middle(lambda x: x.per_s),
        middle(lambda x: x.p50 * 1e6),
        middle(lambda x: x.p99 * 1e6),
        round(cpu, 1),
        share,
    )


class _Ratio(NamedTuple):
    """One server's value as a share of another's, in the same rounds."""

    workload: str
    connections: int
    one: tuple[str, str]
    other: tuple[str, str]
    target: str = ""
    what: str = "requests/s"


_OWN = {wire: (FAIRWAY, wire) for wire in ("json", "binary", "grpc")}
_PROBE = ("bare httptools probe", "json")
_ENGINE = (IN_PROCESS, "")
_RATIOS = (
    _Ratio("tiny", 64, _OWN["json"], _PROBE, ">= 0.7"),
    _Ratio("tiny", 1, _OWN["json"], _PROBE, "<= 1.1", "median latency"),
    _Ratio("tiny", 64, _OWN["json"], ("FastAPI by hand", "json"), ">= 10"),
    _Ratio("tiny", 64, _OWN["json"], ("nginx answering a constant", "json")),
    _Ratio("tiny", 64, _OWN["json"], ("Triton, Python backend", "json")),
    _Ratio("tiny", 64, _OWN["json"], ("mosec", "json")),
    _Ratio("tiny", 64, _OWN["binary"], _OWN["json"]),
    _Ratio("tiny", 64, ("fairway, access log", "json"), _OWN["json"], ">= 0.95"),
    _Ratio("tiny", 64, ("fairway, traced", "json"), _OWN["json"], ">= 0.95"),
    _Ratio("tiny", 64, ("fairway, watched for drift", "json"), _OWN["json"], ">= 0.95"),
    _Ratio("tiny", 64, ("fairway, all of these", "json"), _OWN["json"]),
    _Ratio("tiny", 64, _OWN["grpc"], ("grpc.aio bare", "grpc"), ">= 4"),
    _Ratio("tiny", 64, _OWN["grpc"], ("grpc.aio answering a constant", "grpc")),
    _Ratio("tiny", 64, _OWN["grpc"], ("Triton, Python backend", "grpc")),
    *(
        _Ratio(workload, connections, _OWN[wire], _ENGINE, target)
        for workload, wire, target in (
            ("text", "json", ">= 0.95"),
            ("text", "binary", ">= 0.95"),
            ("text", "grpc", ">= 0.95"),
            ("vision", "json", ">= 0.9"),
            ("vision", "binary", ">= 0.95"),
            ("vision", "grpc", ">= 0.95"),
        )
        for connections in (1, 16)
    ),
    # CPU time is less disturbed by whatever else runs on the machine. What should cost less stands first, so 1 is the most.
    _Ratio("tiny", 64, _PROBE, _OWN["json"], what="CPU"),
    _Ratio("tiny", 64, _OWN["json"], ("fairway, access log", "json"), what="CPU"),
    _Ratio("tiny", 64, _OWN["json"], ("fairway, traced", "json"), what="CPU"),
    _Ratio("tiny", 64, _OWN["json"], ("fairway, watched for drift", "json"), what="CPU"),
    _Ratio("tiny", 64, ("grpc.aio bare", "grpc"), _OWN["grpc"], what="CPU"),
    *(_Ratio(workload, 16, _ENGINE, own, what="CPU") for workload in ("text", "vision") for own in _OWN.values()),
)

_MANY = 12
_OUTSIDE = 0.05
_WIRES = {"json": "JSON", "binary": "binary", "grpc": "gRPC"}
_VALUES: dict[str, Callable[[Load], float]] = {
    "requests/s": lambda load: load.per_s,
    "median latency": lambda load: load.p50,
    "CPU": lambda load: load.cpu_us,
}


def ratios(measured: Sequence[Measured]) -> list[Figure]:
    """Those of which both sides were measured in one heat."""
    return [said for ratio in _RATIOS for said in _ratio(ratio, measured)]


def _ratio(ratio: _Ratio, measured: Sequence[Measured]) -> list[Figure]:
    def found(who: tuple[str, str]) -> dict[str, list[Load]]:
        of = [m for m in measured if m.workload == ratio.workload and (m.name, m.wire) == who]
        return {m.heat: m.loads[ratio.connections] for m in of if ratio.connections in m.loads}

    one, other = found(ratio.one), found(ratio.other)
    heats = [heat for heat in one if heat in other]
    if not heats:
        return []
    pairs = zip(one[heats[0]], other[heats[0]], strict=True)
    value = _VALUES[ratio.what]
    values = [value(a) / value(b) for a, b in pairs]
    plain = ("", "json") if ratio.workload == "tiny" else ("",)
    sides = " / ".join(name if wire in plain else f"{name} {_WIRES[wire]}" for name, wire in (ratio.one, ratio.other))
    name = f"{ratio.workload}, {ratio.connections}: {ratio.what}, {sides}"
    said, ends = figure(name, values, "ratio", ratio.target), _ends(name, values)
    if ends and ratio.target:  # where the interval holds the bound, the rounds do not tell
        holds = {figure("", [end.value], "", ratio.target).holds for end in ends}
        said = msgspec.structs.replace(said, holds=holds.pop() if len(holds) == 1 else None)
    return [said, *ends]


def _ends(name: str, values: Sequence[float]) -> list[Figure]:
    """The ends of a 95% interval of the median, where there are rounds enough for a narrow one: from order statistics."""
    rounds = len(values)
    if rounds < _MANY:
        return []
    outside, place = 0.0, 0
    while (outside := outside + 2 * math.comb(rounds, place) / 2**rounds) <= _OUTSIDE:
        place += 1
    ordered = sorted(values)
    return [
        figure(f"{name}: {end} of the median's 95% interval", [value], "ratio")
        for end, value in (("lower end", ordered[place - 1]), ("upper end", ordered[-place]))
    ]
