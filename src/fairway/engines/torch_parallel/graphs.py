"""Parts of an exported program's graph: what they are given, what they pass on, and which weights they hold."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from fairway.core.errors import InvalidBundle

_VIEWS_OF_MEMORY = ("aten.as_strided", "aten.set_")


def plain_module(program: Any, name: str) -> Any:
    """The program as a module whose graph writes into no tensor, so that a part's copy of a value stays the value.

    Raises
    ------
    InvalidBundle
        If it changes its weights or its inputs, or depends on how tensors lie in memory.
    """
    if any(_mutates(node) for node in program.graph.nodes):
        with warnings.catch_warnings():  # torch warns about its own insides
            warnings.simplefilter("ignore")
            program = program.run_decompositions({})
    signature = program.graph_signature
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate or any(map(_mutates, program.graph.nodes)):
        raise InvalidBundle(
            f"{name} writes into its own buffers or inputs, which several processes cannot share; "
            "set ranks = 1 in the engine's options"
        )
    module = program.module(check_guards=False)
    for node in module.graph.nodes:
        if str(node.target).startswith(_VIEWS_OF_MEMORY):
            raise InvalidBundle(
                f"{name} depends on how tensors lie in memory ({node.target}); set ranks = 1 in its options"
            )
    return module


def _mutates(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


class Part:
    """Consecutive operators of a graph as a graph of its own, with tensors and sizes in order as inputs and outputs."""

    def __init__(self, torch: Any, nodes: Sequence[Any], given: Sequence[Any], made: Sequence[Any]) -> None:
        self.graph = torch.fx.Graph()
        self.given, self.made = [Value(node) for node in given], [Value(node) for node in made]
        copies = {node: self.graph.placeholder(node.name) for node in given}
        wanted = {*nodes, *made}
        weights = [node for first in wanted for node in (first, *first.all_input_nodes) if node.op == "get_attr"]
        order = {weight.name: weight for weight in weights}
        for name in sorted(order):
            copies[order[name]] = self.graph.node_copy(order[name])
        for node in nodes:
            copies[node] = self.graph.node_copy(node, copies.__getitem__)
        self.graph.output(tuple(copies[node] for node in made))

    def move(self, torch: Any, device: str) -> None:
        """Have what the graph itself makes, such as a range, made on ``device``."""
        moved = torch.device(device)
        for node in self.graph.nodes:
            for field in ("args", "kwargs"):
                held = torch.fx.node.map_aggregate(
                    getattr(node, field), lambda value: moved if isinstance(value, torch.device) else value
                )
                setattr(node, field, held)

    def module(self, torch: Any, source: Any, device: str) -> Any:
        """It with its weights, which alone are kept; ``source`` is the whole module."""
        names = {node.target for node in self.graph.nodes if node.op == "get_attr"}
        return torch.fx.GraphModule({name: own(torch, weight(source, name), device) for name in names}, self.graph)


class Value:
    """What passes from part to part: a tensor with so many axes, or (``ndim`` is ``None``) a size."""

    def __init__(self, node: Any) -> None:
        value = node.meta.get("val")
        self.name = node.name
        self.ndim: int | None = len(value.shape) if hasattr(value, "shape") else None
        self.real = self.ndim is None and "float" in type(value).__name__.lower()


def weight(module: Any, name: str) -> Any:
    """The parameter or buffer of that dotted name."""
    for part in name.split("."):
        module = getattr(module, part)
    return module


def own(torch: Any, tensor: Any, device: str) -> Any:
    """The tensor on ``device`` in memory of its own, so that the rest of what was read can be freed."""
    held = tensor.detach().to(device)
    if held.untyped_storage().nbytes() > held.nbytes:
        held = held.clone(memory_format=torch.contiguous_format)
    return torch.nn.Parameter(held, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else held


def held_bytes(tensors: Iterable[Any]) -> int:
    """Of all memory behind the tensors, each once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
