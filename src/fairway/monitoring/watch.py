"""Drift as gauges: each window is judged once, when it closes, at the cost of that window alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairway.monitoring.baseline import Baseline
from fairway.monitoring.drift import drift
from fairway.monitoring.metrics import MonitorMetrics
from fairway.monitoring.settings import MonitorSettings
from fairway.registry.records import Window


class DriftWatch:
    """A :class:`~fairway.monitoring.observer.WindowListener` that judges a version whenever one of its windows closes.

    It keeps the windows that no look has judged yet, and the number of looks before them, so that looks and their
    allowances are those of the whole history. A window that another replica stores after the look that it belongs to is
    left to ``fairway observe``, which always judges the whole.

    Parameters
    ----------
    metrics : MonitorMetrics
    windows : callable
        A version's stored windows that ended after a time (``None``: all): the registry's ``windows``.
    forgotten : callable
        How many periods of a version's windows are no longer stored: the registry's ``forgotten_periods``.
    baselines : callable
        The baseline of a model's version, or ``None``.
    settings : MonitorSettings
    """

    def __init__(
        self,
        metrics: MonitorMetrics,
        windows: Callable[[str, int, float | None], Sequence[Window]],
        forgotten: Callable[[str, int], int],
        baselines: Callable[[str, str], Baseline | None],
        settings: MonitorSettings,
    ) -> None:
        self._metrics = metrics
        self._windows = windows
        self._forgotten = forgotten
        self._baselines = baselines
        self._settings = settings
        self._judged_until: dict[tuple[str, int], float] = {}
        self._looks: dict[tuple[str, int], int] = {}

    def closed(self, window: Window, *, rows: int, counted: int, skipped: int) -> None:
        """Show the window, and judge what its version has stored since the last look."""
        self._metrics.closed(window, rows=rows, counted=counted, skipped=skipped)
        self._judge(window.model, window.version)

    def dropped(self, windows: int) -> None:
        """Count windows that were lost."""
        self._metrics.dropped(windows)

    def _judge(self, model: str, version: int) -> None:
        key = model, version
        until = self._judged_until.get(key)
        stored = self._windows(model, version, until)
        looks = self._forgotten(model, version) if until is None else self._looks[key]
        fresh = [window for window in stored if until is None or window.started_at >= until]
        if not fresh:
            return
        report = drift(self._baselines(model, str(version)), fresh, self._settings, first_look=looks + 1)
        if report.looks:
            self._judged_until[key] = report.looks[-1].ended_at
            self._looks[key] = looks + len(report.looks)
            self._metrics.judged(report)
