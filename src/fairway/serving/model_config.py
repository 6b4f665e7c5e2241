"""A served version described in the protocol's words: its metadata, and its configuration as Triton's ``ModelConfig``."""

from __future__ import annotations

from typing import Any

from fairway.core.tensors import Datatype, TensorSpec
from fairway.serving.queues import level_of
from fairway.serving.served import Description
from fairway.serving.settings import ServeSettings

PLATFORMS = {"onnxruntime": "onnxruntime_onnx"}
_TYPES = {kind: f"TYPE_{kind.value}" for kind in Datatype} | {Datatype.BYTES: "TYPE_STRING"}


def metadata_of(known: Description, versions: list[str]) -> dict[str, Any]:
    """What a version takes and gives."""
    return {
        "name": known.name,
        "versions": versions,
        "platform": PLATFORMS.get(known.engine.name, known.engine.name),
        "inputs": [_tensor(spec) for spec in known.inputs],
        "outputs": [_tensor(spec) for spec in known.outputs],
    }


def config_of(known: Description, versions: list[str], settings: ServeSettings) -> dict[str, Any]:
    """How a version is run, with the limits in force. Sizes leave out the rows where the model batches, as in Triton."""
    engine, limits = known.engine, known.limits
    config: dict[str, Any] = {
        "name": known.name,
        "platform": PLATFORMS.get(engine.name, engine.name),
        "backend": engine.name,
        "version_policy": {"specific": {"versions": [int(version) for version in versions if version.isdecimal()]}},
        "max_batch_size": limits.max_batch if known.batching else 0,
        "input": [sized(spec, known.batching) for spec in known.inputs],
        "output": [sized(spec, known.batching) for spec in known.outputs],
        "instance_group": [{"name": known.name, "kind": "KIND_CPU", "count": limits.concurrent_batches}],
        "default_model_filename": engine.file,
        "parameters": {},
    }
    if known.batching:
        config["dynamic_batching"] = _batching(known, settings)
    if known.caches:
        config["response_cache"] = {"enable": True}
    return config


def _batching(known: Description, settings: ServeSettings) -> dict[str, Any]:
    limits = known.limits
    queue = {
        "timeout_action": "REJECT",
        "allow_timeout_override": True,
        "max_queue_size": limits.max_queue_requests,
    }
    batching: dict[str, Any] = {
        "max_queue_delay_microseconds": round(limits.max_wait_us),
        "default_queue_policy": queue,
    }
    if levels := settings.priority_levels:
        batching["priority_levels"] = levels
        batching["default_priority_level"] = level_of(0, levels, limits.priority) + 1
    return batching


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    known = {"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape)}
    return {**known, "parameters": {"columns": list(spec.columns)}} if spec.columns else known


def sized(spec: TensorSpec, batches: bool) -> dict[str, Any]:
    """One tensor as Triton's configuration has it, without the rows where ``batches``."""
    dims = list(spec.shape[1:] if batches else spec.shape)
    known = {"name": spec.name, "data_type": _TYPES[spec.datatype], "dims": dims or [1]}
    return known if dims else {**known, "reshape": {"shape": []}}  # Triton's dims are never empty
