"""``python3 -m benchmarks.optimization.gpu_serving [bert] [resnet50]``: the torch engine as served, and what tuning finds.

Requests of one row, validation and queue on the CPU, the model on a GPU. Each way to serve is measured in fresh processes,
in turn: limits on rows, and how long a batch waits for more. Random weights. Needs torch, and of what Fairway needs msgspec,
psutil, scipy, uvloop. Without a CUDA device a few requests are measured on the CPU, which only shows that it works.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from benchmarks.optimization.gpu import JOBS, Job
from fairway.bundle.format import Bundle, write_bundle
from fairway.bundle.samples import SAMPLES, encode_samples, read_samples
from fairway.core.manifest import EngineSpec, Manifest
from fairway.core.metrics import Measurement
from fairway.engines.torch import TorchEngine
from fairway.model import Model
from fairway.optimization.cost import measure_cost
from fairway.optimization.passes.base import Sample
from fairway.optimization.report import Tuned, Tuning
from fairway.optimization.search.journal import Journal
from fairway.optimization.settings import OptimizationSettings
from fairway.optimization.tuning import tune, tunings
from fairway.serving.performance import measure_performance
from fairway.serving.settings import ModelServeSettings, ServeSettings
from fairway.sources.programs import export_program

ROUNDS = 5
BUDGET_S = 150.0
SHOWN = ("throughput_rps", "latency_p50_ms", "latency_p99_ms", "error_rate", "memory_mb")


def main(names: list[str]) -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    what = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"torch {torch.__version__} on {what}, {len(os.sched_getaffinity(0))} cores", flush=True)
    started = time.monotonic()
    found: dict[str, Any] = {"torch": torch.__version__, "device": what}
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names or JOBS):
            torch.manual_seed(0)
            bundle = made(name, JOBS[name](), device, Path(folder) / name)
            left = (BUDGET_S - (time.monotonic() - started)) / (len(names or JOBS) - number)
            found[name] = told(served(bundle, device, left, Path(folder) / f"{name}.jsonl"))
            print(json.dumps(found[name], indent=1), flush=True)
    if out := os.environ.get("OUT"):
        (Path(out) / "gpu_serving.json").write_text(json.dumps(found, indent=2))
    return 0


def made(name: str, job: Job, device: str, path: Path) -> Bundle:
    """A bundle of the exported program, in BF16 on a GPU, with real rows as samples."""
    program = export_program(job.module, list(job.feed.values()), job.free)
    scratch = path.with_suffix(".pt2")
    scratch.write_bytes(program)
    options = {"device": device, "precision": "bf16" if device == "cuda" else "fp32"}
    engine = TorchEngine(scratch, **options)  # type: ignore[arg-type]
    inputs, outputs = engine.inputs, engine.outputs
    engine.close()
    rows = {spec.name: array for spec, array in zip(inputs, job.feed.values(), strict=True)}
    spec = EngineSpec("torch", "model.pt2", options=options)
    manifest = Manifest(name, "classification", inputs, outputs, {}, spec)
    return write_bundle(path, manifest, {"model.pt2": scratch, SAMPLES: encode_samples(rows)})


def served(bundle: Bundle, device: str, budget_s: float, journal: Path) -> Tuned:
    """The ways that the cost of its calls suggests, measured at full load."""
    with Model(bundle) as model:
        rows = read_samples(bundle)
        cost = measure_cost(model, Sample(rows, len(next(iter(rows.values())))))
    print(f"{bundle.manifest.name}: a call costs {cost.base_us:g} us and {cost.row_us:g} us a row", flush=True)
    quick = device == "cpu"

    def measure(way: Tuning) -> Sequence[Measurement]:
        limits = ModelServeSettings(max_batch=way.max_batch, max_wait_us=way.max_wait_us)
        serving = ServeSettings(workers=way.workers, threads=way.threads, models={bundle.manifest.name: limits})
        measured = measure_performance(
            bundle, seconds=0.5 if quick else 2.0, concurrency=4 if quick else 64, serving=serving, workers=way.workers
        ).measurements
        print(way, {m.metric: round(m.value, 3) for m in measured if m.metric in SHOWN}, flush=True)
        return measured

    deadline = time.monotonic() + budget_s
    return tune(
        tunings(bundle.manifest.engine, cost, len(os.sched_getaffinity(0)))[: 2 if quick else None],
        measure,
        subject=bundle.digest,
        gate={},
        settings=OptimizationSettings(objective="throughput_rps", repeats=1 if quick else ROUNDS),
        cores=len(os.sched_getaffinity(0)),
        journal=Journal(journal),
        time_left=lambda: deadline - time.monotonic(),
        expected_s=1.0,
        progress=lambda *_: None,
    )


def told(tuned: Tuned) -> dict[str, Any]:
    """What is chosen and why, and each way's measurements with their intervals."""
    ways = {
        str(way.tuning): {
            m.metric: m.error or [round(float(f"{x:.4g}"), 4) for x in (m.value, m.low, m.high)]
            for m in way.measurements
            if m.metric in SHOWN
        }
        for way in tuned.ways
    }
    return {"chosen": str(tuned.chosen), "reason": tuned.reason, "rounds": tuned.rounds, "ways": ways} | {
        "settings": msgspec.to_builtins(tuned.chosen)
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
