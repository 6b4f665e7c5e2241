"""A million predictions: every metric with 1,000 resamples, ten slices, and a comparison with a champion, in half a minute.

Each in a process of its own, as ``fairway evaluate`` would be, but without the model: what is measured is what evaluation adds
to inference. In slices, all metrics that need draws are measured beside the main one: more than a gate usually limits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from benchmarks.harness import Figure, figure
from fairway.core.mapping import IN_ORDER, Mapper, Threads
from fairway.evaluation.comparison import compare
from fairway.evaluation.diagnostics import calibration, confusion, residuals
from fairway.evaluation.draws import Sums, drawn
from fairway.evaluation.measure import measure as measure_rows
from fairway.evaluation.metrics import quality_metrics
from fairway.evaluation.predictions import Classified, Regressed, Scored
from fairway.evaluation.settings import EvaluationSettings

ROWS, SLICES, TIMES = 1_000_000, 10, 2
KINDS = {"2 classes": 2, "10 classes": 10, "regression": 0}
IN_SLICES = {
    True: ("accuracy_score", "f1_score", "roc_auc_score"),
    False: ("mean_absolute_error", "median_absolute_error"),
}


def measure() -> list[Figure]:
    """Seconds of each kind of predictions; and what Ray adds to draws that two processes share."""
    found = []
    for kind in KINDS:
        seconds = [_child("evaluate", kind)["seconds"] for _ in range(TIMES)]
        what = f"a million predictions, {kind}: metrics, 1,000 resamples, {SLICES} slices, champion"
        found.append(figure(what, seconds, "s", "<= 30"))
    shared = _child("ray")
    if not shared["same"]:
        raise RuntimeError("draws on Ray differ from those on threads")
    found.append(figure("1,000 draws of 300,000 weights each, 2 threads", shared["threads"], "s"))
    found.append(figure("the same on Ray, 2 workers: time, of that of threads", shared["ratio"], "×"))
    return found


def _child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.evaluation.predictions", *arguments]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def predictions(kind: str) -> tuple[Scored, Scored]:
    """A model's answers and a champion's that is a little worse."""
    rng = np.random.default_rng(0)
    if not (classes := KINDS[kind]):
        truth = rng.normal(size=ROWS)
        ours, theirs = (truth + scale * rng.normal(size=ROWS) for scale in (0.5, 0.51))
        return Regressed(truth, ours), Regressed(truth, theirs)
    labels = rng.integers(0, classes, ROWS)
    scores = rng.normal(size=(ROWS, classes)) + 1.5 * np.eye(classes)[labels]
    names = tuple(map(str, range(classes)))
    made = []
    for noise in (0.0, 0.3):
        odds = np.exp(scores + noise * rng.normal(size=scores.shape))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        made.append(Classified(labels, probabilities.argmax(axis=1), probabilities, names))
    return made[0], made[1]


def evaluate(rows: Scored, champion: Scored) -> None:
    """What a report is made of."""
    settings, rng = EvaluationSettings(), np.random.default_rng(1)
    names = quality_metrics("classification" if isinstance(rows, Classified) else "regression")
    inside = IN_SLICES[isinstance(rows, Classified)]
    masks = [rng.random(len(rows)) < 1 / SLICES for _ in range(SLICES)]
    parts = [(str(number), rows.select(mask), champion.select(mask)) for number, mask in enumerate(masks)]
    measure_rows(rows, names, settings)
    for name, ours, _ in parts:
        measure_rows(ours, inside, settings, part=name)
    compare(rows, champion, names, settings, versus="champion", slices=parts, slice_names=inside)
    measure_rows(champion, names, settings)
    if isinstance(rows, Classified):
        confusion(rows)
        calibration(rows, settings.confidence)
    elif isinstance(rows, Regressed):
        residuals(rows)


def _evaluated(kind: str) -> dict[str, Any]:
    from fairway.evaluation.metrics import value  # scikit-learn's import is no part of it

    pair = predictions(kind)
    value(quality_metrics("classification" if KINDS[kind] else "regression")[0], pair[0].select(np.arange(ROWS) < 10))
    started = time.perf_counter()
    evaluate(*pair)
    return {"seconds": time.perf_counter() - started}


def _shared() -> dict[str, Any]:
    source = Sums(csr_array(np.random.default_rng(0).normal(size=(300_000, 2))))
    draw = partial(drawn, source, _itself, 1000, 0, 0)
    expected = draw(IN_ORDER)
    with _ray() as cluster:
        mappers: dict[str, Mapper] = {"threads": Threads(2), "ray": cluster}
        took: dict[str, list[float]] = {name: [] for name in mappers}
        same = True
        for _ in range(TIMES + 1):
            for name, mapper in mappers.items():
                started = time.perf_counter()
                same &= draw(mapper).tobytes() == expected.tobytes()
                took[name].append(time.perf_counter() - started)
    ratio = [ray / threads for ray, threads in zip(took["ray"][1:], took["threads"][1:], strict=True)]
    return {"threads": took["threads"][1:], "ratio": ratio, "same": same}


@contextmanager
def _ray() -> Iterator[Mapper]:
    import ray

    from fairway.core.cluster import RayMapper

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 10**6, log_to_driver=False)
    yield RayMapper()
    ray.shutdown()


def _itself(sums: Any) -> Any:
    return sums


if __name__ == "__main__":
    print(json.dumps(_shared() if sys.argv[1] == "ray" else _evaluated(sys.argv[2])))
