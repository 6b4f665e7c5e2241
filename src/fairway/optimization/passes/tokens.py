"""Tokens that the others look at least are left behind from layer to layer: no weight changes, nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairway.optimization.graphs import external_files, load, operators, save_data
from fairway.optimization.passes.base import Needs, NothingToDo, Parameter, Pass, Sample
from fairway.optimization.rewrites.activations import watch
from fairway.optimization.rewrites.base import Rewriting
from fairway.optimization.rewrites.tokens import drop_tokens, layers

_FEWEST = 2


def schedule(count: int, tokens: int, first: int, share: float) -> dict[int, int]:
    """How many tokens each layer from ``first`` on works on, where the one before it has more.

    Examples
    --------
    >>> schedule(4, 64, 1, 0.5)
    {1: 32, 2: 16, 3: 8}
    """
    kept = {i: max(_FEWEST, round(tokens * share ** (i - first + 1))) for i in range(first, count)}
    return {i: n for i, n in kept.items() if n < kept.get(i - 1, tokens)}


def _apply(source: Path, destination: Path, parameters: Mapping[str, Any], sample: Sample) -> None:
    if "MultiHeadAttention" not in {name for _, name in operators(source)}:
        raise NothingToDo("the graph has no attention as one operator; the pass 'attention' makes it so")
    model = load(source, data=True)
    graph = Rewriting(model)
    found = layers(graph)
    if len(found) < 2:
        raise NothingToDo("tokens can be left behind only between layers whose query, key and value are one product")
    if _reads_all(graph):
        raise NothingToDo("the answer is made of every token's row")
    biases = sorted({node.input[5] for node in found if len(node.input) > 5 and node.input[5]})
    if len(biases) > 1 or (biases and not _same_for_all(source, biases[0], sample)):
        raise NothingToDo("which tokens a token may look at is not the same for all tokens")
    tokens = max(array.shape[1] for array in sample.feed.values() if array.ndim > 1)
    kept = schedule(len(found), tokens, parameters["first"], parameters["share"])
    if not kept:
        raise NothingToDo(f"the graph has {len(found)} layers, so there is none after layer {parameters['first']}")
    drop_tokens(graph, kept)
    save_data(model, destination, bool(external_files(source)))


def _reads_all(graph: Rewriting) -> bool:
    """Whether some answer is not behind the choice of the first token."""
    gathers = [
        node.output[0] for node in graph.graph.node if node.op_type in ("Gather", "Squeeze") and _is_first(graph, node)
    ]
    reached, todo = set[str](), list(graph.outputs)
    while todo:
        name = todo.pop()
        if name in reached or name in gathers:
            continue
        reached.add(name)
        node = graph.maker.get(name)
        if node is not None:
            if node.op_type == "MultiHeadAttention":
                return True
            todo += [each for each in node.input if each]
    return False


def _is_first(graph: Rewriting, node: Any) -> bool:
    """Chosen directly, or by the pass ``narrow`` before the last layer, which leaves one row."""
    if node.op_type == "Squeeze":
        axes = graph.value(node.input[1]) if len(node.input) > 1 else None
        return axes is not None and axes.tolist() == [1]
    chosen = graph.value(node.input[1])
    return graph.attribute(node, "axis", 0) == 1 and chosen is not None and not chosen.any() and chosen.size == 1


def _same_for_all(source: Path, bias: str, sample: Sample) -> bool:
    """Whether every query has the same added to its scores, on all rows of the sample."""
    return all(
        np.array_equal(array, np.broadcast_to(array[:, :, :1], array.shape))
        for (array,) in watch(source, [bias], sample)
    )


PASS = Pass(
    name="tokens",
    summary="tokens that are attended least are left behind, layer by layer",
    lossless=False,
    apply=_apply,
    needs=Needs(data=True),
    changes=frozenset({"graph"}),
    parameters={
        "first": Parameter("layers that see every token", 2, low=1, high=24, log=True),
        "share": Parameter("of its tokens that each layer after these works on", 0.6, low=0.3, high=0.95),
    },
)
