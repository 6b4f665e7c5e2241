"""Tensor parallelism: each rank holds some columns of every large linear layer, and the ranks exchange what these give.

A layer's columns are computed apart and gathered. Where one layer's columns reach nothing but, element by element, a second
layer, they stay apart: each rank holds the second layer's rows that belong to them, and one sum over the ranks is left.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fairway.core.errors import InvalidBundle
from fairway.engines.torch_parallel.graphs import Part, own, weight

LARGE = 1 << 16
"""Bytes of a weight from which on it is shared out: below, exchanging columns costs more than computing them."""
_POINTWISE = (
    "relu", "relu6", "gelu", "silu", "tanh", "sigmoid", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "elu", "mish",
    "softplus", "dropout", "clone",
)  # fmt: skip
_TURNED: dict[str, list[tuple[Any, ...]]] = {
    "aten.t.default": [()],
    "aten.transpose.int": [(0, 1), (1, 0)],
    "aten.permute.default": [([1, 0],)],
}


class _Linear(NamedTuple):
    """A product of a node's value and a weight."""

    node: Any
    given: Any
    weight: str
    columns: int
    """The axis of the weight as it is kept along which columns lie."""
    bias: Any


def shard(torch: Any, part: Part, source: Any, rank: int, ranks: int, device: str, name: str) -> Any:
    """The whole graph with this rank's share of the weights.

    Raises
    ------
    InvalidBundle
        If it has no large linear layer.
    """
    linears = _shared(part.graph, source, ranks, name)
    pairs = _pairs(linears)
    rows = {second.node for second in pairs.values()}
    shares: dict[str, Any] = {}
    for linear in linears.values():
        whole = weight(source, linear.weight)
        if linear.node in rows:
            _sum_rows(torch, part.graph, linear)
            axis = 1 - linear.columns
        else:
            _own_columns(torch, part.graph, linear, whole.shape[linear.columns], rank, ranks, linear.node not in pairs)
            axis = linear.columns
        shares[linear.weight] = own(torch, _share(torch, whole, axis, rank, ranks), device)
    names = {node.target for node in part.graph.nodes if node.op == "get_attr"} - set(shares)
    rest = {kept: own(torch, weight(source, kept), device) for kept in names}
    part.graph.lint()
    return torch.fx.GraphModule(shares | rest, part.graph)


def check_shared(source: Any, ranks: int, name: str) -> None:
    """Raise as :func:`shard` would."""
    _shared(source.graph, source, ranks, name)


def _shared(graph: Any, source: Any, ranks: int, name: str) -> dict[Any, _Linear]:
    linears = _linears(graph, source, ranks)
    if not linears:
        raise InvalidBundle(
            f"{name} has no linear layer of {LARGE >> 10} KiB or more that ranks could share; "
            'set parallel = "pipeline", or ranks = 1, in the engine\'s options'
        )
    return linears


def _share(torch: Any, whole: Any, axis: int, rank: int, ranks: int) -> Any:
    share = torch.tensor_split(whole.detach(), ranks, dim=axis)[rank].clone(memory_format=torch.contiguous_format)
    return torch.nn.Parameter(share, requires_grad=False) if isinstance(whole, torch.nn.Parameter) else share


def _linears(graph: Any, source: Any, ranks: int) -> dict[Any, _Linear]:
    """Every large one, all of whose weight's uses are such."""
    found = {linear.node: linear for node in graph.nodes if (linear := _linear(node)) is not None}
    users: dict[str, list[Any]] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            users.setdefault(node.target, []).extend(_beyond(user) for user in node.users)

    def shared(linear: _Linear) -> bool:
        whole = weight(source, linear.weight)
        if whole.ndim != 2 or whole.nbytes < LARGE or min(whole.shape) < ranks:
            return False
        others = [found.get(user) for user in users[linear.weight] for user in user]
        return all(o is not None and (o.weight, o.columns) == (linear.weight, linear.columns) for o in others)

    return {node: linear for node, linear in found.items() if shared(linear)}


def _beyond(node: Any) -> list[Any]:
    """Who uses a weight, if only after turning it."""
    return list(node.users) if _turns(node) else [node]


