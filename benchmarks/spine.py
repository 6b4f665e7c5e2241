"""``make bench-spine``: is the package light, and does a server start fast and small?"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from benchmarks.harness import figure, repeated, report

FAIRWAY = [sys.executable, "-m", "fairway"]


def main() -> None:
    imports = repeated(15, _import_ms)
    helps = repeated(15, lambda: _timed_ms([*FAIRWAY, "--help"]))
    with tempfile.TemporaryDirectory() as folder:
        project = _project(Path(folder))
        servers = [_server(project) for _ in range(6)][1:]
    report(
        "spine",
        [
            figure("import fairway", imports, "ms", "<= 150"),
            figure("fairway --help", helps, "ms", "<= 300"),
            figure("server of digits ready", [s[0] for s in servers], "ms", "<= 1500"),
            figure("server resident after 1,000 requests", [s[1] for s in servers], "MB", "<= 120"),
            figure("one REST request, one connection", [s[2] for s in servers], "ms"),
        ],
        ["fairway", "numpy", "onnxruntime", "uvicorn", "sqlalchemy"],
    )


def _timed_ms(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - started) * 1e3


def _import_ms() -> float:
    """In a fresh interpreter, which is itself not counted."""
    code = "import time; t = time.perf_counter(); import fairway; print((time.perf_counter() - t) * 1e3)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def _project(folder: Path) -> Path:
    """A registry in which logistic regression on digits is the champion."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    from fairway.loop.project import Project
    from fairway.settings import default_settings
    from fairway.testing.builders import linear_bundle

    x, y = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(x / 16, y)
    bundle = linear_bundle(folder / "digits.fairway", name="digits", weights=model.coef_.T, bias=model.intercept_)
    with Project(default_settings({}), folder).registry() as registry:
        number = registry.register(bundle).number
        registry.set_alias("digits", "champion", number, actor="benchmark")
    return folder


def _server(project: Path) -> tuple[float, float, float]:
    """Milliseconds until ready, resident megabytes after traffic, median milliseconds of one request."""
    started = time.perf_counter()
    log = project / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*FAIRWAY, "serve", "--port", "0", "--json"], cwd=project, stdout=subprocess.PIPE, stderr=out
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        url = re.search(r"http://[\d.]+:\d+", line)
        assert url, (line, log.read_text())
        with httpx.Client(base_url=url[0]) as client:
            while client.get("/v2/models/digits/ready").status_code != 200:
                pass
            ready = (time.perf_counter() - started) * 1e3
            body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}]}
            took = []
            for _ in range(1000):
                sent = time.perf_counter()
                client.post("/v2/models/digits/infer", json=body).raise_for_status()
                took.append((time.perf_counter() - sent) * 1e3)
        resident = psutil.Process(process.pid).memory_info().rss / 1e6
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    return ready, resident, sorted(took)[500]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
