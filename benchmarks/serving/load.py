"""The load generators: wrk for HTTP/1.1, h2load for gRPC."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import msgspec

from benchmarks.serving.workloads import Body

GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
TIMEOUT_S = 30
_LUA = Path(__file__).with_name("load.lua")


class Load(msgspec.Struct, frozen=True):
    """What one run saw: times in seconds. ``cpu_us`` is the server's CPU time per request."""

    requests: int
    seconds: float
    errors: int
    p50: float
    p99: float
    cpu_us: float = 0.0

    @property
    def per_s(self) -> float:
        return self.requests / self.seconds


class LoadFailed(Exception):
    """A generator that did not run, or answers that are not right."""


def missing(*tools: str) -> str:
    """Which of the generators ``wrk`` and ``h2load`` is not here, in words; empty if none."""
    packages = {"wrk": "wrk", "h2load": "nghttp2-client"}
    return "; ".join(
        f"the load generator {tool} is not installed (Debian: {packages[tool]})"
        for tool in tools
        if not shutil.which(tool)
    )


def wrk(core: int, port: int, path: str, body: Body, connections: int, seconds: float) -> Load:
    """HTTP/1.1, each connection sends its next request when it has the answer to the last."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body.data)
        file.flush()
        fields = [part for field in body.headers.items() for part in field]
        done = _run(
            core,
            ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", f"--timeout={TIMEOUT_S}s", "-s", str(_LUA),
             f"http://127.0.0.1:{port}", "--", path, file.name, *fields],
            seconds,
        )  # fmt: skip
    load = msgspec.json.decode(done.splitlines()[-1], type=Load)
    if (
        load.requests == 0
    ):  # wrk counts none that is not answered within its time: there was at least one per connection
        raise LoadFailed(f"no request was answered within {seconds:g} s")
    return load


def h2load(
    core: int, port: int, path: str, body: Body, connections: int, *, seconds: float = 0, requests: int = 0
) -> tuple[Load, float]:
    """HTTP/2 for gRPC, one stream at a time on each connection, else HTTP/1.1; for a time, or until all are answered.

    Gives also the mean size of an answer's body: h2load knows nothing of ``grpc-status``, which an HTTP status of 200 may hide,
    but an error has no message.
    """
    fields = [f"--header={name}: {value}" for name, value in body.headers.items()]
    length = [f"-n{requests}"] if requests else [f"-D{max(1, round(seconds))}"]
    version = [] if "te" in body.headers else ["--h1"]
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder, "body"), Path(folder, "log")
        file.write_bytes(body.data)
        done = _run(
            core,
            ["h2load", "-t1", f"-c{connections}", "-m1", *length, *version, f"-d{file}", f"--log-file={log}", *fields,
             f"http://127.0.0.1:{port}{path}"],
            seconds,
        ).decode()  # fmt: skip
        lines = [line.split() for line in log.read_text().splitlines()]
    answered = _number(r"(\d+) done", done)
    good = _number(r"(\d+) 2xx", done)
    times = sorted(int(line[2]) / 1e6 for line in lines if line[1] == "200")
    if not good or not times:
        raise LoadFailed(f"of {answered} requests answered, none was with HTTP status 200")
    took = max(1, round(seconds)) if not requests else _duration(done)
    failed = _number(r"(\d+) failed", done) + max(0, requests - answered)
    p50, p99 = statistics.median(times), times[min(len(times) - 1, int(len(times) * 0.99))]
    return Load(good, took, failed, p50, p99), _number(r"\((\d+)\) data", done) / good


def _duration(text: str) -> float:
    found = re.search(r"finished in ([\d.]+)(us|ms|s|m)\b", text)
    if found is None:
        raise LoadFailed(f"h2load does not say how long it took: {text[-400:]}")
    return float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[found[2]]


def _run(core: int, command: list[str], seconds: float) -> bytes:
    try:
        done = subprocess.run(
            ["taskset", "-c", str(core), *command], check=False, capture_output=True, timeout=seconds + 2 * TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"{command[0]} did not end") from error
    if done.returncode:
        raise LoadFailed(f"{command[0]} failed: {(done.stderr or done.stdout).decode()[-300:]}")
    return done.stdout


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0
