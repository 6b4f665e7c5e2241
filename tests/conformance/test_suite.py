"""The suite itself: it passes a server that is right, and catches each fault by the case that is meant for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fairway.testing.conformance import ConformanceFailure, Target, cases, run, standard_models, write_models
from fairway.testing.conformance.__main__ import main
from tests.conformance.faulty import running

FAULTS = {
    "metadata lacks extensions": "server.metadata",
    "never ready": "health.ready",
    "every model is ready": "model.ready.unknown",
    "sizes are texts": "model.metadata",
    "detail for error": "infer.wrong.model",
    "200 for errors": "infer.wrong.count",
    "null id": "infer.id.null",
    "id is lost": "infer.id.echo",
    "outputs are not selected": "infer.outputs.subset",
    "inputs go by position": "infer.two",
    "flat shape": "infer.identity",
    "nested data is refused": "infer.data.nested",
    "counts are not checked": "infer.wrong.count",
    "integers pass through floats": "data.json.precise.INT64",
    "integers wrap": "data.range.UINT8",
    "big endian": "data.binary.FP32",
    "bytes left over are ignored": "binary.left_over",
    "rows are swapped": "concurrency.rows",
    "rows are cut": "batch.many_rows",
}
BY_ID = {case.id: case for case in cases("robust")}


def test_a_server_that_is_right_conforms() -> None:
    with running() as url, Target(url) as target:
        report = run(target, "oip")
    assert report.passed, report.as_text()
    assert report.count("passed") > 50
    assert (report.server, report.exit_code) == ("small", 0)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_caught_by_the_case_meant_for_it(fault: str) -> None:
    case = BY_ID[FAULTS[fault]]
    with running() as url, Target(url, assume_all=True) as target:
        case.run(target)
    with running(fault) as url, Target(url, assume_all=True) as target, pytest.raises(ConformanceFailure) as caught:
        case.run(target)
    assert caught.value.sent
    assert caught.value.rule == case.rule


def test_every_case_has_a_rule_in_words_and_an_id_of_its_own() -> None:
    assert all(case.rule.endswith(".") and len(case.rule) > 20 for case in cases("robust"))
    assert len(BY_ID) == len(cases("robust"))
    levels = [{case.level for case in cases(suite)} for suite in ("oip", "triton", "robust")]
    assert [len(found) for found in levels] == [1, 2, 3]


def test_a_server_that_stops_answering_ends_the_run() -> None:
    with running() as url:
        pass
    with Target(url, model="identity_fp32") as target:
        report = run(target, "oip", patience_s=0.1)
    assert report.count("failed") == 1
    assert report.count("not run") > 50
    assert not report.passed


def test_without_a_model_only_what_needs_none_is_offered() -> None:
    with running() as url, Target(url, model="nobody") as target:
        report = run(target, "oip", only=lambda case: case.id.startswith("model."))
    assert report.count("not offered") > 0
    assert any("--model" in result.why for result in report.results)


def test_the_program_prints_a_table_and_writes_junit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junit = tmp_path / "report.xml"
    with running("id is lost") as url:
        code = main([url, "--level", "oip", "--only", "infer.id", "--junit", str(junit)])
    printed = capsys.readouterr().out
    assert code == 1
    assert "✗ infer.id.echo (required)" in printed
    assert "rule: OIP, inference response: the request's id comes back." in printed
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("failures"), suite.get("tests")) == ("1", str(len(suite)))


def test_the_program_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as url:
        assert main([url, "--level", "oip", "--only", "server", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is True
    assert document["results"][0]["id"] == "server.metadata"


def test_the_program_says_that_no_server_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as url:
        pass
    assert main([url]) == 4
    assert "no server answers" in capsys.readouterr().err


def test_nothing_offered_is_inconclusive() -> None:
    with running() as url:
        assert main([url, "--only", "grpc.live"]) == 2


def test_wrong_options_are_a_mistake() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fairway.testing.conformance", "nowhere"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "give the URL" in done.stderr


@pytest.mark.parametrize("layout", ["triton", "triton-python", "bundle"])
def test_the_models_are_written_in_every_layout(tmp_path: Path, layout: str) -> None:
    folders = write_models(tmp_path, layout)  # type: ignore[arg-type]
    names = {folder.name.split(".")[0] for folder in folders}
    assert names == {model.name for model in standard_models()}
    file = {"triton": "1/model.onnx", "triton-python": "1/model.py", "bundle": "manifest.json"}[layout]
    assert (folders[0] / file).stat().st_size > 0


def test_cases_can_be_imported_after_they_were_listed() -> None:
    import fairway.testing.conformance as suite

    suite.cases("oip")
    assert callable(suite.cases)
