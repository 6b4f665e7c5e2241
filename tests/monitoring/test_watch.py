"""Judging windows as they close gives the looks that judging the whole history gives."""

from __future__ import annotations

import numpy as np
from prometheus_client import CollectorRegistry

from fairway.monitoring.drift import drift
from fairway.monitoring.metrics import MonitorMetrics
from fairway.monitoring.settings import MonitorSettings
from fairway.monitoring.watch import DriftWatch
from fairway.registry.records import Window
from tests.monitoring.test_drift import baseline_of, window_of


def test_looks_taken_one_by_one_are_those_of_the_whole_history() -> None:
    rng = np.random.default_rng(0)
    settings = MonitorSettings(min_rows=300, min_effect=0.0)
    baseline = baseline_of(rng.normal(size=(2000, 4)), settings)
    windows = [window_of(baseline, n, rng.normal(loc=0.0 if n < 4 else 1.0, size=(200, 4))) for n in range(9)]
    stored: list[Window] = []
    exported = CollectorRegistry()

    def read(model: str, version: int, since: float | None) -> list[Window]:
        return [w for w in stored if (w.model, w.version) == (model, version) and (since is None or w.ended_at > since)]

    watch = DriftWatch(
        MonitorMetrics(exported), read, lambda _model, _version: 0, lambda _model, _version: baseline, settings
    )
    for window in windows:
        stored.append(window)
        watch.closed(window, rows=200, counted=200, skipped=0)
        whole = drift(baseline, stored, settings)
        labels = {"model": window.model, "version": str(window.version)}
        if not whole.looks:
            assert exported.get_sample_value("fairway_drift_looks", labels) is None
            continue
        assert exported.get_sample_value("fairway_drift_looks", labels) == len(whole.looks)
        assert exported.get_sample_value("fairway_drift_features", labels) == len(whole.looks[-1].drifted)
    assert whole.looks[-1].drifted


def test_looks_go_on_after_the_periods_that_are_no_longer_kept() -> None:
    rng = np.random.default_rng(0)
    settings = MonitorSettings(min_rows=300)
    baseline = baseline_of(rng.normal(size=(2000, 4)), settings)
    window = window_of(baseline, 0, rng.normal(size=(300, 4)))
    exported = CollectorRegistry()
    watch = DriftWatch(MonitorMetrics(exported), lambda *_: [window], lambda *_: 40_000, lambda *_: baseline, settings)
    watch.closed(window, rows=300, counted=300, skipped=0)
    labels = {"model": window.model, "version": str(window.version)}
    assert exported.get_sample_value("fairway_drift_looks", labels) == 40_001
