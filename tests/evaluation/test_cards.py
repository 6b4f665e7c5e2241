"""Model cards are read by those whose forms they have: the Hugging Face Hub's library, and CycloneDX's own schema."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import fairway
from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidConfig
from fairway.evaluation.cards import FORMS, card_files, render_card
from fairway.evaluation.report import Report
from fairway.loop.models import find_bundle
from tests.projects import run_here


def schema_errors(document: Any) -> list[str]:
    from jsonschema import Draft7Validator
    from referencing import Registry, Resource

    folder = files("cyclonedx") / "schema" / "_res"
    read = {
        name: json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text())
        for name in ("bom-1.6", "spdx", "jsf-0.82")
    }
    registry: Registry[Any] = Registry().with_resources(
        [
            (f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json", Resource.from_contents(s))
            for name, s in read.items()
        ]
        + [(f"http://cyclonedx.org/schema/{name}.schema.json", Resource.from_contents(s)) for name, s in read.items()]
    )
    return [error.message for error in Draft7Validator(read["bom-1.6"], registry=registry).iter_errors(document)]


def test_the_hub_reads_every_metric_with_its_interval(digits_bundle: Bundle, report: Report, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    file = tmp_path / "README.md"
    file.write_text(render_card(digits_bundle.manifest, report, "huggingface"), "utf-8")
    card = hub.ModelCard.load(file, ignore_metadata_errors=False)
    assert (card.data.library_name, card.data.pipeline_tag) == ("fairway", "tabular-classification")
    found = {each.metric_name: each for each in card.data.eval_results}
    accuracy = report.measurement("accuracy_score")
    assert accuracy is not None
    assert found["accuracy_score"].metric_value == pytest.approx(accuracy.value, abs=1e-6)
    assert found["accuracy_score"].metric_args["low"] == pytest.approx(accuracy.low, abs=1e-6)
    assert found["accuracy_score"].dataset_revision == report.data
    assert "latency_p99_ms" not in found
    assert card.content.count("\n# ") == 1
    assert str(report.verdict.outcome) in card.text


@pytest.mark.parametrize("evaluated", [True, False])
def test_the_bill_of_materials_keeps_cyclonedx_schema(digits_bundle: Bundle, report: Report, evaluated: bool) -> None:
    text = render_card(digits_bundle.manifest, report if evaluated else None, "cyclonedx")
    document = json.loads(text)
    assert schema_errors(document) == []
    assert schema_errors({**document, "specVersion": 7}) != []
    model = document["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert {each["name"]: each["hashes"][0]["content"] for each in model["components"]} == {
        "model.onnx": digits_bundle.manifest.files["model.onnx"].sha256
    }
    if evaluated:
        metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
        assert {"accuracy_score", "log_loss", "latency_p99_ms at 200/s"} <= {each["type"] for each in metrics}
        assert {each.get("slice") for each in metrics} == {None, "faint <ink>", "bold"}


def test_the_same_model_and_report_give_the_same_card(digits_bundle: Bundle, report: Report) -> None:
    assert card_files(digits_bundle.manifest, report) == card_files(digits_bundle.manifest, report)


def test_a_packed_bundle_holds_its_cards_and_the_command_prints_them(
    released: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = find_bundle(fairway.Project.find(released), "digits:1")
    for form, name in zip(FORMS, ("README.md", "bom.cdx.json"), strict=True):
        printed = run_here(capfd, "card", "digits:1", "--format", form)
        assert printed.code == 0, printed.err
        assert run_here(capfd, "card", "digits:1", "--format", form, "--out", "card").code == 0
        assert (released / "card").read_text().strip() == printed.out.strip()
        assert bundle.file(name).read_text().strip() == printed.out.strip()


def test_an_unknown_form_names_the_known_ones(folder: Path) -> None:
    with pytest.raises(InvalidConfig, match="huggingface, cyclonedx"):
        fairway.card(form="pdf")
