"""An ONNX graph under a rewriter's hands: who makes a value, who reads it, what it is if it is constant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fairway.core.extras import require
from fairway.core.tensors import Tensor


class Rewriting:
    """The main graph of ``model`` (a ``ModelProto`` with all its data), changed in place.

    Attributes
    ----------
    graph : GraphProto
    """

    def __init__(self, model: Any) -> None:
        self.onnx = require("onnx", extra="optimize")
        self.model, self.graph = model, model.graph
        self.constants: dict[str, Any] = {tensor.name: tensor for tensor in self.graph.initializer}
        self._number = 0
        self.refresh()

    def refresh(self) -> None:
        """Look at the graph again."""
        self.maker: dict[str, Any] = {}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in self.graph.node:
            self.maker.update(dict.fromkeys(node.output, node))
            for name in set(node.input):
                self.readers[name].append(node)
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        self._nodes = {node.name for node in self.graph.node}
        self.outputs = {value.name for value in self.graph.output}
        inner = {
            name
            for node in self.graph.node
            for attribute in node.attribute
            for part in (attribute.g, *attribute.graphs)
            for each in part.node
            for name in each.input
        }
        self.kept = self.outputs | inner
        """Values that are read where this does not look."""

    def value(self, name: str) -> Tensor | None:
        """The constant called ``name``, or ``None``."""
        tensor = self.constants.get(name)
        return None if tensor is None else np.asarray(self.onnx.numpy_helper.to_array(tensor))

    def made_by(self, name: str, *operators: str) -> Any:
        """The node that makes ``name`` if it is one of ``operators`` of the standard domain, else ``None``."""
        node = self.maker.get(name)
        return node if node is not None and node.domain in ("", "ai.onnx") and node.op_type in operators else None

    def attribute(self, node: Any, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        return next(
            (self.onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name),
            default,
        )

    def alone(self, name: str) -> bool:
        """Whether exactly one node reads ``name``, and nothing else."""
        return name not in self.kept and len(self.readers[name]) == 1

    def name(self, hint: str) -> str:
        """A name that nothing has."""
        taken = (self.maker, self.constants, self.readers, self._nodes)
        while any((name := f"{hint}_{self._number}") in names for names in taken):
            self._number += 1
        self._number += 1
        return name

    def constant(self, value: Tensor, hint: str) -> str:
        """Add a constant."""
        name = self.name(hint)
        tensor = self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        self.graph.initializer.append(tensor)
        self.constants[name] = self.graph.initializer[-1]
        return name

    def node(self, operator: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any) -> Any:
        """A new node, not yet in the graph."""
        return self.onnx.helper.make_node(operator, inputs, outputs, self.name(operator), domain=domain, **attributes)

    def replace(self, old: Iterable[Any], new: Mapping[str, Sequence[Any]]) -> None:
        """Put nodes before those that make the values that ``new`` names, and take ``old`` away.

        Nodes are known by what they make: those that were looked at before are copies afterwards.
        """
        gone = {node.output[0] for node in old}
        nodes: list[Any] = []
        for node in self.graph.node:
            first = node.output[0] if node.output else ""
            nodes += new.get(first, ())
            if first not in gone:
                nodes.append(node)
        copied = [self.onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copied)
        self.refresh()

    def sweep(self) -> None:
        """Drop nodes and constants that nothing reads any more."""
        while True:
            read = {name for node in self.graph.node for name in node.input} | self.kept
            dead = [node for node in self.graph.node if not read.intersection(node.output)]
            if not dead:
                break
            self.replace(dead, {})
        unread = [t for t in self.graph.initializer if t.name not in read]
        for tensor in unread:
            self.graph.initializer.remove(tensor)
            del self.constants[tensor.name]
        self.refresh()

    def require_domain(self, domain: str, version: int = 1) -> None:
        """Import an operator set."""
        if domain not in {entry.domain for entry in self.model.opset_import}:
            self.model.opset_import.add(domain=domain, version=version)

    def forget_domain(self, domain: str) -> None:
        """No longer import an operator set that no node uses."""
        if domain not in {node.domain for node in self.graph.node}:
            for entry in [e for e in self.model.opset_import if e.domain == domain]:
                self.model.opset_import.remove(entry)
