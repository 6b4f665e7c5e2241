"""Texts of like length go together: whoever pads a batch pads to its longest row. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from fairway.core.manifest import Manifest
from fairway.core.tensors import Tensors
from fairway.serving.cost import CostCurve

Length: TypeAlias = Callable[[Tensors], int]


def length_of(manifest: Manifest) -> Length | None:
    """What tells the length to which a request's rows will be padded, ``None`` where the bundle pads nothing.

    The tokenizer pads. Its tokens are not known before it has run, so the longest text's bytes stand for them.
    """
    padded = next((str(step.parameters["input"]) for step in manifest.processing.pre if step.name == "tokenize"), None)
    if padded is None:
        return None
    name = padded

    def length(feed: Tensors) -> int:
        texts = feed.get(name)  # a raw request brings tokens, already padded
        return 1 if texts is None else max(map(len, texts.ravel().tolist()), default=0) or 1

    return length


def like(lengths: Sequence[int], rows: Sequence[int], curve: CostCurve) -> list[int]:
    """Which members of a batch, in order, should run with its first one; all of them unless padding costs more than a call.

    Parameters
    ----------
    lengths, rows : sequence of int
        Of each member.
    curve : CostCurve
        Over cells: rows times the length that they are padded to.

    Returns
    -------
    list of int
        Positions, always with 0.

    Examples
    --------
    >>> curve = CostCurve()
    >>> for cells in (10, 100, 1000) * 5:
    ...     curve.learn(cells, 100 + cells)
    >>> like([10, 500, 12, 11], [1, 1, 1, 1], curve)  # three short ones save 1464 cells by one more call, which costs 100
    [0, 2, 3]
    >>> like([10, 20, 12, 11], [1, 1, 1, 1], curve)
    [0, 1, 2, 3]
    """
    everyone = list(range(len(lengths)))
    cost = curve.cost
    if cost is None or cost.row_us <= 0:
        return everyone
    order = sorted(everyone, key=lengths.__getitem__)
    best, border, short = cost.base_us / cost.row_us, None, 0  # a call's overhead, in cells
    longest = lengths[order[-1]]
    for place in range(len(order) - 1):
        short += rows[order[place]]
        saved = short * (longest - lengths[order[place]])
        if saved > best:
            best, border = saved, place + 1
    if border is None:
        return everyone
    first = next(group for group in (order[:border], order[border:]) if 0 in group)
    if len(first) > 1:  # each half may still be uneven
        first.sort()
        inner = like([lengths[at] for at in first], [rows[at] for at in first], curve)
        return [first[at] for at in inner]
    return first
