"""The report of an evaluation, as data. JSON, text, Markdown, JUnit and HTML are made from it alone."""

from __future__ import annotations

from typing import Any

import msgspec

from fairway.core.errors import InvalidData, NewerFormat
from fairway.core.gate import Limit, Verdict
from fairway.core.latency import LatencyProfile
from fairway.core.metrics import Measurement
from fairway.evaluation.analyses.found import Analyses
from fairway.evaluation.comparison import Comparison
from fairway.evaluation.diagnostics import CalibrationBin, Confusion, Residuals
from fairway.evaluation.settings import EvaluationSettings

FORMAT = 1
"""The report format that this version writes, and the newest that it reads."""


class SliceReport(msgspec.Struct, frozen=True):
    """A declared slice and how many rows it has."""

    name: str
    where: str
    rows: int


class ChampionReport(msgspec.Struct, frozen=True):
    """What the model was compared with, measured on the same rows."""

    name: str
    bundle: str
    measurements: tuple[Measurement, ...]


class Report(msgspec.Struct, frozen=True):
    """How good a model is, how sure that is, and what the gate says.

    Attributes
    ----------
    model, task : str
    bundle, data : str
        Digests of the bundle and of the data.
    origin : str
        Where the data were read from.
    label : str
    rows : int
    measurements : tuple of Measurement
        Over all rows, then in slices, then differences to the champion (``versus``; over all rows, then in slices), then
        performance.
    slices : tuple of SliceReport
    gate : dict of str to Limit
    verdict : Verdict
    label_counts : dict of str to int
        Rows per class; empty for regression.
    confusion : Confusion or None
    calibration : tuple of CalibrationBin
    residuals : Residuals or None
    champion : ChampionReport or None
    settings : EvaluationSettings
    environment : dict of str to str
    comparisons : tuple of Comparison
        Whether the model is better than the champion, per metric and slice; empty without a champion.
    groups : int
        How many groups the rows are of, if ``settings.group`` names them; else 0.
    analyses : Analyses
        What was looked for beyond metrics.
    latency : tuple of LatencyProfile
        The distribution of latencies, as served, at each load.
    """

    model: str
    task: str
    bundle: str
    data: str
    origin: str
    label: str
    rows: int
    measurements: tuple[Measurement, ...]
    slices: tuple[SliceReport, ...]
    gate: dict[str, Limit]
    verdict: Verdict
    label_counts: dict[str, int]
    confusion: Confusion | None
    calibration: tuple[CalibrationBin, ...]
    residuals: Residuals | None
    champion: ChampionReport | None
    settings: EvaluationSettings
    environment: dict[str, str]
    format: int = FORMAT
    comparisons: tuple[Comparison, ...] = ()
    groups: int = 0
    analyses: Analyses = Analyses()
    latency: tuple[LatencyProfile, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the gate lets the model through."""
        return self.verdict.passed

    def measurement(self, metric: str, *, part: str = "", versus: bool = False) -> Measurement | None:
        """The first measurement of a metric, in a slice or over all rows, of the model or of its difference."""
        found = (m for m in self.measurements if (m.metric, m.slice, bool(m.versus)) == (metric, part, versus))
        return next(found, None)

    def comparison(self, metric: str, *, part: str = "") -> Comparison | None:
        """The comparison with the champion by one metric, in a slice or over all rows."""
        return next((c for c in self.comparisons if (c.metric, c.slice) == (metric, part)), None)

    def as_json(self) -> bytes:
        """UTF-8 JSON that :meth:`from_json` reads."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, raw: bytes | str) -> Report:
        """Read a report, such as a bundle's ``evaluation.json``. Raises :class:`InvalidData` or :class:`NewerFormat`."""
        try:
            made_by: Any = msgspec.json.decode(raw)
            number = made_by.get("format", 0) if isinstance(made_by, dict) else 0
            if isinstance(number, int) and number > FORMAT:
                raise NewerFormat(
                    f"this report is of format {number}, and this Fairway reads up to {FORMAT}; "
                    "upgrade: pip install -U fairway"
                )
            return msgspec.json.decode(raw, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidData(f"this is no evaluation report ({error}); make one with: fairway evaluate") from None

    def as_text(self) -> str:
        """Plain text for a terminal, at most 100 columns."""
        from fairway.evaluation.report_text import render_text

        return render_text(self)

    def as_html(self) -> str:
        """One self-contained page."""
        from fairway.evaluation.report_html import render_html

        return render_html(self)

    def as_markdown(self) -> str:
        """GitHub-flavored Markdown for a pull request, short enough for a comment."""
        from fairway.evaluation.report_markdown import render_markdown

        return render_markdown(self)

    def as_junit(self) -> str:
        """JUnit XML: one test case per finding of the gate."""
        from fairway.evaluation.report_junit import render_junit

        return render_junit(self)
