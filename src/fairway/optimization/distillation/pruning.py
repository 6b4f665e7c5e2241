"""A torch module without the channels and neurons that weigh least, to be taught again what it knew."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require
from fairway.core.tensors import Tensor
from fairway.optimization.distillation.modules import answer_of

_MULTIPLE = 8
"""What is left of a layer is so many channels, or a multiple, where it has enough: vector units take them whole."""


def pruned_module(teacher: Any, feed: Mapping[str, Tensor], share: float) -> Any:
    """A copy of ``teacher`` whose layers have ``share`` fewer channels or neurons: those whose weights are least.

    Layers that depend on each other, through additions or concatenations, lose the same channels. The answer keeps its
    shape. What is left has the teacher's weights.

    Parameters
    ----------
    teacher : torch.nn.Module
        Of convolutions and linear layers. Transformers of Hugging Face's are made smaller by layers and heads:
        :func:`~fairway.optimization.distillation.students.smaller_transformer`.
    feed : mapping of name to array
        Two rows at least of what its graph takes.
    share : float
        Between 0 and 1, of each layer's channels.

    Raises
    ------
    InvalidConfig
        If there is nothing to leave out, or what is left does not answer.
    MissingExtra
        Without ``fairway[prune]``.

    References
    ----------
    G. Fang, X. Ma, M. Song, M. B. Mi, X. Wang, "DepGraph: Towards any structural pruning", CVPR 2023.
    """
    torch: Any = require("torch", extra="prune")
    pruning: Any = require("torch_pruning", extra="prune")
    if hasattr(teacher, "config"):
        raise InvalidConfig(
            "a Hugging Face transformer is made smaller by layers and heads; set these in [distill], not prune"
        )
    module = copy.deepcopy(teacher).eval()
    rows = {name: torch.as_tensor(array) for name, array in feed.items()}
    before, wanted = _count(module), tuple(_answer(torch, module, rows).shape)
    try:
        pruner = pruning.pruner.BasePruner(
            module,
            example_inputs=rows,
            forward_fn=answer_of,
            importance=pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=share,
            ignored_layers=_last(module, rows),
            round_to=_MULTIPLE,
        )
        pruner.step()
        given = tuple(_answer(torch, module, rows).shape)
    except Exception as error:
        raise InvalidConfig(
            f"no channels of {type(teacher).__name__} can be left out ({type(error).__name__}: {error}); name a student: "
            'student = "module:callable" in [distill]'
        ) from error
    if given != wanted:
        raise InvalidConfig(
            f"without {share:.0%} of its channels {type(teacher).__name__} answers with shape {list(given)} in place of "
            f'{list(wanted)}; name a student: student = "module:callable" in [distill]'
        )
    if _count(module) == before:
        raise InvalidConfig(
            f"nothing of {type(teacher).__name__} can be left out: its layers have fewer than {2 * _MULTIPLE} channels; name a "
            'student: student = "module:callable" in [distill]'
        )
    return module


def _answer(torch: Any, module: Any, rows: Mapping[str, Any]) -> Any:
    with torch.no_grad():
        return answer_of(module, rows)


def _last(module: Any, rows: Mapping[str, Any]) -> list[Any]:
    """Layers whose outputs are the answer: nothing with weights comes after them."""
    answer = answer_of(module, rows)
    last, queue, seen = set[int](), [answer.grad_fn], set[Any]()
    while queue:
        step = queue.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        held = [inner.variable for inner, _ in step.next_functions if hasattr(inner, "variable")]
        held += [
            deeper.variable
            for inner, _ in step.next_functions
            if inner is not None and type(inner).__name__ in ("TBackward0", "PermuteBackward0")
            for deeper, _ in inner.next_functions
            if hasattr(deeper, "variable")
        ]
        if held:
            last |= {id(variable) for variable in held}
        else:
            queue += [inner for inner, _ in step.next_functions]
    return [each for each in module.modules() if any(id(own) in last for own in each.parameters(recurse=False))]


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
