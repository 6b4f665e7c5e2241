"""Which channels of a graph can be left out together: filters, neurons and heads, and every weight that one of them touches.

Two tensors that are added have the same channels, and so have all that are reached through operators that work channel by
channel. Whatever else reads a tensor, the graph's caller too, needs all of its channels.

Fang, Ma, Song, Mi, Wang 2023, "DepGraph: towards any structural pruning", CVPR, sec. 3.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from fairway.core.tensors import Tensor
from fairway.optimization.rewrites.base import Rewriting

_ALONE = {
    "AveragePool", "Cast", "Clip", "Dropout", "Elu", "Erf", "FastGelu", "Gelu", "GlobalAveragePool", "GlobalMaxPool",
    "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mish", "Neg", "QuickGelu", "Relu", "Selu", "Sigmoid",
    "Softplus", "Tanh",
}  # fmt: skip
"""Each channel by itself, with no weights of its own."""
_TOGETHER = {"Add", "Div", "Max", "Min", "Mul", "PRelu", "Sub"}
MAPS, LAST = 1, -1
"""Where channels lie: those of images behind the rows, others last."""


class Slot(msgspec.Struct, eq=False):
    """One axis of a node's weights that runs over a group's channels.

    The axis is ``parts`` equal parts (query, key and value), each of ``width`` numbers per channel (those of a head).
    """

    node: Any
    index: int
    axis: int
    width: int = 1
    parts: int = 1

    def numbers(self, kept: Tensor, size: int) -> Tensor:
        """Where on the axis the channels ``kept`` of ``size`` lie."""
        within = (kept[:, None] * self.width + np.arange(self.width)).reshape(-1)
        found: Tensor = (np.arange(self.parts)[:, None] * size * self.width + within).reshape(-1)
        return found


class Group(msgspec.Struct, eq=False):
    """Channels that are kept or left out as one.

    Attributes
    ----------
    size : int
        How many channels.
    makers, others, readers : list of Slot
        Weights that make the channels, that work on each of them (biases, normalizations), and that read them.
    depthwise, flattened, attention : list of node
        Whose attributes or constants say how many there are.
    fixed : bool
        Something needs all of them.
    """

    size: int
    makers: list[Slot] = []
    others: list[Slot] = []
    readers: list[Slot] = []
    depthwise: list[Any] = []
    flattened: list[Any] = []
    attention: list[Any] = []
    fixed: bool = False


class _Place(msgspec.Struct, frozen=True):
    """Where in a tensor a group's channels are; ``width`` 0 is as wide as whoever reads it says."""

    group: Group
    axis: int
    width: int = 1


def find_groups(graph: Rewriting) -> list[Group]:
    """Groups whose channels can be left out: they are made and read by products and convolutions with constant weights."""
    return _Search(graph).run()


