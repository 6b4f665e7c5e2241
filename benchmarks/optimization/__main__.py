"""``make bench-optimization``: what each form of a text and of a vision model gains, and what it costs in accuracy.

Parts: ``text``, ``vision`` and ``resnet50`` make forms by name; ``students`` have a third of the layers; ``search`` chooses by
itself, ``sweep`` compares that with trying everything, ``tiny`` has nothing to gain. All of them, unless some are named.
Needs torch. The first run trains (about an hour); what is trained is kept in ``.bench``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Figure, figure, report
from benchmarks.models import vision_bundle
from benchmarks.optimization.corpus import LIBRARIES
from benchmarks.optimization.forms import ORIGINAL, Form, best, change, figures, make, race, score
from benchmarks.optimization.olive import olive
from benchmarks.optimization.search import automatic, beside_a_sweep, nothing_pays
from benchmarks.optimization.students import students
from benchmarks.optimization.tables import CACHE
from benchmarks.optimization.text import text
from benchmarks.optimization.vision import digits, vision
from fairway.bundle.format import Bundle, read_bundle
from fairway.core.gate import Gate, Limit
from fairway.core.processor import int8_sums
from fairway.core.tensors import Tensors
from fairway.model import Model
from fairway.optimization.passes.base import Sample
from fairway.sources.convert import convert
from fairway.sources.tables import make_table

CALIBRATION, TEST, BATCH, ALLOWED = 256, 2_000, 16, 0.5
_PACKAGES = ("fairway", "onnxruntime", "openvino", "nncf", "torch", "transformers")
PLACE = "" if int8_sums() == "exact" else "_no_vnni"
"""What tells results apart: int8 gains half as much on a CPU without instructions for it."""
TEXT = (
    "graph", "fused", "int8-dynamic", "fused-int8-dynamic", "fused-int8-smooth", "fused-int8-mixed", "openvino",
    "openvino-bf16", "openvino-int8", "fused-openvino-int8", "fewer-tokens", "fewer-tokens-int8", "fewer-tokens-openvino-int8",
)  # fmt: skip
VISION = ("graph", "int8-static", "int8-percentile", "openvino", "openvino-bf16", "openvino-int8")


def main(parts: list[str]) -> None:
    missed = False
    for part in parts or list(_PARTS):
        try:
            report(f"optimization_{part}{PLACE}", _PARTS[part](), _PACKAGES)
        except SystemExit as ended:
            missed |= bool(ended.code)
    sys.exit(missed)


def _text() -> list[Figure]:
    source, feed, labels, sample = _text_task()
    forms = make(source, TEXT, sample, CACHE / "text-forms")
    score(forms, feed, labels)
    _race_text(forms, feed)
    return _told("text", forms, ">= 3.5")


def _students() -> list[Figure]:
    """Half the layers: taught, and from the labels alone; then in the form that is fastest without retraining."""
    source, feed, labels, sample = _text_task()
    forms = [Form(ORIGINAL, source)]
    for name, student in zip(("taught", "untaught"), students(), strict=True):
        made = make(student, ["fused-openvino-int8"], sample, CACHE / f"{name}-forms")
        forms += [Form(f"{name} student", student), *(Form(f"{name} student, {f.name}", f.bundle) for f in made[1:])]
    score(forms, feed, labels)
    _race_text(forms, feed)
    taught, untaught = (next(f for f in forms if f.name == f"{name} student") for name in ("taught", "untaught"))
    fast = next((f for f in forms if f.name == "taught student, fused-openvino-int8"), None)
    targets = {taught.name: (">= 2", "")} | ({fast.name: (">= 6", "<= 0.3")} if fast else {})
    return [*figures("text", forms, targets), change("text", taught, untaught, ">= 0")]


def _search() -> list[Figure]:
    """What ``fairway optimize`` chooses by itself, beside the best that Olive's passes make of the same model and rows."""
    source, feed, labels, sample = _text_task()
    names = ("reference", "test")
    tables = {
        name: {"text": texts, "label": [LIBRARIES[i] for i in classes]}
        for name, (texts, classes) in zip(names, text()[1:], strict=True)
    }
    chosen, told = automatic("text", source, tables, "accuracy_score = { max_drop = 0.005 }", CACHE / "search-text")
    others, seconds = olive(source, sample.feed, 600, CACHE / "olive-text")
    forms = [Form(ORIGINAL, source), chosen, *others]
    score(forms, feed, labels)
    _race_text(forms, feed)
    found = [*told, *figures("text", forms, {chosen.name: (">= 3.5", "<= 0.3")})]
    rival = best([forms[0], *others], ALLOWED)
    if rival is None:
        return found
    ratios = [their / own for own, their in zip(chosen.seconds[BATCH], rival.seconds[BATCH], strict=True)]
    return [
        *found,
        figure("text: Olive's time", [seconds], "s"),
        figure(f"text: throughput of what the search chose beside {rival.name}", ratios, "x", ">= 1"),
    ]


