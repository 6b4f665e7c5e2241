"""A smaller transformer that begins with its teacher's weights."""

from __future__ import annotations

import copy
from typing import Any

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require


def smaller_transformer(teacher: Any, *, layers: int = 0, heads: int = 0) -> tuple[Any, dict[str, str]]:
    """A Hugging Face model of the teacher's class with fewer layers, and perhaps fewer heads and so narrower.

    It starts from evenly spaced layers of the teacher, the first and the last among them; where it is narrower, from the
    first heads and units.

    Parameters
    ----------
    teacher : PreTrainedModel
    layers, heads : int
        0 is as many as the teacher has. The width of a head stays.

    Returns
    -------
    student : PreTrainedModel
    hidden : dict
        Its layers, and the teacher's that they started from.

    Raises
    ------
    InvalidConfig
        If the teacher is no such transformer, or is not larger.
    """
    config: Any = copy.deepcopy(getattr(teacher, "config", None))
    depth, width = getattr(config, "num_hidden_layers", 0), getattr(config, "num_attention_heads", 0)
    stack = _stack(teacher, depth) if depth else ""
    if not stack or not width:
        raise InvalidConfig(
            "the teacher's source is no transformer of Hugging Face's whose layers could be left out; name a student: "
            'student = "module:callable"'
        )
    layers, heads = layers or depth, heads or width
    if layers > depth or heads > width or (layers, heads) == (depth, width):
        raise InvalidConfig(
            f"a student of {layers} layers and {heads} heads is not smaller than its teacher of {depth} and {width}; set "
            "layers or heads in [distill]"
        )
    config.num_hidden_layers = layers
    if heads < width:
        config.hidden_size = config.hidden_size // width * heads
        config.num_attention_heads = heads
        if hasattr(config, "intermediate_size"):
            config.intermediate_size = config.intermediate_size * heads // width
    student = type(teacher)(config)
    chosen = [round(i * (depth - 1) / max(layers - 1, 1)) for i in range(layers)]
    hidden = {f"{stack}.{i}": f"{stack}.{source}" for i, source in enumerate(chosen)}
    _begin_with(student, teacher, hidden)
    return student, hidden


def _stack(network: Any, depth: int) -> str:
    """The name of the list of layers."""
    torch: Any = require("torch", extra="huggingface")
    return next(
        (
            name
            for name, module in network.named_modules()
            if isinstance(module, torch.nn.ModuleList) and len(module) == depth
        ),
        "",
    )


def _begin_with(student: Any, teacher: Any, hidden: dict[str, str]) -> None:
    weights = teacher.state_dict()
    state = student.state_dict()
    for name, tensor in state.items():
        own = next((own for own in hidden if name.startswith(own + ".")), "")
        source = weights[hidden[own] + name.removeprefix(own)] if own else weights[name]
        tensor.copy_(source[tuple(slice(size) for size in tensor.shape)])
    student.load_state_dict(state)
