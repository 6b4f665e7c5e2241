"""The card that the Hugging Face Hub reads: ``README.md`` with YAML at its head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fairway.core.tensors import TensorSpec
from fairway.evaluation.report_markdown import escaped, marker, render_markdown
from fairway.evaluation.words import is_quality

if TYPE_CHECKING:
    from fairway.core.manifest import Manifest
    from fairway.evaluation.report import Report

FILE = "README.md"

_LONGEST_REPORT = 20_000
_LABELS = 50


def render(manifest: Manifest, report: Report | None) -> str:
    """Markdown whose head holds the results as a ``model-index``, which the Hub shows beside the card.

    References
    ----------
    https://huggingface.co/docs/hub/model-cards and
    https://github.com/huggingface/hub-docs/blob/main/modelcard.md
    """
    head: dict[str, Any] = {"library_name": "fairway", "tags": _tags(manifest)}
    if tag := _pipeline(manifest):
        head["pipeline_tag"] = tag
    if report is not None and (results := _results(manifest, report)):
        head["model-index"] = [{"name": manifest.name, "results": [results]}]
    return "\n".join(["---", *_yaml(head), "---", "", *_body(manifest, report)]) + "\n"


def _tags(manifest: Manifest) -> list[str]:
    return list(dict.fromkeys(["fairway", manifest.engine.name, manifest.task]))


def _pipeline(manifest: Manifest) -> str:
    """The Hub's name of the task; empty where it has none that is surely right."""
    kinds = {"classification": "classification", "regression": "regression"}
    if manifest.task not in kinds:
        return {"token-classification": "token-classification", "generation": "text-generation"}.get(manifest.task, "")
    ranks = {len(spec.shape) for spec in manifest.inputs}
    if any("token" in step.name for step in manifest.processing.pre):
        return "text-classification"
    if ranks == {4} and manifest.task == "classification":
        return "image-classification"
    return f"tabular-{kinds[manifest.task]}" if max(ranks, default=0) <= 2 else ""


def _results(manifest: Manifest, report: Report) -> dict[str, Any] | None:
    whole = [m for m in report.measurements if not m.slice and not m.versus and not m.error and m.known]
    quality = [m for m in whole if is_quality(m)]
    if not quality:
        return None
    metrics = [
        {
            "type": m.metric.removesuffix("_score"),
            "name": m.metric,
            "value": round(m.value, 6),
            "args": {"low": round(m.low, 6), "high": round(m.high, 6), "confidence": m.confidence, "rows": m.n},
        }
        for m in quality
        if abs(m.low) < float("inf") and abs(m.high) < float("inf")
    ]
    return {
        "task": {"type": _pipeline(manifest) or manifest.task, "name": manifest.task},
        "dataset": {"type": report.origin, "name": report.origin, "revision": report.data},
        "metrics": metrics,
    }


def _body(manifest: Manifest, report: Report | None) -> Iterator[str]:
    yield f"# {escaped(manifest.name)}"
    yield ""
    yield f"A {escaped(manifest.task)} model, packed by Fairway from `{manifest.lineage.source or 'unknown'}`."
    yield ""
    yield "## What it takes and gives"
    yield ""
    yield from _tensors("input", manifest.inputs)
    yield ""
    yield from _tensors("output", manifest.outputs)
    if manifest.labels:
        shown = ", ".join(escaped(label) for label in manifest.labels[:_LABELS])
        yield ""
        yield f"Classes: {shown}{f' and {len(manifest.labels) - _LABELS:,} more' if len(manifest.labels) > _LABELS else ''}."
    yield ""
    yield "## How it was evaluated"
    yield ""
    if report is None:
        yield "It was not: make the evidence with `fairway evaluate`."
    else:
        text = render_markdown(report, _LONGEST_REPORT)
        yield text.removeprefix(marker(report.model)).strip()
    yield ""
    yield "## How to use it"
    yield ""
    yield from [
        "```sh",
        "fairway serve BUNDLE    # this folder",
        f"fairway infer {manifest.name} --data test.parquet",
        "```",
    ]
    yield ""
    yield "## Where it comes from"
    yield ""
    for name, fact in _lineage(manifest).items():
        yield f"- {name}: {escaped(fact)}"


def _tensors(title: str, specs: Sequence[TensorSpec]) -> Iterator[str]:
    yield f"| {title} | type | shape |"
    yield "| --- | --- | --- |"
    for spec in specs:
        yield f"| {escaped(spec.name)} | {spec.datatype} | {escaped(str(list(spec.shape)))} |"


def _lineage(manifest: Manifest) -> dict[str, str]:
    lineage = manifest.lineage
    facts = {
        "source": f"{lineage.source} ({lineage.source_digest})" if lineage.source_digest else lineage.source,
        **{f"{name} data": digest for name, digest in lineage.data_digests.items()},
        "parent": lineage.parent,
        "code revision": lineage.code_revision,
        "optimization": " → ".join(each.name for each in manifest.recipe),
        "hyperparameters": msgspec.json.encode(lineage.hyperparameters).decode() if lineage.hyperparameters else "",
    }
    return {name: fact for name, fact in facts.items() if fact}


def _yaml(value: Any, indent: int = 0, lead: str = "") -> Iterator[str]:
    """Block YAML of dicts, lists and plain values; strings as JSON writes them, which YAML reads alike."""
    pad = " " * indent
    if isinstance(value, Mapping):
        for number, (key, inside) in enumerate(value.items()):
            start = (
                f"{lead if number == 0 and lead else pad}{msgspec.json.encode(key).decode() if ':' in key else key}:"
            )
            if isinstance(inside, Mapping | list) and inside:
                yield start
                yield from _yaml(inside, indent + 2)
            else:
                yield f"{start} {msgspec.json.encode(inside).decode()}"
        return
    for each in value:
        if isinstance(each, Mapping | list):
            yield from _yaml(each, indent + 2, f"{pad}- ")
        else:
            yield f"{pad}- {msgspec.json.encode(each).decode()}"
