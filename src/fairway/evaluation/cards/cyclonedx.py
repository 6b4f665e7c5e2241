"""The card as a CycloneDX machine-learning bill of materials (ML-BOM)."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from fairway.core.manifest import EVIDENCE
from fairway.core.metrics import Measurement
from fairway.evaluation import words

if TYPE_CHECKING:
    from fairway.core.manifest import FileEntry, Manifest
    from fairway.evaluation.report import Report

FILE = "bom.cdx.json"
VERSION = "1.6"

_NAMESPACE = uuid.UUID("5f0b1a58-7f4b-5d0f-9d5e-0f2f0c3b6a11")
_PACKAGES = ("numpy", "scikit-learn", "scipy", "onnxruntime", "torch", "transformers", "onnx", "keras", "skl2onnx")


def render(manifest: Manifest, report: Report | None) -> str:
    """CycloneDX 1.6 JSON: the model with its card and files, the data by digest, the packages that made it.

    The same manifest and report give the same document: its serial number is made from them, and it has no date.

    References
    ----------
    https://cyclonedx.org/docs/1.6/json/#components_items_modelCard
    """
    from importlib.metadata import version

    identity = "".join(entry.sha256 for _, entry in _files(manifest)) + (report.data if report else "")
    environment = manifest.lineage.environment | (report.environment if report else {})
    document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, identity)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "fairway", "version": version("fairway")}]},
            "component": _model(manifest, report),
        },
        "components": [
            {
                "type": "library",
                "bom-ref": f"pkg:pypi/{name}@{environment[name]}",
                "name": name,
                "version": environment[name],
                "purl": f"pkg:pypi/{name}@{environment[name]}",
            }
            for name in _PACKAGES
            if environment.get(name)
        ],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _model(manifest: Manifest, report: Report | None) -> dict[str, Any]:
    facts = {
        "fairway:source": manifest.lineage.source,
        "fairway:source_digest": manifest.lineage.source_digest,
        "fairway:parent": manifest.lineage.parent,
        "fairway:code_revision": manifest.lineage.code_revision,
        "fairway:engine": manifest.engine.name,
        "fairway:recipe": " ".join(each.name for each in manifest.recipe),
        "fairway:evaluated_bundle": report.bundle if report else "",
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{manifest.name}",
        "name": manifest.name,
        "properties": _properties(facts),
        "modelCard": _card(manifest, report),
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{name}",
                "name": name,
                "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
            }
            for name, entry in _files(manifest)
        ],
    }


def _card(manifest: Manifest, report: Report | None) -> dict[str, Any]:
    digests = manifest.lineage.data_digests | ({"test": report.data} if report else {})
    card: dict[str, Any] = {
        "modelParameters": {
            "task": manifest.task,
            "datasets": [
                {
                    "type": "dataset",
                    "name": report.origin if report and name == "test" else name,
                    "contents": {"properties": _properties({"fairway:role": name, "fairway:digest": digest})},
                }
                for name, digest in digests.items()
            ],
            "inputs": [{"format": f"{s.name} {s.datatype} {list(s.shape)}"} for s in manifest.inputs],
            "outputs": [{"format": f"{s.name} {s.datatype} {list(s.shape)}"} for s in manifest.outputs],
        }
    }
    if report is None:
        return card
    card["quantitativeAnalysis"] = {
        "performanceMetrics": [_metric(m) for m in report.measurements if m.known and not m.versus]
    }
    card["considerations"] = {"technicalLimitations": words.doubts(report.measurements)}
    verdict = report.verdict
    card["properties"] = _properties(
        {
            "fairway:verdict": str(verdict.outcome),
            "fairway:false_pass": f"{verdict.false_pass:.6g}",
            "fairway:false_fail": f"{verdict.false_fail:.6g}",
            "fairway:rows": str(report.rows),
            "fairway:intervals": words.sampling(report),
        }
    )
    return card


def _metric(found: Measurement) -> dict[str, Any]:
    ends = {"lowerBound": found.low, "upperBound": found.high}
    load = "" if found.at_rps is None else f" at {words.number(found.at_rps)}/s"
    metric: dict[str, Any] = {
        "type": found.metric + load,
        "value": f"{found.value:.6g}",
        "confidenceInterval": {name: f"{end:.6g}" for name, end in ends.items() if math.isfinite(end)},
    }
    return {**metric, "slice": found.slice} if found.slice else metric


def _files(manifest: Manifest) -> list[tuple[str, FileEntry]]:
    """What the model is made of, not what was written about it."""
    return sorted((name, entry) for name, entry in manifest.files.items() if name not in EVIDENCE)


def _properties(facts: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in facts.items() if value]
