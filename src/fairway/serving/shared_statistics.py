"""The protocol's statistics over several workers, as counts that are joined."""

from __future__ import annotations

from typing import Any

from fairway.serving.shared_metrics import Counts, flatten, unflatten

_COUNTED = ("last_inference", "inference_count", "execution_count", "inference_stats")


def counts_of_version(entry: dict[str, Any]) -> Counts:
    """One entry of the protocol's ``model_stats`` as counts."""
    tree = {name: entry[name] for name in _COUNTED}
    for batch in entry["batch_stats"]:
        parts = {name: value for name, value in batch.items() if name != "batch_size"}
        tree.setdefault("batch_stats", {})[str(batch["batch_size"])] = parts
    return flatten(tree, entry["name"], entry["version"], most=("last_inference",))


def joined(own: dict[str, Any], counts: Counts) -> dict[str, Any]:
    """The statistics of all workers: what one has, with the counts of all."""
    return {"model_stats": [_joined(entry, counts) for entry in own["model_stats"]]}


def _joined(entry: dict[str, Any], counts: Counts) -> dict[str, Any]:
    tree = _whole(unflatten(counts, entry["name"], entry["version"]))
    if not tree:
        return entry
    batches = sorted(tree.pop("batch_stats", {}).items(), key=lambda item: int(item[0]))
    return entry | tree | {"batch_stats": [{"batch_size": int(size)} | parts for size, parts in batches]}


def _whole(tree: dict[str, Any]) -> dict[str, Any]:
    """All of these are whole numbers, whatever they were on their way."""
    return {name: _whole(value) if isinstance(value, dict) else int(value) for name, value in tree.items()}
