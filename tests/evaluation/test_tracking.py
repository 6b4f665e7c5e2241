"""Evaluations in a real MLflow store; what cannot be logged is said, without secrets, and costs nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fairway.core.errors import ServerUnavailable
from fairway.core.metrics import Measurement
from fairway.evaluation.report import Report
from fairway.evaluation.tracking import log_report
from tests.projects import run_here

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of MLflow's own dependencies
    pytest.mark.timeout(120),
]
pytest.importorskip("mlflow.tracking", reason="the extra mlflow is not installed")


def test_a_run_holds_metrics_intervals_digests_and_the_report(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    many = tuple(Measurement("accuracy_score", 0.9, 0.8, 1.0, n=9, slice=f"part/{n} ö") for n in range(400))
    whole = msgspec.structs.replace(report, measurements=(*report.measurements, *many))
    number = log_report(whole, uri)
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(number)
    accuracy = report.measurement("accuracy_score")
    assert accuracy is not None
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == "digits"
    assert run.data.metrics["accuracy_score"] == accuracy.value
    assert run.data.metrics["accuracy_score/low"] == accuracy.low
    assert "latency_p99_ms/at_200_rps" in run.data.metrics
    assert len(run.data.metrics) > 1_200
    assert run.data.tags["fairway.bundle"] == report.bundle
    assert run.data.tags["fairway.verdict"] == report.verdict.outcome
    assert run.data.params["rows"] == "450"
    kept = client.download_artifacts(number, "evaluation.json", str(tmp_path))
    assert Report.from_json(Path(kept).read_bytes()) == whole
    assert {each.path for each in client.list_artifacts(number)} >= {"evaluation.html", "evaluation.md"}


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server that is not there."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return "http://ann:hush-hush@127.0.0.1:9/"


def test_what_cannot_be_logged_tells_no_password(report: Report, nobody: str) -> None:
    with pytest.raises(ServerUnavailable, match=r"not logged to MLflow at http://127\.0\.0\.1:9") as refused:
        log_report(report, nobody)
    assert "hush" not in str(refused.value)
    assert "ann" not in str(refused.value)


def test_failing_to_log_changes_neither_the_report_nor_the_exit_code(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, nobody: str
) -> None:
    answer = run_here(capfd, "evaluate", "--json", "--junit", "r.xml", "--mlflow", nobody)
    assert answer.code == 0, answer.err
    assert answer.document["verdict"]["outcome"] == "passed"
    assert (folder / "r.xml").is_file()
    assert "not logged to MLflow" in caplog.text
