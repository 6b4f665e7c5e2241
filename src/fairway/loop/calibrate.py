"""A bundle with a temperature built into its graph, fitted on rows that neither training nor the test has seen."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.errors import InvalidConfig, InvalidData
from fairway.core.manifest import EVIDENCE
from fairway.loop.progress import SILENT, Progress
from fairway.loop.project import Project


def calibrate(project: Project, bundle: Bundle, data: Path | str, progress: Progress = SILENT) -> Bundle:
    """Fit a temperature on ``data`` and build it into the graph, if it surely lowers the log loss; else the bundle as it is.

    Whatever serves the graph then gives the scaled probabilities. The predicted classes stay.

    Parameters
    ----------
    project : Project
        Whose label column and ``[evaluate]`` settings count.
    bundle : Bundle
        A classifier with probabilities or logits, as ONNX.
    data : path
        Labeled rows that the model was not trained on, and that it will not be tested on.
    progress : Progress

    Raises
    ------
    InvalidConfig
        If the model cannot be scaled, or ``data`` is the test set.
    InvalidData
        If the rows do not fit the model, or too few of them are wrong, or right, to fit anything.
    """
    from fairway.evaluation.analyses.calibration import try_scaling, unscalable
    from fairway.evaluation.groups import group_numbers
    from fairway.evaluation.predictions import Classified
    from fairway.evaluation.scaling import fit_temperature
    from fairway.evaluation.scoring import score_models
    from fairway.evaluation.tasks.registry import check_scorable
    from fairway.model import Model
    from fairway.sources.tables import load_table

    _check(bundle)
    table = load_table(Path(data).expanduser(), origin=Path(data).name, settings=project.data)
    if table.digest == project.table("test").digest:
        raise InvalidConfig(
            f"{data} is the test set: what is fitted on it cannot be tested on it; keep other rows apart"
        )
    settings = project.settings.evaluate
    progress.step(f"fitting a temperature on {table.rows:,} rows")
    with Model(bundle) as model:
        check_scorable(model)
        [rows] = score_models([model], table, label=project.data.label, settings=settings, progress=progress)
    assert isinstance(rows, Classified)
    if settings.group:
        rows = replace(rows, groups=group_numbers(table, settings.group))
    if reason := unscalable(rows):
        raise InvalidData(f"{data}: {reason[0].lower()}{reason[1:]}")
    tried = try_scaling(rows, settings, ("temperature",))
    assert rows.probabilities is not None
    temperature = fit_temperature(rows.probabilities, rows.truth)
    if not tried[0].better:
        progress.step(f"no temperature surely helps on {data} (the best is {temperature:.4g}): left as it is")
        return bundle
    progress.step(f"a temperature of {temperature:.4g} is built in")
    return _write(project, bundle, temperature, table.digest)


def _check(bundle: Bundle) -> None:
    manifest = bundle.manifest
    kind = manifest.prediction.kind if manifest.prediction else ""
    if kind not in ("probabilities", "logits"):
        raise InvalidConfig(f"{manifest.name} gives no probabilities, so there is nothing to calibrate")
    if manifest.engine.name != "onnxruntime" or manifest.processing.post:
        raise InvalidConfig(
            f"a temperature is built into an ONNX graph; {manifest.name} runs on {manifest.engine.name!r} or has steps after it"
        )


def _write(project: Project, bundle: Bundle, temperature: float, data: str) -> Bundle:
    from fairway.core.extras import require
    from fairway.sources.graphs import add_temperature

    manifest = bundle.manifest
    assert manifest.prediction is not None
    onnx = require("onnx", extra="optimize")
    graph = onnx.load(bundle.file(manifest.engine.file), load_external_data=False)
    add_temperature(graph, manifest.prediction.output, temperature, logits=manifest.prediction.kind == "logits")
    before = manifest.lineage
    lineage = msgspec.structs.replace(
        before,
        parent=bundle.digest,
        data_digests={**before.data_digests, "calibration": data},
        hyperparameters={**before.hyperparameters, "temperature": temperature},
    )
    files: dict[str, Path | bytes] = {n: bundle.file(n) for n in manifest.files if n not in EVIDENCE}
    content = graph.SerializeToString(deterministic=True)
    files[manifest.engine.file] = content
    made = msgspec.structs.replace(manifest, lineage=lineage)
    named = hashlib.sha256(made.encode() + content).hexdigest()
    target = project.state / "work" / f"calibrated-{named[:16]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_bundle(target, made, files)
