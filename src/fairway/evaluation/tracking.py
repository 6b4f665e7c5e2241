"""A report in MLflow: one run with metrics and their intervals, digests as tags, and the report's files."""

from __future__ import annotations

import logging
import math
import os
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from fairway.core.errors import ServerUnavailable
from fairway.core.extras import require
from fairway.core.metrics import Measurement

if TYPE_CHECKING:
    from fairway.evaluation.report import Report

_BATCH = 900
"""MLflow takes 1,000 metrics at a time."""

_VALUE = 5_000
_MODEST = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Unless the environment says otherwise: no usage data to anybody, no chatter, and no minutes of waiting for a dead server."""


def log_report(report: Report, uri: str, experiment: str = "") -> str:
    """Log a report as one run of MLflow.

    Parameters
    ----------
    report : Report
    uri : str
        Of the tracking server or store.
    experiment : str
        Made if it is not there yet. Empty: the model's name.

    Returns
    -------
    str
        The run's id.

    Raises
    ------
    MissingExtra
        If MLflow is not installed.
    ServerUnavailable
        If it cannot be logged. The message holds no password.
    """
    for name, value in _MODEST.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own dependencies
        tracking = require("mlflow.tracking", extra="mlflow")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        try:
            return _log(tracking.MlflowClient(tracking_uri=uri), report, experiment or report.model)
        except Exception as error:  # noqa: BLE001 (MLflow and its stores raise anything)
            raise ServerUnavailable(f"not logged to MLflow at {without_password(uri)}: {_said(error, uri)}") from None


def without_password(uri: str) -> str:
    """The same without what is secret in it.

    Examples
    --------
    >>> without_password("https://ann:secret@mlflow.example:5000/x?token=1")
    'https://mlflow.example:5000/x'
    >>> without_password("sqlite:///mlflow.db")
    'sqlite:///mlflow.db'
    """
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri.partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _log(client: Any, report: Report, experiment: str) -> str:
    found = client.get_experiment_by_name(experiment)
    place = found.experiment_id if found is not None else client.create_experiment(experiment)
    run = client.create_run(place, run_name=f"{report.model} {report.bundle[7:15]}", tags=_tags(report))
    number: str = run.info.run_id
    try:
        from mlflow.entities import Metric, Param

        metrics = [Metric(name, value, run.info.start_time, 0) for name, value in _metrics(report)]
        params = [Param(name, value[:_VALUE]) for name, value in _params(report).items()]
        client.log_batch(number, params=params)
        for start in range(0, len(metrics), _BATCH):
            client.log_batch(number, metrics=metrics[start : start + _BATCH])
        client.log_text(number, report.as_json().decode(), "evaluation.json")
        client.log_text(number, report.as_markdown(), "evaluation.md")
        client.log_text(number, report.as_html(), "evaluation.html")
    except BaseException:
        client.set_terminated(number, "FAILED")
        raise
    client.set_terminated(number, "FINISHED")
    return number


def _metrics(report: Report) -> Iterator[tuple[str, float]]:
    """``accuracy_score``, ``accuracy_score/low``, ``accuracy_score/high``; slices and changes under their own names."""
    for found in report.measurements:
        if found.error or not found.known:
            continue
        name = _name(found)
        for end, value in (("", found.value), ("/low", found.low), ("/high", found.high)):
            if math.isfinite(value):
                yield f"{name}{end}", value
    yield "gate/false_pass", report.verdict.false_pass
    yield "gate/false_fail", report.verdict.false_fail


def _name(found: Measurement) -> str:
    name = found.metric if found.at_rps is None else f"{found.metric}/at_{found.at_rps:g}_rps"
    name = f"change/{name}" if found.versus else name
    return f"slice/{re.sub(r'[^A-Za-z0-9_. -]', '_', found.slice)[:100]}/{name}" if found.slice else name


def _params(report: Report) -> dict[str, str]:
    settings = report.settings
    facts = {
        "task": report.task,
        "label": report.label,
        "data": report.origin,
        "rows": str(report.rows),
        "confidence": f"{settings.confidence:g}",
        "resamples": str(settings.resamples),
        "seed": str(settings.seed),
        "group": settings.group,
        "champion": report.champion.name if report.champion else "",
        **{f"gate.{name}": msgspec.json.encode(limit).decode() for name, limit in report.gate.items()},
    }
    return {name: value for name, value in facts.items() if value}


def _tags(report: Report) -> dict[str, str]:
    facts = {
        "fairway.verdict": str(report.verdict.outcome),
        "fairway.model": report.model,
        "fairway.bundle": report.bundle,
        "fairway.data": report.data,
        "fairway.champion": report.champion.bundle if report.champion else "",
        "mlflow.note.content": report.as_markdown()[:_VALUE],
        "mlflow.source.name": "fairway evaluate",
    }
    return {name: value for name, value in facts.items() if value}


def _said(error: Exception, uri: str) -> str:
    """The first line of what went wrong, with no secret of the address in it."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0].replace(uri, without_password(uri))
    parts = urlsplit(uri)
    for secret in filter(None, (parts.password, parts.username, parts.query)):
        said = said.replace(secret, "…")
    return re.sub(r"//[^/@\s]*@", "//", said)[:300]
