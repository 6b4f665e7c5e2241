"""Channels that matter least, taken out of every weight that they touch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fairway.core.tensors import Tensor
from fairway.optimization.rewrites.base import Rewriting
from fairway.optimization.rewrites.channels import Group, Slot

_RIDGE = 1e-3
"""Added to the diagonal of moments, relative to its mean, so that they can be inverted."""


def most_important(graph: Rewriting, group: Group, moments: Mapping[str, Tensor], kept: int) -> Tensor:
    """The ``kept`` channels of a group that add most to what reads them, in order.

    What a channel adds to a product is its own size times that of its weights there, both as root sums of squares; all
    readers count alike.

    Parameters
    ----------
    moments : mapping of tensor name to array
        What is known of the numbers along a tensor's channels: their mean products (or mean squares). Without, weights alone
        count.

    References
    ----------
    M. Sun, Z. Liu, A. Bair, J. Z. Kolter, "A simple and effective pruning approach for large language models", ICLR 2024,
    eq. 1, here for whole channels.
    """
    total = np.zeros(group.size)
    for slot in group.readers:
        square = np.square(_rows(graph, slot)).reshape(group.size, slot.width, -1)
        moment = moments.get(slot.node.input[0])
        if moment is not None:
            power = np.diag(moment) if moment.ndim == 2 else moment
            square = square * power.reshape(group.size, -1, 1)
        size = np.sqrt(square.sum(axis=(1, 2)))
        total += size / max(size.mean(), 1e-30)
    return np.sort(np.argsort(-total, kind="stable")[:kept])


def cut(graph: Rewriting, group: Group, kept: Tensor, moments: Mapping[str, Tensor]) -> None:
    """Leave out all channels but ``kept``, in place.

    Weights that read channels whose mean products are in ``moments`` are fitted again, by least squares, to what they gave
    before; the others stay what they were.
    """
    for slot in group.readers:
        numbers, moment = slot.numbers(kept, group.size), moments.get(slot.node.input[0])
        if moment is not None and moment.ndim == 2:
            _refit(graph, slot, numbers, moment)
    for slot in (*group.makers, *group.others, *group.readers):
        value = np.asarray(graph.value(slot.node.input[slot.index]))
        fewer = np.take(value, slot.numbers(kept, group.size), axis=slot.axis)
        slot.node.input[slot.index] = graph.constant(fewer, "pruned")
    for node in group.depthwise:
        _set(graph, node, "group", len(kept))
    for node in group.flattened:
        node.input[1] = graph.constant(np.array([0, -1], np.int64), "pruned_shape")
    for node in group.attention:
        if node.op_type == "Split":
            sizes = np.asarray(graph.value(node.input[1]))
            node.input[1] = graph.constant(sizes // group.size * len(kept), "pruned_sizes")
        else:
            _set(graph, node, "num_heads", len(kept))


def channels_kept(size: int, share: float, multiple: int) -> int:
    """How many of ``size`` channels stay if ``share`` of them shall go: at least one, and whole multiples.

    Examples
    --------
    >>> channels_kept(64, 0.3, 8), channels_kept(10, 0.3, 8), channels_kept(12, 0.0, 8)
    (48, 8, 12)
    """
    return min(size, multiple * max(1, math.ceil(round(size * (1 - share) / multiple, 6))))


def _refit(graph: Rewriting, slot: Slot, numbers: Tensor, moment: Tensor) -> None:
    """``argmin |X W - X_kept V|^2``: all weights of the axis, those that go being of no more use.

    He, Zhang, Sun 2017, "Channel pruning for accelerating very deep neural networks", ICCV, eq. 3.
    """
    weights = np.asarray(graph.value(slot.node.input[slot.index]))
    rows = np.moveaxis(weights, slot.axis, 0).astype(np.float64)
    own = moment[np.ix_(numbers, numbers)]
    own = own + _RIDGE * max(np.diag(own).mean(), 1e-30) * np.eye(len(numbers))
    # as a change of the weights that stay: without a channel that goes, nothing changes
    gone = np.setdiff1d(np.arange(len(rows)), numbers)
    rows[numbers] += np.linalg.solve(own, moment[np.ix_(numbers, gone)] @ rows[gone])
    fitted = np.moveaxis(rows, 0, slot.axis).astype(weights.dtype)
    slot.node.input[slot.index] = graph.constant(fitted, "refitted")


def _rows(graph: Rewriting, slot: Slot) -> Tensor:
    weights = np.asarray(graph.value(slot.node.input[slot.index]), np.float64)
    return np.moveaxis(weights, slot.axis, 0)


def _set(graph: Rewriting, node: Any, name: str, value: int) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, graph.onnx.helper.make_attribute(name, value)])
