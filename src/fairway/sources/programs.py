"""A torch module as an exported program, beside or in place of its ONNX graph."""

from __future__ import annotations

import inspect
import io
from collections.abc import Sequence
from typing import Any

from fairway.core.errors import InvalidSource
from fairway.core.extras import require
from fairway.engines.programs import clean_program
from fairway.sources.quiet import quiet

PROGRAM = "model.pt2"


def export_program(module: Any, examples: Sequence[Any], free: Sequence[Sequence[int]]) -> bytes:
    """The content of a ``.pt2`` file that :class:`~fairway.engines.torch.TorchEngine` runs.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode; ``forward`` takes tensors in order.
    examples : sequence of array or tensor
        Two rows at least of each input.
    free : sequence of sequence of int
        Which axes of each input have any size.

    Raises
    ------
    InvalidSource
        If torch cannot export the module so.
    """
    torch: Any = require("torch", extra="torch")
    given = tuple(torch.as_tensor(example).clone() for example in examples)  # one given twice would count as one input
    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in free)
    held = io.BytesIO()
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(module, given, dynamic_shapes=(shapes,) if is_variadic(module) else shapes)
            program._example_inputs = None  # torch would keep them as a pickle
            torch.export.save(program, held)
    except Exception as error:
        raise InvalidSource(f"torch cannot export {type(module).__name__}: {_first_line(error)}") from error
    _check_free(program, free, module)
    return clean_program(held.getvalue(), type(module).__name__)


def is_variadic(module: Any) -> bool:
    """Whether ``forward`` takes ``*inputs``, which count as one argument."""
    return [p.kind for p in inspect.signature(module.forward).parameters.values()] == [inspect.Parameter.VAR_POSITIONAL]


def _check_free(program: Any, free: Sequence[Sequence[int]], module: Any) -> None:
    """The exporter may fix an axis without a word."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    for name, axes in zip(program.graph_signature.user_inputs, free, strict=True):
        for axis in axes:
            size = values[name].shape[axis]
            fixed = size if type(size) is int else size.node.maybe_as_int()
            if fixed is not None:
                raise InvalidSource(
                    f"torch exports {type(module).__name__} with axis {axis} of {name!r} fixed to {fixed}; sizes taken from "
                    "the example in forward are the usual cause"
                )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