class _Search:
    def __init__(self, graph: Rewriting) -> None:
        self.graph = graph
        self.places: dict[str, _Place] = {}
        self.groups: list[Group] = []
        self.merged: dict[int, Group] = {}
        noted = [v for v in graph.graph.value_info if v.type.HasField("tensor_type")]
        self.sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in noted}
        """Of values whose shapes the exporter noted; 0 is unknown."""

    def run(self) -> list[Group]:
        for node in self.graph.graph.node:
            self._visit(node)
        for name in self.graph.kept:
            self._fix(name)
        alive = [group for group in self.groups if id(group) not in self.merged]
        return [group for group in alive if not group.fixed and group.makers and group.readers]

    def _visit(self, node: Any) -> None:
        plain = node.domain in ("", "ai.onnx")
        rule = _RULES.get(node.op_type) if plain else _MICROSOFT_RULES.get(node.op_type)
        if node.op_type in _ALONE:
            rule = _Search._pass
        if rule is None or not rule(self, node):
            for name in node.input:
                self._fix(name)

    # -- operators

    def _conv(self, node: Any) -> bool:
        weights = self.graph.value(node.input[1])
        if weights is None:
            return False
        place, groups = self._place(node.input[0]), self.graph.attribute(node, "group", 1)
        if groups == weights.shape[0] and weights.shape[1] == 1 and place and place.group.size == groups:
            place.group.others += [Slot(node, i, 0) for i in range(1, len(node.input))]
            place.group.depthwise.append(node)
            self.places[node.output[0]] = place
            return True
        if groups != 1:
            return False
        if place:
            place.group.readers.append(Slot(node, 1, 1))
        self._make(node, weights.shape[0], MAPS, 0, [2] if len(node.input) > 2 else [])
        return True

    def _matmul(self, node: Any) -> bool:
        weights = self.graph.value(node.input[1])
        if weights is None or weights.ndim != 2:
            return False
        self._read(node, weights, 0)
        self._make(node, weights.shape[1], LAST, 1, [])
        return True

    def _gemm(self, node: Any) -> bool:
        weights = self.graph.value(node.input[1])
        if weights is None or self.graph.attribute(node, "transA", 0):
            return False
        turned = self.graph.attribute(node, "transB", 0)
        made = weights.shape[0 if turned else 1]
        bias = self.graph.value(node.input[2]) if len(node.input) > 2 else None
        if len(node.input) > 2 and (bias is None or bias.shape[-1:] not in ((made,), (1,), ())):
            return False
        self._read(node, weights, 1 if turned else 0)
        self._make(node, made, LAST, 0 if turned else 1, [2] if bias is not None and bias.shape[-1:] == (made,) else [])
        return True

    def _norm(self, node: Any) -> bool:
        place = self._place(node.input[0])
        if place and all(self.graph.value(name) is not None for name in node.input[1:]):
            place.group.others += [Slot(node, i, 0) for i in range(1, 5)]
            self.places[node.output[0]] = place
            return True
        return False

    def _pass(self, node: Any) -> bool:
        if place := self._place(node.input[0]):
            self.places[node.output[0]] = place
        return True

    def _together(self, node: Any) -> bool:
        first, second = (self._place(name) for name in node.input)
        if first and second:
            if (first.axis, first.width, first.group.size) != (second.axis, second.width, second.group.size):
                return False
            self.places[node.output[0]] = _Place(self._merge(first.group, second.group), first.axis, first.width)
            return True
        place, index = (first, 1) if first else (second, 0)
        constant = self.graph.value(node.input[index])
        if place is None or constant is None:
            return place is None
        axis = -3 if place.axis == MAPS else -1
        size = constant.shape[axis] if constant.ndim >= -axis else 1
        if size not in (1, place.group.size * max(place.width, 1)):
            return False
        if size > 1:
            place.group.others.append(Slot(node, index, axis, max(place.width, 1)))
        self.places[node.output[0]] = place
        return True

    def _mean(self, node: Any) -> bool:
        place = self._place(node.input[0])
        given = self.graph.value(node.input[1]) if len(node.input) > 1 else self.graph.attribute(node, "axes")
        if place is None or place.axis != MAPS or given is None or {int(a) for a in given} not in ({2, 3}, {-1, -2}):
            return place is None
        kept = self.graph.attribute(node, "keepdims", 1)
        self.places[node.output[0]] = place if kept else _Place(place.group, LAST)
        return True

    def _flatten(self, node: Any) -> bool:
        place = self._place(node.input[0])
        if place is None or place.axis != MAPS:
            return place is None
        if node.op_type == "Flatten":
            whole = bool(self.graph.attribute(node, "axis", 1) == 1)
        else:
            shape = self.graph.value(node.input[1])
            whole = shape is not None and self._flattens(node.input[0], [int(size) for size in shape])
            place.group.flattened += [node] if whole else []
        self.places[node.output[0]] = _Place(place.group, LAST, 0)
        return whole

    def _flattens(self, name: str, shape: list[int]) -> bool:
        """Whether maps reshaped so are one row of numbers for each row, as far as is known."""
        if len(shape) != 2 or shape in ([0, -1], [-1, -1]):
            return shape == [0, -1]
        sizes = self.sizes.get(name, [])
        return (
            len(sizes) == 4
            and all(sizes[1:])
            and shape[1] in (-1, math.prod(sizes[1:]))
            and shape[0] in (0, -1, sizes[0])
        )

    def _split(self, node: Any) -> bool:
        """Query, key and value, if attention is all that reads them."""
        read = {id(each): each for name in node.output for each in self.graph.readers[name]}
        reader = next(iter(read.values())) if len(read) == 1 else None
        if reader is None or reader.op_type != "MultiHeadAttention":
            return False
        return list(reader.input[:3]) == list(node.output)

    def _attention(self, node: Any) -> bool:
        split = self.graph.made_by(node.input[0], "Split")
        place = self._place(split.input[0]) if split is not None and split.output == node.input[:3] else None
        heads = self.graph.attribute(node, "num_heads")
        if place is None or place.group.readers or place.group.size % (3 * heads) or any(node.input[3:4]):
            self._fix(split.input[0] if split is not None else node.input[0])
            return False
        group, width = place.group, place.group.size // (3 * heads)
        for slot in (*group.makers, *group.others):
            slot.width, slot.parts = width, 3
        group.size = heads
        group.attention += [split, node]
        self.places[node.output[0]] = _Place(group, LAST, width)
        return True

    # -- groups

    def _place(self, name: str) -> _Place | None:
        place = self.places.get(name)
        return None if place is None else _Place(self._root(place.group), place.axis, place.width)

    def _root(self, group: Group) -> Group:
        while id(group) in self.merged:
            group = self.merged[id(group)]
        return group

    def _make(self, node: Any, size: int, axis: int, along: int, biases: list[int]) -> None:
        group = Group(size, [Slot(node, 1, along)], [Slot(node, index, -1) for index in biases], [], [], [], [])
        self.groups.append(group)
        self.places[node.output[0]] = _Place(group, axis)

    def _read(self, node: Any, weights: Tensor, axis: int) -> None:
        place = self._place(node.input[0])
        if place is None:
            return
        width, rest = divmod(weights.shape[axis], place.group.size)
        if place.axis != LAST or rest or place.width not in (0, width):
            place.group.fixed = True
            return
        place.group.readers.append(Slot(node, 1, axis, width))

    def _merge(self, first: Group, second: Group) -> Group:
        if first is not second:
            for name in ("makers", "others", "readers", "depthwise", "flattened", "attention"):
                getattr(first, name).extend(getattr(second, name))
            first.fixed |= second.fixed
            self.merged[id(second)] = first
        return first

    def _fix(self, name: str) -> None:
        if place := self._place(name):
            place.group.fixed = True


_RULES = {
    **dict.fromkeys(_TOGETHER, _Search._together),
    "BatchNormalization": _Search._norm,
    "Conv": _Search._conv,
    "Flatten": _Search._flatten,
    "Gemm": _Search._gemm,
    "MatMul": _Search._matmul,
    "ReduceMean": _Search._mean,
    "Reshape": _Search._flatten,
    "Split": _Search._split,
}
_MICROSOFT_RULES = {"MultiHeadAttention": _Search._attention}