def _turns(node: Any) -> bool:
    return node.op == "call_function" and tuple(node.args[1:]) in _TURNED.get(str(node.target), [])


def _linear(node: Any) -> _Linear | None:
    if node.op != "call_function" or node.kwargs:
        return None
    operator, args = str(node.target), node.args
    if operator == "aten.linear.default":
        given, held, bias, columns = args[0], args[1], args[2] if len(args) > 2 else None, 0
    elif operator in ("aten.mm.default", "aten.matmul.default"):
        (given, held), bias, columns = args, None, 1
    elif operator == "aten.addmm.default":
        (bias, given, held), columns = args, 1
    else:
        return None
    if _turns(held):
        held, columns = held.args[0], 1 - columns
    if held.op != "get_attr" or (bias is not None and len(bias.meta["val"].shape) != 1):
        return None
    return _Linear(node, given, held.target, columns, bias)


def _pairs(linears: dict[Any, _Linear]) -> dict[Any, _Linear]:
    """First layers of pairs with their second."""
    counts = [linear.weight for linear in linears.values()]
    pairs, taken = dict[Any, _Linear](), set[Any]()
    for first in linears.values():
        node = first.node
        if node in taken:
            continue
        while len(node.users) == 1:
            (user,) = node.users
            second = linears.get(user)
            if (
                second is not None
                and second.given is node
                and counts.count(second.weight) == counts.count(first.weight) == 1
            ):
                pairs[first.node] = second
                taken.add(user)
            if second is not None or not _is_pointwise(user, node):
                break
            node = user
    return pairs


def _is_pointwise(node: Any, given: Any) -> bool:
    name = str(node.target).removeprefix("aten.").partition(".")[0]
    return node.op == "call_function" and name in _POINTWISE and node.all_input_nodes == [given]


def _own_columns(torch: Any, graph: Any, linear: _Linear, columns: int, rank: int, ranks: int, gathered: bool) -> None:
    node, sizes = linear.node, _sizes(columns, ranks)
    if linear.bias is not None:
        with graph.inserting_before(node):
            args = (linear.bias, 0, sum(sizes[:rank]), sizes[rank])
            bias = graph.call_function(torch.ops.aten.narrow.default, args)
        node.args = tuple(bias if arg is linear.bias else arg for arg in node.args)
    if gathered:
        with graph.inserting_after(node):
            whole = graph.call_function(gather, (node, sizes))
        node.replace_all_uses_with(whole, delete_user_cb=lambda user: user is not whole)


def _sum_rows(torch: Any, graph: Any, linear: _Linear) -> None:
    node = linear.node
    if linear.bias is not None:
        if str(node.target) == "aten.addmm.default":
            node.target, node.args = torch.ops.aten.mm.default, node.args[1:]
        else:
            node.args = node.args[:2]
    with graph.inserting_after(node):
        whole = graph.call_function(add_up, (node, linear.bias))
    node.replace_all_uses_with(whole, delete_user_cb=lambda user: user is not whole)


def _sizes(columns: int, ranks: int) -> list[int]:
    """As ``torch.tensor_split`` has them."""
    return [columns // ranks + (rank < columns % ranks) for rank in range(ranks)]


def gather(columns: Any, sizes: list[int]) -> Any:
    """All ranks' columns side by side. They travel as bytes, padded to the widest."""
    import torch

    if not columns.numel():
        return columns.new_empty((*columns.shape[:-1], sum(sizes)))
    widest = max(sizes)
    padded = torch.nn.functional.pad(columns, (0, widest - columns.shape[-1])).contiguous()
    sent = padded.view(-1).view(torch.uint8)
    received = [torch.empty_like(sent) for _ in sizes]
    torch.distributed.all_gather(received, sent)
    parts = [held.view(padded.dtype).view(padded.shape) for held in received]
    return torch.cat([held[..., :size] for held, size in zip(parts, sizes, strict=True)], -1)


def add_up(products: Any, bias: Any) -> Any:
    """The sum over all ranks, in FP32 at least, and the bias."""
    import torch

    total = products.float() if products.dtype in (torch.float16, torch.bfloat16) else products.contiguous()
    if total.numel():
        torch.distributed.all_reduce(total)
    if bias is not None:
        total = total + bias
    return total.to(products.dtype)
