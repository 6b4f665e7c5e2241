"""p99 of tiny at a constant rate, alone and beside vision in the same process.

How much tiny takes at a constant rate is found with such rates: from the one that it reaches with 64 connections that wait for
their answers, down to the largest whose p99 stays within 10 ms. It is asked at 80% of that. Vision is asked at 80% of what tiny
then leaves of the core: 0.8 x 0.2 of the rate that vision reaches alone. Latencies count from the time that a request was
due (see ``pace.c``); both generators share the core that the server does not have.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.harness import Figure, figure
from benchmarks.serving.contestants import QUIET, of_fairway
from benchmarks.serving.heats import Cores, Effort
from benchmarks.serving.load import LoadFailed, h2load, missing, wrk
from benchmarks.serving.start import Running, started
from benchmarks.serving.workloads import Workload

_CONNECTIONS = 64
_SHARE = 0.8
_BOUND_S = 0.010
_HALVINGS = 6
_LATE_MS = 1.0
_PACE = Path(__file__).with_name("pace.c")


class Paced(msgspec.Struct, frozen=True):
    """What ``pace.c`` prints."""

    requests: int
    seconds: float
    errors: int
    p50: float
    p99: float
    late_p99: float
    busy: float


def tail_figures(tiny: Workload, vision: Workload, effort: Effort, cores: Cores, folder: Path) -> list[Figure]:
    """The figures. Raises :class:`NotStarted` or :class:`LoadFailed`."""
    if reason := missing("wrk", "h2load"):
        raise LoadFailed(reason)
    place = folder / "tail"
    place.mkdir()
    _compile(place)
    (place / "fairway.toml").write_text(QUIET)
    both = of_fairway("both", QUIET, ("json",), str(vision.bundle.path))
    with started(
        lambda ports: both.command(tiny, ports),
        place,
        cores.server,
        lambda ports: both.wrong(tiny, ports, "json") or both.wrong(vision, ports, "json"),
    ) as running:
        return _measured(running, tiny, vision, effort, cores, place)


def _measured(
    running: Running, tiny: Workload, vision: Workload, effort: Effort, cores: Cores, folder: Path
) -> list[Figure]:
    port, seconds = running.ports.port, 6 * effort.scale
    wrk(cores.client, port, tiny.path, tiny.bodies["json"], _CONNECTIONS, 1)
    closed = wrk(cores.client, port, tiny.path, tiny.bodies["json"], _CONNECTIONS, max(2, round(seconds / 2))).per_s
    few = h2load(cores.client, port, vision.path, vision.bodies["binary"], 4, requests=max(8, round(24 * effort.scale)))

    def paced(rate: float, seconds: float) -> Paced:
        return _wait(_pace(tiny, "json", port, rate, seconds, cores, folder))

    most = _most(lambda rate: paced(rate, max(1.0, seconds / 4)), closed)
    rate, slow_rate = _SHARE * most, _SHARE * (1 - _SHARE) * few[0].per_s
    alone: list[Paced] = []
    beside: list[Paced] = []
    images: list[Paced] = []
    for _ in range(effort.rounds):
        alone.append(paced(rate, seconds))
        other = _pace(vision, "binary", port, slow_rate, seconds + 1, cores, folder)
        beside.append(paced(rate, seconds))
        images.append(_wait(other))
    failed = sum(paced.errors for paced in (*alone, *beside, *images))
    if failed:
        raise LoadFailed(f"{failed} requests at a constant rate failed")
    late_ms = max(statistics.median(each.late_p99 * 1e3 for each in paced) for paced in (alone, beside))
    if late_ms > _LATE_MS:
        raise LoadFailed(f"the generator itself sent {late_ms:.1f} ms late (p99): this machine is too busy to tell")
    ratios = [b.p99 / a.p99 for a, b in zip(alone, beside, strict=True)]
    return [
        figure("tiny: rate with 64 connections that wait for their answers", [closed], "requests/s"),
        figure("tiny: largest constant rate with a p99 within 10 ms", [most], "requests/s"),
        figure("tiny: rate, 80% of that", [rate], "requests/s"),
        figure("vision beside it: rate, 80% of what is left", [slow_rate], "requests/s"),
        figure("tiny alone: p99", [each.p99 * 1e3 for each in alone], "ms"),
        figure("tiny beside vision: p99", [each.p99 * 1e3 for each in beside], "ms"),
        figure("vision beside tiny: p99", [each.p99 * 1e3 for each in images], "ms"),
        figure("generator: p99 of sending late, tiny alone", [each.late_p99 * 1e3 for each in alone], "ms"),
        figure("generator: p99 of sending late, beside vision", [each.late_p99 * 1e3 for each in beside], "ms"),
        figure("generator: share of its core, tiny alone", [each.busy for each in alone], "ratio"),
        figure("p99: tiny beside vision / alone", ratios, "ratio", "<= 3"),
    ]


def _most(measure: Callable[[float], Paced], closed: float) -> float:
    """The largest rate that is sustained, at most ``closed``, to a 64th of it."""
    low, high = 0.0, closed
    rate = closed
    for _ in range(_HALVINGS + 1):
        found = measure(rate)
        if not found.errors and found.p99 <= _BOUND_S:
            low = rate
        else:
            high = rate
        if low == closed:
            break
        rate = (low + high) / 2
    if not low:
        raise LoadFailed(f"at no constant rate above {high:.0f}/s was p99 within {_BOUND_S * 1e3:g} ms")
    return low


def _compile(folder: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise LoadFailed("a C compiler is needed for the generator of a constant rate (Debian: gcc)")
    done = subprocess.run(
        [compiler, "-O2", "-o", str(folder / "pace"), str(_PACE)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise LoadFailed(f"the generator of a constant rate does not compile: {done.stderr[-300:]}")


def _pace(
    workload: Workload, wire: str, port: int, rate: float, seconds: float, cores: Cores, folder: Path
) -> subprocess.Popen[bytes]:
    body = workload.bodies[wire]
    fields = {"host": f"127.0.0.1:{port}", **body.headers, "content-length": str(len(body.data))}
    head = f"POST {workload.path} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields.items()) + "\r\n"
    request = folder / f"{workload.name}.request"
    request.write_bytes(head.encode() + body.data)
    command = [str(folder / "pace"), str(port), str(request), str(_CONNECTIONS), str(rate), str(seconds)]
    return subprocess.Popen(["taskset", "-c", str(cores.client), *command], stdout=subprocess.PIPE)


def _wait(child: subprocess.Popen[bytes]) -> Paced:
    try:
        said, _ = child.communicate(timeout=120)
    except subprocess.TimeoutExpired as error:
        child.kill()
        raise LoadFailed("the generator of a constant rate did not end") from error
    if child.returncode:
        raise LoadFailed("the generator of a constant rate failed")
    return msgspec.json.decode(said, type=Paced)