def _sweep() -> list[Figure]:
    source = vision()
    x_train, x_test, _, y_test = digits()
    name = source.manifest.inputs[0].name
    table = make_table({name: x_test, "label": np.array([str(y) for y in y_test])})
    sample = Sample({name: x_train[:CALIBRATION]}, CALIBRATION)
    gate: Gate = {"accuracy_score": Limit(max_drop=0.02)}
    (searched, swept), told = beside_a_sweep("vision", source, table, gate, sample, CACHE / "sweep")
    race([swept, searched], {name: x_test}, rows=BATCH, rounds=15, calls=2)
    ratios = [own / base for own, base in zip(searched.seconds[BATCH], swept.seconds[BATCH], strict=True)]
    return [*told, figure("vision: what the search found", ratios, "x the time of what the sweep found", "<= 1.05")]


def _tiny() -> list[Figure]:
    """Logistic regression."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    x, y = load_digits(return_X_y=True)
    names = [str(each) for each in y]
    columns = {"x": list(x.astype(np.float32)), "label": names}
    made = CACHE / "tiny.fairway"
    if not made.is_dir():
        model = LogisticRegression(max_iter=500).fit(x[:900], names[:900])
        rows = make_table({"x": x[:900].astype(np.float32), "label": names[:900]})
        convert(model, destination=made, name="tiny", task="classification", reference=rows, label="label")
    halves = {"reference": slice(0, 900), "test": slice(900, None)}
    tables = {part: {key: value[rows] for key, value in columns.items()} for part, rows in halves.items()}
    return nothing_pays(read_bundle(made), tables, "accuracy_score = { max_drop = 0.01 }", CACHE / "search-tiny")


def _text_task() -> tuple[Bundle, Tensors, Any, Sample]:
    """The bundle, test rows as its graph gets them, their classes, and rows that calibrate."""
    source, (train, _), (texts, labels) = text()
    with Model(source) as model:
        feed = model.prepare({"text": np.array([t.encode() for t in texts[:TEST]], object)})
        calibration = model.prepare({"text": np.array([t.encode() for t in train[:CALIBRATION]], object)})
    return source, feed, labels[:TEST], Sample(calibration, CALIBRATION)


def _race_text(forms: list[Form], feed: Tensors) -> None:
    """On texts of all 64 tokens."""
    full = {name: array[feed["attention_mask"].all(axis=1)] for name, array in feed.items()}
    race(forms, full, rows=1, rounds=11, calls=4)
    race(forms, full, rows=BATCH, rounds=7, calls=1)


def _vision() -> list[Figure]:
    source = vision()
    x_train, x_test, _, y_test = digits()
    name = source.manifest.inputs[0].name
    forms = make(source, VISION, Sample({name: x_train[:CALIBRATION]}, CALIBRATION), CACHE / "vision-forms")
    score(forms, {name: x_test}, y_test)
    race(forms, {name: x_test}, rows=1, rounds=15, calls=8)
    race(forms, {name: x_test}, rows=BATCH, rounds=15, calls=2)
    return _told("vision", forms, ">= 2.5")


def _resnet50() -> list[Figure]:
    """Random weights: speed and size only."""
    path = CACHE / "resnet50.fairway"
    source = read_bundle(path) if path.is_dir() else vision_bundle(path)
    feed: Tensors = {"x": np.random.default_rng(0).normal(size=(16, 3, 224, 224)).astype(np.float32)}
    forms = make(source, VISION, Sample(feed, 16), CACHE / "resnet50-forms")
    race(forms, feed, rows=1, rounds=7, calls=1)
    return _told("ResNet-50", forms, ">= 2.5")


def _told(title: str, forms: list[Form], target: str) -> list[Figure]:
    """Targets are those of the fastest form within the allowed loss of accuracy."""
    chosen: Any = best(forms, ALLOWED)
    return figures(title, forms, {chosen.name: (target, "<= 0.3")} if chosen else {})


_PARTS: dict[str, Callable[[], list[Figure]]] = {
    "text": _text, "vision": _vision, "resnet50": _resnet50, "students": _students, "search": _search, "sweep": _sweep,
    "tiny": _tiny,
}  # fmt: skip


if __name__ == "__main__":
    Path(CACHE).mkdir(parents=True, exist_ok=True)
    main(sys.argv[1:])
