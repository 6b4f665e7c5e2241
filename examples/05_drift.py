"""Drift from your own rows, without any server: tell the observer what was answered, and ask whether it still fits."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fairway
from fairway.core.events import Served
from fairway.monitoring.baseline import Baseline, decode_baseline, make_baseline
from fairway.monitoring.drift import drift
from fairway.monitoring.observer import Observer
from fairway.monitoring.report import DriftReport
from fairway.monitoring.settings import MonitorSettings
from fairway.registry.records import Window
from fairway.testing.builders import linear_bundle

SETTINGS = MonitorSettings(window_s=60.0, min_rows=300)


def main() -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        bundle = linear_bundle(Path(folder) / "sign", name="sign", weights=[[-1, 1], [-1, 1]], bias=[0, 0])
        with fairway.load(bundle) as model:
            # What the model was made for: kept in its bundle by `fairway pack`, made by hand here.
            known = rng.normal(size=(2_000, 2)).astype(np.float32)
            baseline = decode_baseline(make_baseline(model, {"x": known}, SETTINGS))

            same = rng.normal(size=(2_000, 2)).astype(np.float32)
            calm = watch(model, baseline, [same])
            print(f"rows as it knows them: {calm.outcome}")
            assert calm.outcome == "no drift"

            # Within five minutes the first feature grows to almost twice its size.
            growing = [np.array([1 + 0.2 * minute, 1], np.float32) for minute in range(5)]
            moved = watch(model, baseline, [rng.normal(size=(600, 2)).astype(np.float32) * by for by in growing])
            print(moved.as_text())
            assert moved.outcome == "drift"


def watch(model: fairway.Model, baseline: Baseline, batches: list[NDArray[np.float32]]) -> DriftReport:
    """One batch a minute through the observer, as a server would: what it stores is small however many rows come."""
    windows: list[Window] = []
    now = [0.0]
    observer = Observer(
        windows.append, replica="mine", baselines=lambda *_: baseline, settings=SETTINGS, clock=lambda: now[0]
    )
    for rows in batches:
        answers = model.infer({"x": rows})
        observer.served(Served("sign", "1", len(rows), {"x": rows}, answers, [1.0]))
        now[0] += 60.0
        observer.tick()
    observer.close()
    print(f"{sum(map(len, batches)):,} rows became {sum(len(window.features) for window in windows):,} bytes")
    return drift(baseline, windows, SETTINGS)


if __name__ == "__main__":
    main()
