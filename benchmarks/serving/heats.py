"""Heats: who is measured together, in turns."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.serving.answers import check_grpc
from benchmarks.serving.contestants import Contestant
from benchmarks.serving.load import GRPC_PATH, Load, LoadFailed, h2load, missing, wrk
from benchmarks.serving.start import NotStarted, Ports, Running, started
from benchmarks.serving.workloads import Workload

BATCHED = "ONNX Runtime in-process, in batches"
IN_PROCESS = "ONNX Runtime in-process"


class Cores(msgspec.Struct, frozen=True):
    """One for the server, one for whoever asks."""

    server: int
    client: int


class Effort(msgspec.Struct, frozen=True):
    """How much is measured: ``scale`` is a factor on the time of each measurement."""

    rounds: int
    scale: float


class Lane(msgspec.Struct, frozen=True):
    """What is measured: one server over one wire, or none."""

    name: str
    wire: str
    connections: tuple[int, ...]
    measure: Callable[[int, float], Load]


class Measured(msgspec.Struct, frozen=True):
    """What came out for a lane: by connections, a load for each round."""

    workload: str
    heat: str
    name: str
    wire: str
    loads: dict[int, list[Load]]


class Heat(msgspec.Struct, frozen=True):
    """Who runs together. ``connections``: of these only, where a workload has more.

    ``starts``: how often the servers are started anew, each time in another order. One and the same server is up to two
    percent faster or slower from start to start, by where its memory lies.
    """

    name: str
    contestants: Sequence[Contestant]
    in_process: bool = False
    connections: tuple[int, ...] | None = None
    starts: int = 1


def run_heat(
    heat: Heat, workload: Workload, effort: Effort, cores: Cores, folder: Path
) -> tuple[list[Measured], list[str]]:
    """What was measured, each the same number of times, and what was left out and why."""
    measured: dict[tuple[str, str], Measured] = {}
    left_out: list[str] = []
    for start in range(heat.starts):
        shift = start % max(1, len(heat.contestants))
        turned = msgspec.structs.replace(heat, contestants=[*heat.contestants[shift:], *heat.contestants[:shift]])
        place = folder / f"start-{start}"
        place.mkdir(exist_ok=True)
        got, missed = _started(turned, workload, effort, cores, place)
        left_out += missed
        for each in got:
            whole = measured.setdefault((each.name, each.wire), msgspec.structs.replace(each, loads={}))
            for connections, loads in each.loads.items():
                whole.loads.setdefault(connections, []).extend(loads)
    rounds = heat.starts * effort.rounds
    return [m for m in measured.values() if all(len(loads) == rounds for loads in m.loads.values())], left_out


def _started(
    heat: Heat, workload: Workload, effort: Effort, cores: Cores, folder: Path
) -> tuple[list[Measured], list[str]]:
    left_out: list[str] = []
    with contextlib.ExitStack() as stack:
        lanes: list[Lane] = []
        if heat.in_process:
            lanes += stack.enter_context(_in_process(workload, cores.server, folder))
        for number, contestant in enumerate(heat.contestants):
            wires, reasons = _usable(contestant, workload)
            left_out += [f"{contestant.name}, {workload.name}, {wire}: {why}" for wire, why in reasons.items()]
            if not wires:
                continue
            try:
                place = folder / f"{heat.name}-{number}".replace(" ", "-").replace(",", "")
                running, problems = stack.enter_context(_running(contestant, wires, workload, cores.server, place))
            except NotStarted as error:
                left_out.append(f"{contestant.name}, {workload.name}: could not be started: {error}")
                continue
            left_out += [f"{contestant.name}, {workload.name}, {wire}: {why}" for wire, why in problems.items()]
            lanes += [
                _lane(contestant, running, wire, workload, cores, heat.connections)
                for wire in wires
                if wire not in problems
            ]
        return _rounds(lanes, heat, workload, effort, left_out), left_out


def _usable(contestant: Contestant, workload: Workload) -> tuple[list[str], dict[str, str]]:
    """The wires that load can be made for here, and why not for the others."""
    tools = {wire: "h2load" if wire == "grpc" or workload.requests else "wrk" for wire in contestant.wires}
    reasons = {wire: why for wire, tool in tools.items() if (why := missing(tool))}
    return [wire for wire in contestant.wires if wire not in reasons], reasons


def _rounds(lanes: list[Lane], heat: Heat, workload: Workload, effort: Effort, left_out: list[str]) -> list[Measured]:
    measured = {(lane.name, lane.wire): Measured(workload.name, heat.name, lane.name, lane.wire, {}) for lane in lanes}
    counts = sorted({c for lane in lanes for c in lane.connections})
    for number in range(effort.rounds + 1):  # the first warms up, at the most connections alone
        for connections in counts if number else counts[-1:]:
            for lane in [lane for lane in lanes if connections in lane.connections]:
                try:
                    load = lane.measure(connections, effort.scale if number else effort.scale / 2)
                    if load.errors:
                        raise LoadFailed(f"{load.errors} of {load.requests} requests failed")
                except LoadFailed as error:
                    left_out.append(f"{lane.name}, {workload.name}, {lane.wire}, {connections} connections: {error}")
                    lanes.remove(lane)
                    del measured[lane.name, lane.wire]
                    continue
                if number:
                    measured[lane.name, lane.wire].loads.setdefault(connections, []).append(load)
        print(f"  {workload.name}, {heat.name}: round {number} of {effort.rounds}", file=sys.stderr, flush=True)
    return [each for each in measured.values() if each.loads]


@contextlib.contextmanager
def _running(
    contestant: Contestant, wires: list[str], workload: Workload, core: int, folder: Path
) -> Iterator[tuple[Running, dict[str, str]]]:
    """It, ready over its first wire; and what is wrong over its others."""
    folder.mkdir(parents=True)

    def command(ports: Ports) -> list[str]:
        for name, content in contestant.files(workload, ports).items():
            (folder / name).write_text(content)
        return contestant.command(workload, ports)

    with started(command, folder, core, lambda ports: contestant.wrong(workload, ports, wires[0])) as running:
        problems = {wire: contestant.wrong(workload, running.ports, wire) for wire in wires[1:]}
        yield running, {wire: problem for wire, problem in problems.items() if problem}


def _lane(
    contestant: Contestant,
    running: Running,
    wire: str,
    workload: Workload,
    cores: Cores,
    only: tuple[int, ...] | None,
) -> Lane:
    body = workload.bodies[wire]
    ports = running.ports
    whole = check_grpc(workload, ports.grpc_port)[1] if wire == "grpc" else 0

    def measure(connections: int, scale: float) -> Load:
        before = running.cpu_s()
        load = _load(connections, scale)
        return msgspec.structs.replace(load, cpu_us=(running.cpu_s() - before) / load.requests * 1e6)

    def _load(connections: int, scale: float) -> Load:
        requests = round(workload.requests * scale)
        if wire != "grpc":
            path = contestant.rest_path(workload)
            if not requests:
                return wrk(cores.client, ports.port, path, body, connections, workload.seconds * scale)
            requests = max(requests, connections)
            return h2load(cores.client, ports.port, path, body, connections, requests=requests)[0]
        load, size = h2load(
            cores.client, ports.grpc_port, GRPC_PATH, body, connections,
            seconds=0 if requests else workload.seconds * scale, requests=max(requests, connections) if requests else 0,
        )  # fmt: skip
        if abs(size / whole - 1) > 0.02:
            raise LoadFailed(f"answers have {size:.0f} bytes where a right one has {whole}")
        return load

    return Lane(contestant.name, wire, tuple(c for c in workload.connections if only is None or c in only), measure)


@contextlib.contextmanager
def _in_process(workload: Workload, core: int, folder: Path) -> Iterator[list[Lane]]:
    row = folder / "row.npy"
    np.save(row, workload.row)
    program = Path(__file__).with_name("inprocess.py")
    command = ["taskset", "-c", str(core), sys.executable, str(program), str(workload.model), str(row)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        wire_in, wire_out = child.stdin, child.stdout

        def called(rows: int, scale: float) -> Load:
            calls = -(-round(workload.requests * scale) // rows)
            wire_in.write(f"{rows} {workload.seconds * scale} {calls}\n")
            wire_in.flush()
            return msgspec.json.decode(wire_out.readline(), type=Load)

        if not workload.requests:  # as many rows a call as a server can join in one turn of its loop
            yield [Lane(IN_PROCESS, "", workload.connections, called)]
        else:
            rows = min(workload.connections[-1], workload.max_batch)
            yield [
                Lane(IN_PROCESS, "", workload.connections, lambda _, scale: called(1, scale)),
                Lane(BATCHED, "", workload.connections[-1:], lambda _, scale: called(rows, scale)),
            ]
        wire_in.close()
