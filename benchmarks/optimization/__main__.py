"""``make bench-optimization``: what each form of a text and of a vision model gains, and what it costs in accuracy.

Needs torch. The first run trains (about fifteen minutes); what is trained is kept in ``.bench``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Figure, report
from benchmarks.models import vision_bundle
from benchmarks.optimization.forms import Form, best, figures, make, race, score
from benchmarks.optimization.tables import CACHE
from benchmarks.optimization.text import text
from benchmarks.optimization.vision import digits, vision
from fairway.bundle.format import read_bundle
from fairway.core.tensors import Tensors
from fairway.model import Model
from fairway.optimization.passes.base import Sample

CALIBRATION, TEST, ALLOWED = 256, 2_000, 0.5
TEXT = (
    "graph", "fused", "int8-dynamic", "fused-int8-dynamic", "fused-int8-smooth", "fused-int8-mixed", "openvino",
    "openvino-bf16", "openvino-int8", "fewer-tokens", "fewer-tokens-int8",
)  # fmt: skip
VISION = ("graph", "int8-static", "int8-percentile", "openvino", "openvino-bf16", "openvino-int8")


def main(parts: list[str]) -> None:
    found: list[Figure] = []
    for part in parts or ["text", "vision", "resnet50"]:
        found += {"text": _text, "vision": _vision, "resnet50": _resnet50}[part]()
    report("optimization", found, ["fairway", "onnxruntime", "openvino", "nncf", "torch", "transformers"])


def _text() -> list[Figure]:
    source, train, (texts, labels) = text()
    with Model(source) as model:
        feed = model.prepare({"text": np.array([t.encode() for t in texts[:TEST]], object)})
        calibration = model.prepare({"text": np.array([t.encode() for t in train[:CALIBRATION]], object)})
    forms = make(source, TEXT, Sample(calibration, CALIBRATION), CACHE / "text-forms")
    score(forms, feed, labels[:TEST])
    full = {name: array[feed["attention_mask"].all(axis=1)] for name, array in feed.items()}
    race(forms, full, rounds=15, calls=4)
    return _told("text", forms, ">= 3.5")


def _vision() -> list[Figure]:
    source = vision()
    x_train, x_test, _, y_test = digits()
    name = source.manifest.inputs[0].name
    forms = make(source, VISION, Sample({name: x_train[:CALIBRATION]}, CALIBRATION), CACHE / "vision-forms")
    score(forms, {name: x_test}, y_test)
    race(forms, {name: x_test}, rounds=15, calls=8)
    return _told("vision", forms, ">= 2.5")


def _resnet50() -> list[Figure]:
    """Random weights: speed and size only."""
    path = CACHE / "resnet50.fairway"
    source = read_bundle(path) if path.is_dir() else vision_bundle(path)
    feed: Tensors = {"x": np.random.default_rng(0).normal(size=(16, 3, 224, 224)).astype(np.float32)}
    forms = make(source, VISION, Sample(feed, 16), CACHE / "resnet50-forms")
    race(forms, feed, rounds=7, calls=1)
    return _told("ResNet-50", forms, ">= 2.5")


def _told(title: str, forms: list[Form], target: str) -> list[Figure]:
    """Targets are those of the fastest form within the allowed loss of accuracy."""
    chosen: Any = best(forms, ALLOWED)
    return figures(title, forms, {chosen.name: (target, "<= 0.3")} if chosen else {})


if __name__ == "__main__":
    Path(CACHE).mkdir(parents=True, exist_ok=True)
    main(sys.argv[1:])
