"""Reports say the verdict first, in every form; Prometheus sees a bounded number of series."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from fairway.core.events import EventSink
from fairway.monitoring.drift import drift
from fairway.monitoring.metrics import MonitorMetrics
from fairway.monitoring.observer import Observer
from fairway.monitoring.report import DriftReport
from fairway.monitoring.settings import MonitorSettings
from fairway.registry.records import Window
from tests.conftest import Digits
from tests.monitoring.conftest import Watched


@pytest.fixture
def drifted(watched: Watched, digits: Digits) -> DriftReport:
    windows = [watched.window(at, digits.x_test * np.float32(1 if at < 2 else 0.5), errors=at) for at in range(4)]
    return drift(watched.baseline, windows)


@pytest.fixture
def steady(watched: Watched, digits: Digits) -> DriftReport:
    return drift(watched.baseline, [watched.window(0, digits.x_test)])


def test_text_starts_with_the_verdict_and_names_what_moved(drifted: DriftReport) -> None:
    lines = drifted.as_text().splitlines()
    assert lines[0].startswith("DRIFT  digits:1: ")
    assert "row 1,350 (look 3 of 4), and lasts" in lines[0]
    assert "1,806, 0.33% unanswered" in drifted.as_text()
    table = [line for line in lines if line.strip().startswith("DRIFT  pixel_")]
    assert len(table) >= 8
    assert all("bits" in line and "█" in line and "mean" in line for line in table)


def test_drift_that_went_away_is_still_told(watched: Watched, digits: Digits) -> None:
    windows = [watched.window(at, digits.x_test * np.float32(0.5 if at == 0 else 1)) for at in range(2)]
    report = drift(watched.baseline, windows)
    assert report.drifted
    assert report.shown == 0
    assert "not in the latest look" in report.reason


def test_json_holds_everything(drifted: DriftReport) -> None:
    assert DriftReport.from_json(drifted.as_json()) == drifted
    data = json.loads(drifted.as_json())
    assert (data["outcome"], data["model"], data["errors"]) == ("drift", "digits", 6)


def test_json_stays_small_however_many_looks(watched: Watched, digits: Digits) -> None:
    window = watched.window(0, digits.x_test)
    many = [Window("digits", 1, "a", 60.0 * n, 60.0 * n + 60, window.traffic, window.features) for n in range(200)]
    assert len(drift(watched.baseline, many).as_json()) < 200 * 600 + 60_000


def test_the_page_stands_alone_and_shows_the_plots(drifted: DriftReport) -> None:
    page = drifted.as_html()
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 1 + MonitorSettings().top_features
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert "✗ Drift" in page


def test_the_page_escapes_what_callers_name(watched: Watched, digits: Digits) -> None:
    window = watched.window(0, digits.x_test)
    odd = Window("<script>alert(1)</script>", 1, "a", 0.0, 60.0, window.traffic, window.features)
    assert "<script>" not in drift(watched.baseline, [odd]).as_html()


def test_the_page_of_an_inconclusive_report_says_what_to_do(watched: Watched) -> None:
    assert "judgment needs 300" in drift(watched.baseline, []).as_html()
    assert "pack it again" in drift(None, []).as_html()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_renders_without_errors_or_overflow(drifted: DriftReport, tmp_path: Path, scheme: str) -> None:
    from tests.monitoring.browser import open_page

    path = tmp_path / "drift.html"
    path.write_text(drifted.as_html(), "utf-8")
    with open_page(path, scheme=scheme, width=390) as (page, problems):
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.locator("svg").count() == 11
        assert page.locator("tbody tr").count() == 20
        assert problems == []


def test_prometheus_sees_only_the_features_that_moved_most(
    watched: Watched, digits: Digits, drifted: DriftReport
) -> None:
    registry = CollectorRegistry()
    metrics = MonitorMetrics(registry)
    metrics.judged(drifted)
    metrics.judged(drift(watched.baseline, [watched.window(0, digits.x_test)]))
    series = [
        line for line in generate_latest(registry).decode().splitlines() if line.startswith("fairway_drift_effect")
    ]
    assert len(series) == MonitorSettings().top_features
    assert registry.get_sample_value("fairway_drift_features", {"model": "digits", "version": "1"}) == 0


def test_prometheus_sees_the_size_and_the_sampled_share_of_windows(watched: Watched, digits: Digits) -> None:
    registry = CollectorRegistry()
    metrics = MonitorMetrics(registry)
    labels = {"model": "digits", "version": "1"}
    metrics.closed(watched.window(0, digits.x_test), rows=450, counted=90, skipped=360)
    assert registry.get_sample_value("fairway_window_rows", labels) == 450
    assert registry.get_sample_value("fairway_window_sampled_ratio", labels) == 0.2


def test_without_a_look_prometheus_sees_no_drift_series(watched: Watched) -> None:
    registry = CollectorRegistry()
    MonitorMetrics(registry).judged(drift(watched.baseline, []))
    assert b"fairway_drift_features{" not in generate_latest(registry)


def test_the_observer_is_an_event_sink_that_imports_nothing_heavy() -> None:
    sink: EventSink = Observer(lambda window: None, replica="a")
    assert sink
    code = "import sys, fairway.monitoring.observer, fairway.monitoring.drift, fairway.monitoring.metrics; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"scipy", "sklearn", "pyarrow", "duckdb", "matplotlib", "jinja2", "onnx", "sqlalchemy", "torch"} & set(
        loaded
    )
