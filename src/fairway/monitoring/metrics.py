"""What Prometheus sees of windows and drift. Series stay bounded: one per version, or per shown feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

from fairway.monitoring.report import DriftReport
from fairway.registry.records import Window

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_VERSION = ("model", "version")


class MonitorMetrics:
    """Gauges of the latest window and the latest drift report. Thread-safe, as prometheus_client's metrics are.

    Parameters
    ----------
    registry : CollectorRegistry
        Where they are registered.

    Notes
    -----
    A :class:`~fairway.monitoring.observer.WindowListener`: pass it to the observer. ``fairway_drift_effect_bits`` has the
    features that the report shows (``monitor.top_features``) and no others: those that fall out of it are removed.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rows = Gauge("fairway_window_rows", "Rows served in the last window", _VERSION, registry=registry)
        self._sampled = Gauge(
            "fairway_window_sampled_ratio",
            "Share of the last window's answered rows whose features were counted",
            _VERSION,
            registry=registry,
        )
        self._dropped = Counter(
            "fairway_windows_dropped", "Windows lost because they could not be stored for too long", registry=registry
        )
        self._effect = Gauge(
            "fairway_drift_effect_bits",
            "Jensen-Shannon divergence of a feature from its baseline in the latest look",
            (*_VERSION, "feature"),
            registry=registry,
        )
        self._drift = Gauge(
            "fairway_drift_features", "Features that drifted in the latest look", _VERSION, registry=registry
        )
        self._looks = Gauge("fairway_drift_looks", "Looks judged so far", _VERSION, registry=registry)
        self._shown: dict[tuple[str, str], set[str]] = {}

    def closed(self, window: Window, *, rows: int, counted: int, skipped: int) -> None:
        """Show the window that just closed."""
        labels = window.model, str(window.version)
        self._rows.labels(*labels).set(rows)
        if counted + skipped:
            self._sampled.labels(*labels).set(counted / (counted + skipped))

    def dropped(self, windows: int) -> None:
        """Count ``windows`` more that were lost."""
        self._dropped.inc(windows)

    def judged(self, report: DriftReport) -> None:
        """Show the latest look of ``report``. Without one, nothing is shown: no data is not zero drift."""
        if not report.looks:
            return
        version = report.model, str(report.version)
        latest = report.looks[-1]
        self._looks.labels(*version).set(latest.number)
        self._drift.labels(*version).set(len(latest.drifted))
        for feature, effect in latest.effects.items():
            self._effect.labels(*version, feature).set(effect)
        for feature in self._shown.get(version, set()) - set(latest.effects):
            self._effect.remove(*version, feature)
        self._shown[version] = set(latest.effects)
