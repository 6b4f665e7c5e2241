"""A bundle as a model of a Triton repository: for its ONNX Runtime backend, or for its Python backend."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np

from fairway.bundle.format import Bundle
from fairway.bundle.samples import read_samples
from fairway.core.errors import InvalidConfig
from fairway.core.manifest import Cost, EngineSpec, Manifest
from fairway.core.tensors import Datatype, Tensor, Tensors, TensorSpec
from fairway.exports.onnx import LABELS, place, write_graph, write_labels, write_step_files
from fairway.exports.pbtxt import Name, entries, pbtxt
from fairway.model import Model
from fairway.serving.model_config import sized
from fairway.serving.warmup import declared_batching, made_up_rows, take

Backend: TypeAlias = Literal["onnxruntime", "python"]

BACKENDS: tuple[Backend, ...] = ("onnxruntime", "python")
_STEPS = ("tokenize",)
"""What the file of Python knows."""


def write_model(bundle: Bundle, folder: Path, *, backend: Backend, raw: bool, instances: int) -> None:
    """Write one model of a repository into the empty ``folder``.

    Parameters
    ----------
    backend : {"onnxruntime", "python"}
        The one runs the graph alone. The other runs a file of Python, which runs it and the steps before it: it needs
        ``onnxruntime``, and ``tokenizers`` if the bundle tokenizes, where Triton's Python finds them.
    raw : bool
        Leave processing steps to the callers, as a raw request does: ``onnxruntime`` cannot run them.
    instances : int
        How many of it run beside each other.

    Raises
    ------
    InvalidConfig
        If the backend cannot run this bundle; the message says which one can.
    """
    manifest = bundle.manifest
    _check(bundle, backend, raw=raw)
    with Model(bundle) as model:
        inputs, outputs = (model.raw_inputs, model.raw_outputs) if raw else (model.inputs, model.outputs)
        rows = read_samples(bundle) or made_up_rows(manifest.inputs)
        feed = model.prepare(take(rows, 1)) if raw else take(rows, 1)
        batching = declared_batching(model)
    version = folder / "1"
    version.mkdir()
    write_graph(bundle, version)
    if backend == "python":
        write_step_files(bundle, version / "steps")
        place(version / "model.py", files("fairway.exports").joinpath("triton_model.py.txt").read_bytes())
    write_labels(bundle, folder)
    config = configuration(bundle, inputs, outputs, backend=backend, batching=batching, instances=instances)
    config["model_warmup"] = _warm_up(inputs, feed, folder / "warmup", batching=batching)
    (folder / "config.pbtxt").write_text(pbtxt(config), "utf-8")


def configuration(
    bundle: Bundle,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    *,
    backend: Backend,
    batching: bool,
    instances: int,
) -> dict[str, Any]:
    """Triton's ``ModelConfig`` with the bundle's tuning."""
    manifest, engine = bundle.manifest, bundle.manifest.engine
    answered = manifest.prediction.output if manifest.prediction and manifest.labels else ""
    labeled = {spec.name: {"label_filename": LABELS} for spec in outputs if spec.name == answered}
    config: dict[str, Any] = {
        "name": manifest.name,
        "backend": backend,
        "max_batch_size": engine.max_batch if batching else 0,
        "input": [_tensor(spec, batching) for spec in inputs],
        "output": [{**_tensor(spec, batching), **labeled.get(spec.name, {})} for spec in outputs],
        "instance_group": [{"count": instances, "kind": Name("KIND_CPU")}],
    }
    if batching:
        preferred = preferred_sizes(engine.cost, engine.max_batch)
        config["dynamic_batching"] = {
            "preferred_batch_size": preferred,
            "max_queue_delay_microseconds": round(engine.max_wait_us),
        }
    parameters = {"fairway.bundle": bundle.digest, **_threads(engine)}
    if backend == "python":
        parameters["fairway.steps"] = msgspec.json.encode(manifest.processing.pre).decode()
    config["parameters"] = entries({name: {"string_value": value} for name, value in parameters.items()})
    return config


def preferred_sizes(cost: Cost | None, largest: int) -> list[int]:
    """The batch from which more rows save hardly anything, and the largest; none where the cost is not known.

    Examples
    --------
    >>> preferred_sizes(Cost(base_us=80, row_us=100), 64), preferred_sizes(Cost(base_us=900, row_us=1), 64)
    ([8, 64], [64])
    """
    if cost is None or largest == 1:
        return []
    return sorted({each for each in (cost.enough(largest), largest) if each > 1})


def _check(bundle: Bundle, backend: Backend, *, raw: bool) -> None:
    manifest = bundle.manifest
    if backend == "python" and raw:
        raise InvalidConfig("the Python backend runs all of the bundle's steps; leave out --raw")
    if manifest.engine.name != "onnxruntime":
        raise InvalidConfig(
            f"this bundle runs on {manifest.engine.name}, which would answer otherwise on Triton's ONNX Runtime; serve it with "
            "Fairway, or export a form that runs on ONNX Runtime"
        )
    steps = [] if raw else [step.name for step in (*manifest.processing.pre, *manifest.processing.post)]
    if backend == "onnxruntime" and steps:
        raise InvalidConfig(
            f"Triton's ONNX Runtime backend cannot run this bundle's steps ({', '.join(steps)}); export it with --backend "
            "python, which does, or with --raw, for callers that send what the graph takes"
        )
    if unknown := sorted({*steps} - set(_STEPS)) or [step.name for step in manifest.processing.post if not raw]:
        raise InvalidConfig(f"step {unknown[0]!r} cannot run in Triton's Python; export it with --raw")
    if backend == "python" and (halves := [s.name for s in _specs(manifest) if s.datatype is Datatype.BF16]):
        raise InvalidConfig(
            f"{halves[0]!r} is BF16, which Triton's Python backend has no arrays for; export it with FP32"
        )


def _specs(manifest: Manifest) -> tuple[TensorSpec, ...]:
    return (*manifest.inputs, *manifest.outputs)


def _tensor(spec: TensorSpec, batching: bool) -> dict[str, Any]:
    known = sized(spec, batching)
    return {**known, "data_type": Name(known["data_type"])}


def _threads(engine: EngineSpec) -> dict[str, str]:
    """As this engine runs it here; 0 is ONNX Runtime's own choice, there as here."""
    return {"intra_op_thread_count": str(engine.threads), "inter_op_thread_count": "1"} if engine.threads else {}


def _warm_up(inputs: tuple[TensorSpec, ...], feed: Tensors, folder: Path, *, batching: bool) -> list[Mapping[str, Any]]:
    """One request of a recorded row, its tensors as files, so that no caller meets a cold model."""
    folder.mkdir()
    sent: dict[str, Any] = {}
    for number, spec in enumerate(inputs):
        array, file = feed[spec.name], f"input-{number}"
        (folder / file).write_bytes(_raw(array, spec.datatype))
        shape = list(array.shape[1:] if batching else array.shape) or [1]
        sent[spec.name] = {"data_type": _tensor(spec, batching)["data_type"], "dims": shape, "input_data_file": file}
    return [{"name": "recorded", "batch_size": 1 if batching else 0, "inputs": entries(sent)}]


def _raw(array: Tensor, datatype: Datatype) -> bytes:
    """As in the protocol's binary form: texts with their lengths before them."""
    if datatype is not Datatype.BYTES:
        return np.ascontiguousarray(array).tobytes()
    items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)
