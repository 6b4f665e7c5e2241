"""A checkpoint to a bundle, checked against the original."""

from __future__ import annotations

import importlib
import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast, get_args

import msgspec
import numpy as np

from fairway.bundle.format import Bundle, write_bundle
from fairway.bundle.samples import SAMPLES, encode_samples
from fairway.core.errors import ConversionMismatch, FairwayError, InvalidConfig
from fairway.core.manifest import NAME, FileEntry, Lineage, Manifest
from fairway.core.tensors import TensorSpec, is_float
from fairway.model import Model
from fairway.sources.agreement import TOLERANCES, Agreement, check_agreement
from fairway.sources.candidate import Candidate, Context, Source
from fairway.sources.checkpoints import open_source
from fairway.sources.lineage import code_revision, environment, hyperparameters
from fairway.sources.rows import Rows, rows_for
from fairway.sources.settings import Task
from fairway.sources.tables import Table

Converter: TypeAlias = Callable[[Source, Context], Iterator[Candidate]]

log = logging.getLogger(__name__)

CONVERSION = "conversion.json"
"""In the bundle: on how many rows, real or generated, and within which tolerances it agreed with the original."""

SAMPLE_ROWS = 64


def convert(
    source: object,
    *,
    destination: Path,
    name: str,
    task: str,
    reference: Table | None = None,
    label: str | None = None,
    features: Sequence[str] = (),
    labels: Sequence[str] = (),
    trust: bool = False,
    root: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Bundle:
    """Convert a checkpoint or a live model into a bundle that gives the same answers.

    The same source, data and package versions give the same bundle, byte for byte.

    Parameters
    ----------
    source : str, Path or object
        A checkpoint's path, ``module:callable``, or a live scikit-learn estimator, torch module, exported program, Keras
        model or ``(module, example_inputs)``; or what :func:`~fairway.sources.checkpoints.open_source` made of one.
    destination : Path
        Where to write the bundle; nothing is written unless the check passes.
    name, task : str
        As in ``[model]``.
    reference : Table, optional
        Real rows: up to 256 of them check the conversion, up to 64 travel in the bundle. Without them the check runs on rows
        made up from the inputs' shapes, and the bundle says so in ``conversion.json``.
    label : str, optional
        The column to predict.
    features : sequence of str
        Glob patterns of the feature columns; empty is all but the label.
    labels : sequence of str
        Class names, where the checkpoint has none.
    trust : bool, default False
        Let the checkpoint run code that it carries.
    root : Path, optional
        What paths and modules are relative to; by default the working directory.
    options : mapping, optional
        Of the engine that is to serve the bundle, as in ``[model]``. The check runs without them, on the CPU.

    Raises
    ------
    InvalidSource
        If the source cannot be read or converted.
    UntrustedSource
        If reading it would run code that it carries.
    ConversionMismatch
        If the bundle would not answer what the original answers.
    InvalidData, InvalidConfig
        If the reference does not fit the model, or an argument is wrong.
    """
    if not NAME.fullmatch(name):
        raise InvalidConfig(f"{name!r} is no model name; use letters, digits, '.', '_' and '-'")
    if task not in get_args(Task):
        raise InvalidConfig(f"no task {task!r}; known: {', '.join(get_args(Task))}")
    base = root or Path()
    opened = source if isinstance(source, Source) else open_source(source, root=base, trust=trust)
    chosen = reference.features(features, label=label or None) if reference is not None else ()
    with tempfile.TemporaryDirectory(prefix="fairway-") as work:
        context = Context(cast(Task, task), reference, label or None, chosen, tuple(labels), Path(work))
        candidate, rows, agreement = _first_that_agrees(opened, context, name)
        manifest = msgspec.structs.replace(
            _manifest(candidate, name, task),
            engine=msgspec.structs.replace(candidate.engine, options={**candidate.engine.options, **(options or {})}),
            lineage=_lineage(opened, reference, base),
        )
        samples = rows.part(slice(0, None, math.ceil(rows.count / SAMPLE_ROWS)))  # spread over the data
        return write_bundle(
            Path(destination),
            manifest,
            {**candidate.files, SAMPLES: encode_samples(samples.feed), CONVERSION: _record(agreement)},
        )


def _first_that_agrees(opened: Source, context: Context, name: str) -> tuple[Candidate, Rows, Agreement]:
    """Sources may offer several forms, the cheapest first; the first that agrees is taken."""
    refused: ConversionMismatch | None = None
    for number, candidate in enumerate(_candidates(opened, context)):
        try:
            found = _checked(candidate, context, name)
        except ConversionMismatch as error:
            log.info("conversion_mismatch", extra={"attempt": number, "reason": str(error)})
            refused = error
            continue
        for file, difference in found[2].differences.items():
            log.info("conversion_agrees", extra={"output": file, "difference": difference, "rows": found[2].rows})
        return found
    assert refused is not None
    where = context.reference.origin if context.reference is not None else "rows generated from the inputs' shapes"
    raise ConversionMismatch(f"{opened.name} does not survive conversion: on {where}, {refused}")


def _candidates(opened: Source, context: Context) -> Iterator[Candidate]:
    """Each kind's module is imported only when it is needed."""
    module, function = _CONVERTERS[opened.kind]
    converter = cast(Converter, getattr(importlib.import_module(module), function))
    return converter(opened, context)


_CONVERTERS = {
    "sklearn": ("fairway.sources.sklearn", "convert_sklearn"),
    "onnx": ("fairway.sources.onnx", "convert_onnx"),
    "torch": ("fairway.sources.torch", "convert_torch"),
    "huggingface": ("fairway.sources.huggingface", "convert_huggingface"),
    "keras": ("fairway.sources.keras", "convert_keras"),
}


def _checked(candidate: Candidate, context: Context, name: str) -> tuple[Candidate, Rows, Agreement]:
    rows = rows_for(candidate.inputs, context.reference, context.label)
    with Model(_draft(candidate, name, context.task)) as model:
        agreement = check_agreement(candidate.original, model, rows)
        if candidate.takes_missing and not _has_missing(rows) and not _agrees_on_missing(candidate, model, rows):
            candidate = replace(candidate, inputs=tuple(map(_without_missing, candidate.inputs)))
    return candidate, rows, agreement


def _agrees_on_missing(candidate: Candidate, model: Model, rows: Rows) -> bool:
    """Whether the bundle answers as the original does with each number in turn missing; a converter may not know the rule."""
    places = [
        (spec.name, place)
        for spec in candidate.inputs
        if spec.allow_nan
        for place in range(rows.feed[spec.name][0].size)
    ]
    part = rows.part(slice(max(1, _PROBED_ROWS // len(places))))
    try:
        for name, place in places:
            holed = part.feed[name].copy()
            holed.reshape(part.count, -1)[:, place] = np.nan
            check_agreement(candidate.original, model, Rows({**part.feed, name: holed}, None, part.numbers))
    except FairwayError:
        return False
    return True


_PROBED_ROWS = 16_384


def _has_missing(rows: Rows) -> bool:
    return any(is_float(array) and bool(np.isnan(array).any()) for array in rows.feed.values())


def _without_missing(spec: TensorSpec) -> TensorSpec:
    return msgspec.structs.replace(spec, allow_nan=False)


def _draft(candidate: Candidate, name: str, task: str) -> Bundle:
    """The bundle as it will be; its files are not hashed yet."""
    paths = [path for path in candidate.folder.rglob("*") if path.is_file()]
    files = {p.relative_to(candidate.folder).as_posix(): FileEntry("0" * 64, p.stat().st_size) for p in paths}
    manifest = _manifest(candidate, name, task)
    return Bundle(candidate.folder, msgspec.structs.replace(manifest, files=files))


def _manifest(candidate: Candidate, name: str, task: str) -> Manifest:
    return Manifest(
        name=name,
        task=task,
        inputs=candidate.inputs,
        outputs=candidate.outputs,
        files={},
        engine=candidate.engine,
        processing=candidate.processing,
        prediction=candidate.prediction,
        labels=candidate.labels,
    )


def _lineage(opened: Source, reference: Table | None, root: Path) -> Lineage:
    parameters: Any = opened.model.get_params() if opened.kind == "sklearn" else {}
    return Lineage(
        source=opened.name,
        source_kind=opened.kind,
        source_digest=opened.digest,
        data_digests={} if reference is None else {"reference": reference.digest},
        code_revision=code_revision(root),
        hyperparameters=hyperparameters(parameters),
        environment=environment(opened.kind),
    )


def _record(agreement: Agreement) -> bytes:
    """Only what does not depend on the machine: the differences measured are in the log."""
    tolerances = {str(kind): {"rtol": t.rtol, "atol": t.atol} for kind, t in TOLERANCES.items()}
    record = {
        "rows": agreement.rows,
        "rows_from": "reference" if agreement.real else "generated",
        "tolerance": tolerances,
    }
    return json.dumps(record, sort_keys=True).encode()
