"""One model in many forms: made by recipes, scored on the same rows, timed in the same rounds."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.harness import Figure, figure
from fairway.bundle.format import Bundle
from fairway.core.tensors import Tensors
from fairway.evaluation.intervals import matched_interval
from fairway.model import Model
from fairway.optimization.build import build_candidate
from fairway.optimization.passes.base import NothingToDo, Sample
from fairway.optimization.recipes import recipes
from fairway.optimization.settings import OptimizationSettings

ORIGINAL = "FP32 ONNX Runtime"


class Form(msgspec.Struct):
    """One form; ``right`` says of each test row whether it is answered right."""

    name: str
    bundle: Bundle
    right: Any = None
    seconds: list[float] = []


def make(source: Bundle, names: Sequence[str], sample: Sample, folder: Path) -> list[Form]:
    """The original and every form that applies; what does not is told."""
    made = [Form(ORIGINAL, source, seconds=[])]
    folder.mkdir(parents=True, exist_ok=True)
    described = {"rows": sample.rows, "seed": 0, "data": "benchmark"}
    for recipe in recipes(OptimizationSettings(candidates=tuple(names)), described):
        try:
            started = time.perf_counter()
            key = f"{recipe.name}-{source.digest.removeprefix('sha256:')[:8]}"
            made.append(Form(recipe.name, build_candidate(source, recipe, sample, folder / key), seconds=[]))
            print(f"{recipe.name}: made in {time.perf_counter() - started:.0f} s", flush=True)
        except NothingToDo as why:
            print(f"{recipe.name}: {why}", flush=True)
    return made


def score(forms: Sequence[Form], feed: Tensors, labels: Any, *, batch: int = 1) -> None:
    """Answer every test row, one at a time unless ``batch`` says otherwise, as a server with single requests would."""
    for form in forms:
        with Model(form.bundle) as model:
            output = model.raw_outputs[-1].name
            answers = [
                model.infer({n: a[i : i + batch] for n, a in feed.items()}, raw=True)[output].argmax(axis=-1)
                for i in range(0, len(labels), batch)
            ]
        form.right = np.concatenate(answers) == labels
        print(f"{form.name}: accuracy {form.right.mean():.4f}", flush=True)


def race(forms: Sequence[Form], feed: Tensors, *, rounds: int, calls: int) -> None:
    """Time single-row calls, every form once per round in a new order, on one thread."""
    models = {form.name: Model(form.bundle, threads=1) for form in forms}
    order = random.Random(0)
    rows = len(next(iter(feed.values())))
    for number in range(-1, rounds):
        for form in order.sample(list(forms), len(forms)):
            model = models[form.name]
            started = time.perf_counter()
            for call in range(calls):
                row = (number * calls + call) % rows
                model.infer({n: a[row : row + 1] for n, a in feed.items()}, raw=True)
            if number >= 0:
                form.seconds.append((time.perf_counter() - started) / calls)
    for model in models.values():
        model.close()


def figures(title: str, forms: Sequence[Form], targets: Mapping[str, tuple[str, str]]) -> list[Figure]:
    """Throughput, gain within rounds, size, and the paired change of accuracy with its 95 % interval."""
    first, found = forms[0], list[Figure]()
    for form in forms:
        found.append(figure(f"{title} {form.name}", [1 / s for s in form.seconds], "rows/s"))
        if form is first:
            continue
        gain, size = targets.get(form.name, ("", ""))
        ratios = [base / own for base, own in zip(first.seconds, form.seconds, strict=True)]
        found.append(figure(f"{title} {form.name}: throughput", ratios, "x FP32", gain))
        found.append(
            figure(f"{title} {form.name}: size", [form.bundle.size_bytes / first.bundle.size_bytes], "x FP32", size)
        )
        if form.right is not None:
            found.append(_change(title, form, first))
    return found


def _change(title: str, form: Form, first: Form) -> Figure:
    gained, lost = int((form.right & ~first.right).sum()), int((~form.right & first.right).sum())
    low, high = matched_interval(gained, lost, len(form.right), 0.95)
    name = f"{title} {form.name}: accuracy change [{100 * low:+.2f}, {100 * high:+.2f}]"
    change = 100 * (gained - lost) / len(form.right)
    return Figure(name, round(change, 3), "points", round(50 * (high - low), 3))


def best(forms: Sequence[Form], allowed: float) -> Form | None:
    """The fastest form whose accuracy is at most ``allowed`` points below the original's, as measured."""
    first = forms[0]
    kept = [f for f in forms[1:] if f.right is None or 100 * (f.right.mean() - first.right.mean()) >= -allowed]
    return min(kept, key=lambda f: statistics.median(f.seconds), default=None)
