"""Pipeline parallelism: each rank holds consecutive operators, and passes what later ones need to the next rank."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from fairway.core.errors import InvalidBundle
from fairway.engines.torch_parallel.graphs import Part, Value, weight

_KINDS = (
    "float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool",
)  # fmt: skip


def cut(torch: Any, module: Any, ranks: int, name: str) -> list[Part]:
    """The module's graph in ``ranks`` parts with about as many bytes of weights each.

    The same module is cut alike in every process.

    Raises
    ------
    InvalidBundle
        If fewer operators than ranks have weights.
    """
    graph = module.graph
    given = [node for node in graph.nodes if node.op == "placeholder"]
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "get_attr", "output")]
    (answer,) = (node for node in graph.nodes if node.op == "output")
    made = list(answer.args[0]) if isinstance(answer.args[0], (tuple, list)) else [answer.args[0]]
    costs: list[int] = []
    seen: set[str] = set()
    for node in nodes:
        new = {held.target for held in node.all_input_nodes if held.op == "get_attr"} - seen
        seen |= new
        costs.append(sum(weight(module, target).nbytes for target in new))
    if sum(cost > 0 for cost in costs) < ranks > 1:
        raise InvalidBundle(
            f"{name} has {sum(cost > 0 for cost in costs)} operators with weights, which ranks = {ranks} cannot share; "
            "set fewer in the engine's options"
        )
    last = {}
    for place, node in enumerate(nodes):
        for used in node.all_input_nodes:
            last[used] = place
    for node in made:
        last[node] = len(nodes)
    values = [*given, *nodes]
    first = dict.fromkeys(given, -1) | {node: place for place, node in enumerate(nodes)}

    def live(place: int) -> list[Any]:
        """What exists before the operator at ``place`` and is used from there on."""
        return [node for node in values if first[node] < place <= last.get(node, -1)]

    places = _places(costs, ranks, lambda place: len(live(place)))
    bounds = [0, *places, len(nodes)]
    passed = [given, *map(live, places), made]
    return [
        Part(torch, nodes[start:end], passed[rank], passed[rank + 1])
        for rank, (start, end) in enumerate(pairwise(bounds))
    ]


def _places(costs: Sequence[int], ranks: int, crossing: Any) -> list[int]:
    """Before which operators to cut: the largest part as small as can be, and little to pass on."""
    heavy = [place for place, cost in enumerate(costs) if cost]
    low, high = max((costs[place] for place in heavy), default=0), sum(costs)
    while low < high:
        middle = (low + high) // 2
        if len(_groups([costs[place] for place in heavy], ranks, middle)) > ranks:
            low = middle + 1
        else:
            high = middle
    groups = _groups([costs[place] for place in heavy], ranks, low)
    return [min(range(heavy[end - 1] + 1, heavy[end] + 1), key=crossing) for end in groups[:-1]]


def _groups(costs: Sequence[int], ranks: int, limit: int) -> list[int]:
    """Where groups of at most ``limit`` end; the last ones are shorter rather than fewer than ``ranks``."""
    ends: list[int] = []
    total = 0
    for place, cost in enumerate(costs):
        rest = len(costs) - place
        if place and (total + cost > limit or (total and rest == ranks - len(ends) - 1)):
            ends.append(place)
            total = 0
        total += cost
    return [*ends, len(costs)]


class Stage:
    """One rank's operators between the rank before and the rank after."""

    def __init__(self, torch: Any, run: Any, part: Part, rank: int, ranks: int, device: str) -> None:
        self._torch, self._run, self._part, self._device = torch, run, part, device
        self._before = rank - 1 if rank > 0 else None
        self._after = rank + 1 if rank < ranks - 1 else None

    def __call__(self, given: Sequence[Any], chunks: int) -> tuple[list[Any], Exception | None]:
        """Compute ``chunks`` parts of a call one after another; each is sent on while the next is computed.

        The first rank is given the call's inputs. The last one returns its outputs. An error is told to the ranks after this
        one instead of values, so that none of them waits for any.
        """
        torch, answers, sent = self._torch, [], list[Any]()
        failed: Exception | None = None
        pieces = list(zip(*(torch.tensor_split(x, chunks) if chunks > 1 else (x,) for x in given), strict=True))
        for chunk in range(chunks):
            values = list(pieces[chunk]) if self._before is None else self._receive(self._before)
            if values is not None and failed is None:
                try:
                    values = list(self._run(*values))
                except Exception as error:  # noqa: BLE001 (whatever an operator raises is told to who called)
                    failed = error
            if failed is not None:
                values = None
            if self._after is not None:
                sent += self._send(values, self._after)
            elif values is not None:
                answers.append(values)
        for work, _ in sent:
            work.wait()
        if self._after is not None or len(answers) < chunks:
            return [], failed
        return [torch.cat(parts) if chunks > 1 else parts[0] for parts in zip(*answers, strict=True)], failed

    def _send(self, values: Sequence[Any] | None, rank: int) -> list[Any]:
        """A head of fixed length with datatypes and shapes, on the CPU; then the tensors' bytes."""
        torch: Any = self._torch
        head, tensors = [int(values is not None)], []
        for value, kind in zip(values or (), self._part.made, strict=False):
            if kind.ndim is None:
                head.append(_bits(torch, value) if kind.real else int(value))
                continue
            head += [_KINDS.index(str(value.dtype).removeprefix("torch.")), *value.shape]
            tensors.append(value.contiguous().reshape(-1).view(torch.uint8))
        head += [0] * (_head(self._part.made) - len(head))
        flat = [torch.tensor(head, dtype=torch.int64), *(tensor for tensor in tensors if tensor.numel())]
        return [(torch.distributed.isend(tensor, rank), tensor) for tensor in flat]

    def _receive(self, rank: int) -> list[Any] | None:
        torch: Any = self._torch
        head = torch.empty(_head(self._part.given), dtype=torch.int64)
        torch.distributed.recv(head, rank)
        good, *numbers = head.tolist()
        if not good:
            return None
        values: list[Any] = []
        for kind in self._part.given:
            if kind.ndim is None:
                number = numbers.pop(0)
                values.append(_real(torch, number) if kind.real else number)
                continue
            dtype, shape = getattr(torch, _KINDS[numbers[0]]), numbers[1 : 1 + kind.ndim]
            del numbers[: 1 + kind.ndim]
            value = torch.empty(shape, dtype=dtype, device=self._device)
            if value.numel():
                torch.distributed.recv(value.view(-1).view(torch.uint8), rank)
            values.append(value)
        return values


def _head(values: Sequence[Value]) -> int:
    return 1 + sum(1 + (value.ndim or 0) for value in values)


def _bits(torch: Any, number: float) -> int:
    return int(torch.tensor(float(number), dtype=torch.float64).view(torch.int64).item())


def _real(torch: Any, bits: int) -> float:
    return float(torch.tensor(bits, dtype=torch.int64).view(torch.float64).item())
