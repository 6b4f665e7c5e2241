"""``python3 -m benchmarks.optimization.gpu_search``: ``optimize`` on an exported program, on a machine with a GPU.

The shape of BERT, 6 layers of 384, with random weights; the right answers are its own in FP32, so accuracy is agreement.
What is given runs on the CPU; the search may move it, and compute in half precision. Needs torch, and of what Fairway needs
msgspec, optuna, psutil, pyarrow, scipy, uvloop. Without a CUDA device the CPU's forms are searched.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import torch

from benchmarks.optimization.gpu import bert
from fairway.bundle.format import Bundle, write_bundle
from fairway.bundle.samples import SAMPLES, encode_samples
from fairway.core.gate import Gate, Limit
from fairway.core.manifest import EngineSpec, Manifest, Prediction
from fairway.evaluation.settings import EvaluationSettings
from fairway.loop.evaluate import measure
from fairway.model import Model
from fairway.optimization.optimize import optimize
from fairway.optimization.settings import OptimizationSettings
from fairway.sources.programs import export_program
from fairway.sources.tables import make_table

ROWS, REFERENCE = 200, 64
GATE: Gate = {"accuracy_score": Limit(max_drop=0.02)}
FORMS = {
    "cuda": ("cuda-eager-bf16", "cuda-eager-fp16", "cuda-eager-fp32"),
    "cpu": ("cpu-eager-bf16",),
}


def main() -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    what = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"torch {torch.__version__} on {what}, {len(os.sched_getaffinity(0))} cores", flush=True)
    settings = OptimizationSettings(
        time_budget="110s", candidates=FORMS[device], trials=0, objective="throughput_rps", repeats=2, held_out=0.3
    )
    with tempfile.TemporaryDirectory() as folder:
        bundle = _made(Path(folder) / "bert")
        columns = _rows(ROWS + REFERENCE)
        with Model(bundle) as model:
            scores = model.infer(columns)["scores"]
        table = {**columns, "label": np.array([str(each) for each in scores.argmax(axis=1)])}
        found = optimize(
            bundle,
            table=make_table({name: array[:ROWS] for name, array in table.items()}),
            reference=make_table({name: array[ROWS:] for name, array in table.items()}),
            label="label",
            gate=GATE,
            workdir=Path(folder) / "work",
            measure=lambda form: measure(form, GATE, 100, saturate=True),
            settings=settings,
            evaluation=EvaluationSettings(resamples=200),
        )
        print(found.as_text(), flush=True)
        if out := os.environ.get("OUT"):
            held = {"torch": torch.__version__, "device": what, "found": msgspec.to_builtins(found.findings)}
            (Path(out) / "gpu_search.json").write_text(json.dumps(held, indent=1))
    return 0


def _rows(count: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    random = np.random.default_rng(1)
    ids = random.integers(1, 30_000, (count, 64))
    mask = (np.arange(64) < random.integers(16, 65, count)[:, None]).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask}


def _made(path: Path) -> Bundle:
    torch.manual_seed(0)
    job = bert()
    program = export_program(job.module, list(job.feed.values()), job.free)
    scratch = path.with_suffix(".pt2")
    scratch.write_bytes(program)
    spec = EngineSpec("torch", "model.pt2", options={"inputs": list(job.feed), "outputs": ["scores"]})
    manifest = Manifest("bert", "classification", (), (), {}, spec)
    with Model(write_bundle(path.with_suffix(".specs"), manifest, {"model.pt2": scratch})) as model:
        manifest = msgspec.structs.replace(
            manifest,
            inputs=model.raw_inputs,
            outputs=model.raw_outputs,
            prediction=Prediction("scores", "logits"),
            labels=("0", "1", "2", "3"),
        )
    return write_bundle(path, manifest, {"model.pt2": scratch, SAMPLES: encode_samples(_rows(64))})


if __name__ == "__main__":
    sys.exit(main())
