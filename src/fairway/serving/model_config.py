"""A served version described in the protocol's words: its metadata, and its configuration as Triton's ``ModelConfig``."""

from __future__ import annotations

from typing import Any

from fairway.core.tensors import Datatype, TensorSpec
from fairway.serving.models import ServedVersion
from fairway.serving.settings import ServeSettings

PLATFORMS = {"onnxruntime": "onnxruntime_onnx"}
_TYPES = {kind: f"TYPE_{kind.value}" for kind in Datatype} | {Datatype.BYTES: "TYPE_STRING"}


def metadata_of(served: ServedVersion, versions: list[str]) -> dict[str, Any]:
    """What a version takes and gives."""
    engine = served.model.manifest.engine.name
    return {
        "name": served.name,
        "versions": versions,
        "platform": PLATFORMS.get(engine, engine),
        "inputs": [_tensor(spec) for spec in served.model.inputs],
        "outputs": [_tensor(spec) for spec in served.model.outputs],
    }


def config_of(served: ServedVersion, versions: list[str], settings: ServeSettings) -> dict[str, Any]:
    """How a version is run. Sizes leave out the rows where the model batches, as in Triton."""
    engine = served.model.manifest.engine
    batches = served.signature.batching
    config: dict[str, Any] = {
        "name": served.name,
        "platform": PLATFORMS.get(engine.name, engine.name),
        "backend": engine.name,
        "version_policy": {"specific": {"versions": [int(version) for version in versions if version.isdecimal()]}},
        "max_batch_size": engine.max_batch if batches else 0,
        "input": [_sized(spec, batches) for spec in served.model.inputs],
        "output": [_sized(spec, batches) for spec in served.model.outputs],
        "instance_group": [{"name": served.name, "kind": "KIND_CPU", "count": settings.concurrent_batches}],
        "default_model_filename": engine.file,
        "parameters": {},
    }
    if batches:
        queue = {
            "timeout_action": "REJECT",
            "allow_timeout_override": True,
            "max_queue_size": settings.max_queue_requests,
        }
        config["dynamic_batching"] = {"max_queue_delay_microseconds": 0, "default_queue_policy": queue}
    return config


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    known = {"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape)}
    return {**known, "parameters": {"columns": list(spec.columns)}} if spec.columns else known


def _sized(spec: TensorSpec, batches: bool) -> dict[str, Any]:
    dims = list(spec.shape[1:] if batches else spec.shape)
    known = {"name": spec.name, "data_type": _TYPES[spec.datatype], "dims": dims or [1]}
    return known if dims else {**known, "reshape": {"shape": []}}  # Triton's dims are never empty
