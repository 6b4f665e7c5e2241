"""``make bench-serving``: requests per second and CPU time per request, beside a bare probe and a hand-written server.

Every server runs on one core and the load generator on another, all in one run: each round measures every server in turn,
and ratios are made within a round, so that what slows the machine for a while slows both sides.

Workload tiny: logistic regression on the 64 pixels of scikit-learn's digits, one row per request, V2 JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.harness import Figure, figure, report
from benchmarks.peers.start import PATH, Contestant, Running, environment, of, started

CONNECTIONS = (1, 16, 64)
QUIET = "[serve]\naccess_log = false\n"
_LUA = Path(__file__).with_name("load.lua")


class Load(msgspec.Struct, frozen=True):
    """What one run of the load generator saw; ``cpu_us`` is the server's CPU time per request."""

    requests: int
    seconds: float
    errors: int
    p50: float
    p99: float
    cpu_us: float = 0.0

    @property
    def per_s(self) -> float:
        return self.requests / self.seconds


Loads = dict[tuple[str, int], list[Load]]


def main() -> None:
    options = _options()
    wrk = shutil.which("wrk")
    if wrk is None or shutil.which("taskset") is None:
        sys.exit("this needs Linux with the load generator wrk and taskset: apt-get install wrk util-linux")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two cores are needed: one for the server, one for the load generator")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        body = folder / "body.json"
        body.write_bytes(_request())
        contestants, missing = _contestants(_project(folder / "project"))
        with contextlib.ExitStack() as stack:
            running = [
                stack.enter_context(started(c, folder / f"{i}", body.read_bytes(), cores[0]))
                for i, c in enumerate(contestants)
                if not options.only or c.name in options.only
            ]
            loads = _rounds(running, options, [wrk, str(body)], cores[1])
    for reason in missing:
        print(f"left out: {reason}")
    report("serving", _figures(loads), ["fairway", "numpy", "onnxruntime", "uvicorn", "httptools", "uvloop", "orjson"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="per server, number of connections and round")
    parser.add_argument("--only", nargs="*", help="names of servers")
    return parser.parse_args()


def _rounds(running: list[Running], options: argparse.Namespace, command: list[str], core: int) -> Loads:
    loads: Loads = defaultdict(list)
    for number in range(options.rounds + 1):
        for connections in CONNECTIONS:
            for server in running:
                load = _load(server, connections, options.seconds if number else 0.5, command, core)
                if load.errors:
                    sys.exit(f"{server.name}: {load.errors} of {load.requests} requests failed")
                if number:  # the first round warms up
                    loads[server.name, connections].append(load)
    return loads


def _load(server: Running, connections: int, seconds: float, command: list[str], core: int) -> Load:
    wrk, body = command
    before = server.cpu_s()
    done = subprocess.run(
        ["taskset", "-c", str(core), wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(_LUA),
         server.url, "--", PATH, body],
        check=True, capture_output=True,
    )  # fmt: skip
    load = msgspec.json.decode(done.stdout.splitlines()[-1], type=Load)
    return msgspec.structs.replace(load, cpu_us=(server.cpu_s() - before) / load.requests * 1e6)


# -- what is measured


def _contestants(project: Path) -> tuple[list[Contestant], list[str]]:
    """The servers, and why any is left out. Every Fairway server is the command line's, with its defaults."""
    bundle = project / "digits.fairway"
    fairway = (sys.executable, "-m", "fairway", "serve", "--port", "{port}")
    watched = f'{QUIET}[registry]\nurl = "sqlite:///{project}/registry.db"\nblobs = "{project}/blobs"\n'
    contestants = [
        Contestant("probe", of((sys.executable, "probe.py"), model=bundle / "model.onnx")),
        Contestant("fairway", (*fairway, str(bundle)), QUIET),
        Contestant("fairway, access log", (*fairway, str(bundle))),
        Contestant("fairway, watched for drift", fairway, watched),
        Contestant("fairway, Starlette only", (*fairway, str(bundle)), QUIET + "fast_lane = false\n"),
    ]
    python, reason = environment("fastapi")
    if python is None:
        return contestants, [f"FastAPI by hand ({reason})"]
    by_hand = Contestant("FastAPI by hand", of((python, "fastapi_app.py"), model=bundle / "model.onnx"))
    return [*contestants, by_hand], []


def _project(folder: Path) -> Path:
    """A bundle of logistic regression on digits, with a baseline, and a registry in which it is the champion."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    from fairway.bundle.format import Bundle, write_bundle
    from fairway.model import Model
    from fairway.monitoring.baseline import FILE, make_baseline
    from fairway.registry.settings import RegistrySettings
    from fairway.registry.store import Registry
    from fairway.testing.builders import linear_bundle

    x, y = load_digits(return_X_y=True)
    fitted = LogisticRegression(max_iter=1000).fit(x / 16, y)
    bare = linear_bundle(folder / "bare", name="digits", weights=fitted.coef_.T / 16, bias=fitted.intercept_)
    with Model(bare) as model:
        baseline = make_baseline(model, {"x": x.astype("float32")})
    onnx = bare.file("model.onnx").read_bytes()
    bundle: Bundle = write_bundle(folder / "digits.fairway", bare.manifest, {"model.onnx": onnx, FILE: baseline})
    with Registry.open(RegistrySettings(url=f"sqlite:///{folder}/registry.db", blobs=f"{folder}/blobs")) as registry:
        number = registry.register(bundle).number
        registry.set_alias("digits", "champion", number, actor="benchmark")
    return folder


def _request() -> bytes:
    from sklearn.datasets import load_digits

    row = load_digits().data[0].tolist()
    return msgspec.json.encode({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": row}]})


# -- what is said of it


def _figures(loads: Loads) -> list[Figure]:
    names = list(dict.fromkeys(name for name, _ in loads))
    said = []
    for connections in CONNECTIONS:
        for name in names:
            said.append(figure(f"{name}, {connections}", [x.per_s for x in loads[name, connections]], "requests/s"))
    for name in names:
        said.append(figure(f"{name}, 1: median latency", [x.p50 * 1e6 for x in loads[name, 1]], "us"))
    for name in names:
        said.append(figure(f"{name}, 64: CPU", [x.cpu_us for x in loads[name, 64]], "us/request"))
    ratios: list[tuple[str, str, str, int, Callable[[Load], float], str]] = [
        ("requests/s", "fairway", "probe", 64, lambda x: x.per_s, ">= 0.7"),
        ("requests/s", "fairway", "FastAPI by hand", 64, lambda x: x.per_s, ">= 10"),
        ("latency", "fairway", "probe", 1, lambda x: x.p50, "<= 1.1"),
        ("requests/s", "fairway, access log", "fairway", 64, lambda x: x.per_s, ""),
        ("requests/s", "fairway, watched for drift", "fairway", 64, lambda x: x.per_s, ""),
        ("CPU", "probe", "fairway", 64, lambda x: x.cpu_us, ""),
    ]
    for what, one, other, connections, value, target in ratios:
        if loads.get((one, connections)) and loads.get((other, connections)):
            pairs = zip(loads[one, connections], loads[other, connections], strict=True)
            values = [value(a) / value(b) for a, b in pairs]
            said.append(figure(f"{what}, {connections}: {one} / {other}", values, "ratio", target))
    return said


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
