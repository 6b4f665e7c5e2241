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
    """One form.

    Attributes
    ----------
    right : array of bool
        Of each test row, whether it is answered right.
    seconds : mapping of int to list of float
        By rows in a call: seconds per row, one figure for each round.
    """

    name: str
    bundle: Bundle
    right: Any = None
    seconds: dict[int, list[float]] = {}


def make(source: Bundle, names: Sequence[str], sample: Sample, folder: Path) -> list[Form]:
    """The original and every form that applies; what does not is told."""
    made = [Form(ORIGINAL, source)]
    folder.mkdir(parents=True, exist_ok=True)
    described = {"rows": sample.rows, "seed": 0, "data": "benchmark"}
    for recipe in recipes(OptimizationSettings(candidates=tuple(names)), described):
        try:
            started = time.perf_counter()
            key = f"{recipe.name}-{source.digest.removeprefix('sha256:')[:8]}"
            made.append(Form(recipe.name, build_candidate(source, recipe, sample, folder / key)))
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


def race(forms: Sequence[Form], feed: Tensors, *, rows: int, rounds: int, calls: int) -> None:
    """Time calls of ``rows`` rows, every form once per round in a new order, on one thread."""
    models = {form.name: Model(form.bundle, threads=1) for form in forms}
    order = random.Random(0)
    many = len(next(iter(feed.values())))
    for number in range(-1, rounds):
        for form in order.sample(list(forms), len(forms)):
            model = models[form.name]
            started = time.perf_counter()
            for call in range(calls):
                chosen = np.arange((number * calls + call) * rows, (number * calls + call + 1) * rows) % many
                model.infer({n: a[chosen] for n, a in feed.items()}, raw=True)
            if number >= 0:
                form.seconds.setdefault(rows, []).append((time.perf_counter() - started) / calls / rows)
    for model in models.values():
        model.close()


def figures(title: str, forms: Sequence[Form], targets: Mapping[str, tuple[str, str]]) -> list[Figure]:
    """Throughput, gain within rounds, size, and the paired change of accuracy with its 95 % interval.

    A target for throughput is one for calls of as many rows as were timed; fewer rows are shown beside.
    """
    first, found = forms[0], list[Figure]()
    most = max(first.seconds)
    for form in forms:
        for rows, seconds in form.seconds.items():
            found.append(figure(f"{title} {form.name}, {_rows(rows)}", [1 / s for s in seconds], "rows/s"))
        if form is first:
            continue
        gain, size = targets.get(form.name, ("", ""))
        for rows, seconds in form.seconds.items():
            ratios = [base / own for base, own in zip(first.seconds[rows], seconds, strict=True)]
            name = f"{title} {form.name}, {_rows(rows)}: throughput"
            found.append(figure(name, ratios, "x FP32", gain if rows == most else ""))
        found.append(
            figure(f"{title} {form.name}: size", [form.bundle.size_bytes / first.bundle.size_bytes], "x FP32", size)
        )
        if form.right is not None:
            found.append(change(title, form, first))
    return found


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def change(title: str, form: Form, first: Form, target: str = "") -> Figure:
    """Of accuracy from ``first`` to ``form`` on the same rows, in points. A target must hold at the interval's near end."""
    gained, lost = int((form.right & ~first.right).sum()), int((~form.right & first.right).sum())
    low, high = (100 * bound for bound in matched_interval(gained, lost, len(form.right), 0.95))
    of = f"{form.name}: accuracy change" if first.name == ORIGINAL else f"{form.name} - {first.name}: accuracy"
    value = 100 * (gained - lost) / len(form.right)
    holds = low >= float(target.removeprefix(">= ")) if target else None
    name = f"{title} {of} [{low:+.2f}, {high:+.2f}]"
    return Figure(name, round(value, 3), "points", round((high - low) / 2, 3), target, holds)


def best(forms: Sequence[Form], allowed: float) -> Form | None:
    """The fastest form whose accuracy is at most ``allowed`` points below the original's, as measured."""
    first = forms[0]
    kept = [f for f in forms[1:] if f.right is None or 100 * (f.right.mean() - first.right.mean()) >= -allowed]
    return min(kept, key=lambda f: statistics.median(f.seconds[max(f.seconds)]), default=None)
