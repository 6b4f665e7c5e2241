"""A bundle that runs on the torch engine: another's, with the torch module in place of its ONNX graph."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairway.bundle.format import Bundle, write_bundle
from fairway.bundle.samples import SAMPLES, read_samples
from fairway.core.errors import ConversionMismatch
from fairway.core.manifest import EngineSpec
from fairway.engines.torch import TorchEngine
from fairway.model import Model
from fairway.sources.agreement import compare
from fairway.sources.programs import PROGRAM, export_program


def torch_bundle(
    bundle: Bundle, module: Any, destination: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None
) -> Bundle:
    """Write ``bundle`` with ``module``, which its ONNX graph was exported from, for the torch engine.

    Parameters
    ----------
    bundle : Bundle
        With samples, on which both are compared, on the CPU and in FP32.
    module : torch.nn.Module
        ``forward`` takes the graph's inputs in order and gives its outputs.
    destination : Path
    threads : int
    options : mapping, optional
        The engine's ``mode``, ``device`` and ``precision``; see :class:`~fairway.engines.torch.TorchEngine`.

    Raises
    ------
    InvalidSource
        If torch cannot export the module.
    ConversionMismatch
        If it answers otherwise than the bundle.
    """
    with Model(bundle) as model, tempfile.TemporaryDirectory(prefix="fairway-") as folder:
        feed = model.prepare(read_samples(bundle))
        specs = model.raw_inputs
        free = [[axis for axis, size in enumerate(spec.shape) if size == -1] for spec in specs]
        path = Path(folder) / PROGRAM
        path.write_bytes(export_program(module, [feed[spec.name] for spec in specs], free))
        names = [spec.name for spec in model.raw_outputs]
        engine = TorchEngine(path, threads=threads, inputs=[spec.name for spec in specs], outputs=names)
        try:
            compare(model.infer(feed, raw=True), engine.infer(feed))
        except ConversionMismatch as error:
            raise ConversionMismatch(f"{type(module).__name__} does not answer as its bundle does: {error}") from error
        finally:
            engine.close()
        before = bundle.manifest
        named = {"inputs": [spec.name for spec in specs], "outputs": names, **(options or {})}
        spec = EngineSpec(
            "torch", PROGRAM, threads, before.engine.max_batch, batching=before.engine.batching, options=named
        )
        lineage = msgspec.structs.replace(before.lineage, parent=bundle.digest)
        manifest = msgspec.structs.replace(before, engine=spec, recipe=(), lineage=lineage)
        steps = (*before.processing.pre, *before.processing.post)
        kept = {SAMPLES, *(str(step.parameters["file"]) for step in steps if "file" in step.parameters)}
        files: dict[str, Path | bytes] = {name: bundle.file(name) for name in before.files if name in kept}
        return write_bundle(destination, manifest, {**files, PROGRAM: path})
