"""A server to be fuzzed, in processes of its own, and what can be seen of them from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from onnx import TensorProto, helper

from benchmarks.fuzz.names import MAX_BODY, REGION, SPARE
from benchmarks.fuzz.wire import SOON_S, Rest, Wrong
from fairway.bundle.format import Bundle, write_bundle
from fairway.core.manifest import EngineSpec, Manifest
from fairway.core.tensors import Datatype, TensorSpec
from fairway.testing.builders import linear_bundle

CONTROL = "control"
"""The model of those who ask properly; it gives back what it gets."""
_PROTO = {
    Datatype.FP32: TensorProto.FLOAT, Datatype.FP64: TensorProto.DOUBLE, Datatype.FP16: TensorProto.FLOAT16,
    Datatype.INT8: TensorProto.INT8, Datatype.UINT8: TensorProto.UINT8, Datatype.INT32: TensorProto.INT32,
    Datatype.INT64: TensorProto.INT64, Datatype.UINT64: TensorProto.UINT64, Datatype.BOOL: TensorProto.BOOL,
    Datatype.BYTES: TensorProto.STRING,
}  # fmt: skip
_SETTINGS = f"""\
[serve]
port = 0
grpc_port = 0
fast_lane = %s
workers = %d
model_control = true
shared_memory = true
stop_delay_s = 0.0
max_body_bytes = {MAX_BODY}
max_header_bytes = 8192
read_timeout_s = 5.0
"""


class Holdings(NamedTuple):
    """What the server's processes hold."""

    rss_mb: float
    descriptors: int
    threads: int
    waiting: float


class Target:
    """A running server."""

    def __init__(self, process: psutil.Process, port: int, grpc_port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.grpc_port = grpc_port
        self._log = log
        self.started_as = self.pids()

    def pids(self) -> list[int]:
        """Of every process; a worker that died has another."""
        return [p.pid for p in (self.process, *self.process.children())]

    def holds(self) -> Holdings:
        """What it holds now."""
        processes = [self.process, *self.process.children()]
        rss = sum(p.memory_info().rss for p in processes) / 1e6
        return Holdings(
            round(rss, 1), sum(p.num_fds() for p in processes), sum(p.num_threads() for p in processes), self._waiting()
        )

    def settled(self, like: Holdings | None) -> Holdings:
        """What it holds when all clients have gone: waits until that is no more than ``like``, or for long."""
        self._forget_regions()
        ends = time.monotonic() + SOON_S
        least = last = self.holds()
        while time.monotonic() < ends:
            if like is not None and (last.descriptors, last.waiting) <= (like.descriptors, 0.0):
                return last
            if like is None and last.descriptors == least.descriptors and time.monotonic() > ends - SOON_S + 1.5:
                return last
            time.sleep(0.1)
            last = self.holds()
            least = min(least, last, key=lambda found: found.descriptors)
        return last

    def complaints(self) -> list[str]:
        """Lines of the log that tell of a fault of the server's own."""
        found = []
        for line in self._log.read_text("utf-8", "replace").splitlines():
            if "Traceback" in line or " ERROR " in line or '"log.level":"error"' in line or '"critical"' in line:
                found.append(line if len(line) < 1500 else f"{line[:700]} … {line[-800:]}")
            elif line and not line.startswith("{") and not line[:4].isdigit():
                found.append(line[:2000])
        return found

    def _waiting(self) -> float:
        rest = Rest(self.port)
        try:
            text = rest.ask(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").body.decode()
        finally:
            rest.close()
        queues = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith("fairway_queue_")]
        if not queues:
            raise Wrong("the metrics say nothing about the queue")
        return sum(map(float, queues))

    def _forget_regions(self) -> None:
        rest = Rest(self.port)
        for _ in range(8):  # each on a connection of its own, so that every worker is told
            rest.ask(b"POST /v2/systemsharedmemory/unregister HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            rest.close()


@contextmanager
def target(folder: Path, *, fast_lane: bool, workers: int) -> Iterator[Target]:
    """A server of a few small models; killed at the end."""
    folder.mkdir()
    bundles = [str(bundle.path) for bundle in _bundles(folder)]
    (folder / "fairway.toml").write_text(_SETTINGS % (str(fast_lane).lower(), workers))
    log, region = folder / "server.log", Path("/dev/shm", REGION)
    region.write_bytes(np.full(1024, 0.5, np.float32).tobytes())
    command = [sys.executable, "-m", "fairway", "serve", *bundles, "--json"]
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=errors) as running,
    ):
        try:
            assert running.stdout is not None
            said = running.stdout.readline()
            if not said:
                raise Wrong(f"the server did not start: {log.read_text()[-2000:]}")
            port = int(json.loads(said)["url"].rpartition(":")[2])
            yield Target(psutil.Process(running.pid), port, _grpc_port(log), log)
        finally:
            children = psutil.Process(running.pid).children() if running.poll() is None else []
            running.kill()
            for child in children:
                child.kill()
            region.unlink(missing_ok=True)


def _grpc_port(log: Path) -> int:
    ends = time.monotonic() + SOON_S
    while time.monotonic() < ends:
        for line in log.read_text().splitlines():
            if line.endswith("}") and (port := json.loads(line).get("grpc_port")):
                return int(port)
        time.sleep(0.02)
    raise Wrong("the server does not tell its port of gRPC")


def _bundles(folder: Path) -> list[Bundle]:
    random = np.random.default_rng(0)
    linear = [
        linear_bundle(folder / name, name=name, weights=random.normal(size=(4, 3)), bias=random.normal(size=3))
        for name in ("linear", SPARE)
    ]
    every = tuple(TensorSpec(kind.value.lower(), kind, (-1,), allow_nan=kind is Datatype.FP64) for kind in _PROTO)
    free = (TensorSpec("x", Datatype.FP32, (-1, -1)),)
    return [
        *linear,
        _echo(folder, "every", every),
        _echo(folder, "free", free, EngineSpec(max_batch=8)),
        _echo(folder, CONTROL, free),
    ]


def _echo(folder: Path, name: str, specs: Sequence[TensorSpec], engine: EngineSpec | None = None) -> Bundle:
    outputs = tuple(TensorSpec(f"same_{spec.name}", spec.datatype, spec.shape) for spec in specs)

    def info(spec: TensorSpec) -> Any:
        return helper.make_tensor_value_info(spec.name, _PROTO[spec.datatype], [None] * len(spec.shape))

    nodes = [helper.make_node("Identity", [spec.name], [f"same_{spec.name}"]) for spec in specs]
    graph = helper.make_graph(nodes, name, list(map(info, specs)), list(map(info, outputs)))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    manifest = Manifest(
        name=name, task="embedding", inputs=tuple(specs), outputs=outputs, files={}, engine=engine or EngineSpec()
    )
    return write_bundle(folder / name, manifest, {"model.onnx": model.SerializeToString()})
