"""``python3 -m benchmarks.optimization.gpu [resnet50] [bert]``: the torch engine's forms on a GPU, beside FP32 run eagerly.

Random weights: speed, and whether every form answers as FP32 on the CPU does. Calls are timed from arrays to arrays, so copies
to and from the device count. Needs torch, numpy, msgspec and ml_dtypes, and no installed Fairway (``PYTHONPATH=src``).
Without a CUDA device it runs a few calls on the CPU, which only shows that it works.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fairway.engines.torch import TorchEngine
from fairway.sources.programs import export_program

FORMS = (
    ("eager", "fp32"), ("eager", "bf16"), ("eager", "fp16"), ("compiled", "bf16"), ("aot", "bf16"), ("compiled", "fp32"),
)  # fmt: skip
"""The mode and precision of each; all are compared with the first."""
ALLOWED = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 1e-2}
"""How far an answer may be from FP32 on the CPU, relative to the largest."""
BUDGET_S = 100.0
"""Forms that would begin later are left out."""


class Race(NamedTuple):
    rounds: int
    calls: int


class Job(NamedTuple):
    module: Any
    feed: dict[str, Any]
    free: list[list[int]]


class Bottleneck(nn.Module):
    """He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition", fig. 5, with the stride in the 3 x 3."""

    def __init__(self, inside: int, middle: int, stride: int) -> None:
        super().__init__()
        outside = 4 * middle
        self.body = nn.Sequential(
            nn.Conv2d(inside, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(),
            nn.Conv2d(middle, middle, 3, stride, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(),
            nn.Conv2d(middle, outside, 1, bias=False), nn.BatchNorm2d(outside),
        )  # fmt: skip
        short = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        self.short = nn.Identity() if inside == outside else short

    def forward(self, x: Any) -> Any:
        return torch.relu(self.body(x) + self.short(x))


class Layer(nn.Module):
    """Of BERT: attention and two products, each added and normed."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mixed, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Any, mask: Any) -> Any:
        rows, tokens, width = x.shape
        split = self.mixed(x).reshape(rows, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(split[0], split[1], split[2], attn_mask=mask)
        x = self.first(x + self.joined(attended.transpose(1, 2).reshape(rows, tokens, width)))
        return self.second(x + self.narrow(nn.functional.gelu(self.wide(x))))


class Bert(nn.Module):
    """Six layers of width 384; classifies by the first token."""

    def __init__(self, layers: int = 6, width: int = 384, heads: int = 12, vocabulary: int = 30_522) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(512, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.classes = nn.Linear(width, 4)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1], device=input_ids.device))
        mask = (attention_mask > 0)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        return self.classes(x[:, 0])


def resnet50() -> Job:
    depths = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
    blocks: list[Any] = []
    inside = 64
    for middle, count, stride in depths:
        for number in range(count):
            blocks.append(Bottleneck(inside, middle, stride if number == 0 else 1))
            inside = 4 * middle
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    module = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)).eval()
    rows = np.random.default_rng(0).normal(size=(32, 3, 224, 224)).astype(np.float32)
    return Job(module, {"input": rows}, [[0]])


def bert() -> Job:
    random = np.random.default_rng(0)
    ids = random.integers(1, 30_000, (64, 64))
    mask = (np.arange(64) < random.integers(16, 65, 64)[:, None]).astype(np.int64)
    return Job(Bert().eval(), {"input_ids": ids, "attention_mask": mask}, [[0, 1], [0, 1]])


JOBS: dict[str, Callable[[], Job]] = {"bert": bert, "resnet50": resnet50}


def main(names: list[str]) -> int:
    started = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    what = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"torch {torch.__version__} on {what}", flush=True)
    race = Race(15, 20) if device == "cuda" else Race(2, 1)
    forms = FORMS if device == "cuda" else FORMS[:2]
    found: dict[str, Any] = {"torch": torch.__version__, "device": what}
    sound = True
    for name in names or list(JOBS):
        torch.manual_seed(0)
        made = measure(JOBS[name](), device, forms, race, started)
        found[name] = made
        sound &= all(form.get("agrees", False) or "left_out" in form for form in made.values())
    document = json.dumps(found, indent=2)
    print(document)
    if out := os.environ.get("OUT"):
        (Path(out) / "gpu.json").write_text(document)
    return 0 if sound else 1


def measure(job: Job, device: str, forms: Any, race: Race, started: float) -> dict[str, Any]:
    """Load every form, check it, and time all of them in turn."""
    with torch.inference_mode():
        wanted = job.module(*(torch.from_numpy(array) for array in job.feed.values())).numpy()
    engines: dict[str, TorchEngine] = {}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        path.write_bytes(export_program(job.module, list(job.feed.values()), job.free))
        for mode, precision in forms:
            label = f"{mode} {precision}"
            if time.monotonic() - started > BUDGET_S:
                found[label] = {"left_out": f"{BUDGET_S:g} s were over"}
                continue
            try:
                found[label], engines[label] = _checked(path, job.feed, wanted, mode, precision, device)
            except Exception as error:  # noqa: BLE001 (the other forms go on, and this one counts as wrong)
                found[label] = {"failed": f"{type(error).__name__}: {str(error)[:600]}"}
            print(label, found[label], flush=True)
        rates = _race(engines, job.feed, race)
    first = next(iter(rates.values()), [])
    for label, each in rates.items():
        ratios = sorted(one / other for one, other in zip(each, first, strict=True))
        found[label] |= {
            "rows_per_s": round(statistics.median(each)),
            "times_eager_fp32": round(statistics.median(ratios), 2),
            "quartiles": [round(ratios[len(ratios) // 4], 2), round(ratios[-1 - len(ratios) // 4], 2)],
        }
        engines[label].close()
    return found


def _checked(
    path: Path, feed: dict[str, Any], wanted: Any, mode: Any, precision: Any, device: Any
) -> tuple[dict[str, Any], TorchEngine]:
    begun = time.monotonic()
    engine = TorchEngine(path, threads=0, mode=mode, precision=precision, device=device)
    loaded = time.monotonic()
    named = dict(zip((spec.name for spec in engine.inputs), feed.values(), strict=True))
    gaps = []
    for rows in (len(wanted), 3, 1):  # another number of rows gets no other answer
        answer = engine.infer({name: array[:rows] for name, array in named.items()})["output_0"]
        gaps.append(float(np.abs(answer - wanted[:rows]).max() / np.abs(wanted).max()))
    engine.infer(named)
    checked = {
        "agrees": max(gaps) <= ALLOWED[precision],
        "largest_gap": round(max(gaps), 6),
        "load_s": round(loaded - begun, 1),
        "first_calls_s": round(time.monotonic() - loaded, 1),
    }
    return checked, engine


def _race(engines: dict[str, TorchEngine], feed: dict[str, Any], race: Race) -> dict[str, list[float]]:
    """Rows per second: every form once per round, in a new order, so that a slow moment hides nothing."""
    rates: dict[str, list[float]] = {label: [] for label in engines}
    rows = len(next(iter(feed.values())))
    order = np.random.default_rng(0)
    for _ in range(race.rounds):
        for label in order.permutation(list(engines)):
            engine = engines[label]
            named = dict(zip((spec.name for spec in engine.inputs), feed.values(), strict=True))
            begun = time.perf_counter()
            for _ in range(race.calls):
                engine.infer(named)
            rates[label].append(rows * race.calls / (time.perf_counter() - begun))
    return rates


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
