"""PyTorch modules and exported programs, through ``torch.onnx.export``."""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.errors import InvalidData, InvalidSource
from fairway.core.extras import require
from fairway.core.tensors import Tensor, Tensors
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.sources.candidate import GRAPH, Candidate, Context, Source
from fairway.sources.checkpoints import refuse_untrusted
from fairway.sources.describe import describe_graph
from fairway.sources.graphs import tidy_graph
from fairway.sources.programs import is_variadic
from fairway.sources.quiet import quiet
from fairway.sources.tables import Table

_EXAMPLE_ROWS = 2  # with one row the exporter would take 1 for a fixed size


def load_torch(path: Path, *, trust: bool) -> Any:
    """Read a ``.pt2`` exported program or a pickled module.

    Both can run code as they are read. A ``.pt2`` is an archive whose weights may be pickles and whose symbolic sizes are
    evaluated as Python expressions; a ``.pt`` is a pickle.

    Raises
    ------
    UntrustedSource
        Without ``trust``.
    InvalidSource
        If the file is broken, or holds weights without a module.
    """
    torch = require("torch", extra="torch")
    if path.suffix.lower() == ".pt2":
        if not trust:
            reason = "is an exported program: torch evaluates expressions and may unpickle objects in it as it reads it"
            raise refuse_untrusted(path, reason, "Or give the module through module:callable.")
        return _read(path, lambda: torch.export.load(path))
    if _is_torchscript(path):
        raise InvalidSource(
            f"{path} is TorchScript, which torch has deprecated; export the module with torch.export.save to a .pt2 file, or "
            "give it through module:callable"
        )
    if _is_weights(torch, path):
        raise InvalidSource(
            f"{path} holds weights without the module that they belong to; write a function that builds the module, loads "
            "them and returns it, and name it as the source: module:callable"
        )
    if not trust:
        reason = "is a pickled module: reading it runs whatever code it carries"
        raise refuse_untrusted(path, reason, "Or give the module through module:callable.")
    return _read(path, lambda: torch.load(path, map_location="cpu", weights_only=False))


def convert_torch(source: Source, context: Context) -> Iterator[Candidate]:
    """Export with a free batch axis. Inputs are named after the parameters of ``forward``.

    Raises
    ------
    InvalidSource
        If there are no example inputs and none can be made from the reference, or torch cannot export the module.
    """
    torch = require("torch", extra="torch")
    require("onnxscript", extra="torch")
    program = isinstance(source.model, torch.export.ExportedProgram)
    module = source.model.module(check_guards=False) if program else source.model
    names = list(source.model.graph_signature.user_inputs) if program else _parameters(module)
    training = not program and module.training
    if training:
        module.eval()
    try:
        if program:
            export_graph(source.model, (), context.folder / GRAPH, inputs=())
        else:
            examples = tuple(map(_tensor, source.examples)) or _examples(names, context)
            names = names[: len(examples)]
            axes = [{0: "batch"} for _ in examples]
            export_graph(module, examples, context.folder / GRAPH, inputs=names, axes=axes)
        yield describe_graph(context, _answers(module), rename=True)
    finally:
        if training:
            module.train()


def export_graph(
    model: Any,
    examples: tuple[Any, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    axes: Sequence[Mapping[int, str]] = (),
) -> None:
    """Write a module or an exported program as ONNX; ``axes`` names each input's free axes. Raises :class:`InvalidSource`."""
    torch = require("torch", extra="torch")
    sizes = {name: torch.export.Dim(name) for axis in axes for name in axis.values()}
    options: dict[str, Any] = {}
    if axes:
        shapes = tuple({index: sizes[name] for index, name in axis.items()} for axis in axes)
        options["dynamic_shapes"] = (shapes,) if is_variadic(model) else shapes
        options["input_names"] = list(inputs)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(model, examples, dynamo=True, verbose=False, **options)
            program.save(path)
    except Exception as error:
        raise _refuse_export(model, _reason(error)) from error
    tidy_graph(path)
    _check_axes(model, path, axes)


def _check_axes(model: Any, path: Path, axes: Sequence[Mapping[int, str]]) -> None:
    """The exporter may fix an axis that it was told to leave free, without a word."""
    if not axes:
        return
    engine = OnnxRuntimeEngine(path)
    engine.close()
    for spec, free in zip(engine.inputs, axes, strict=True):
        for index, name in free.items():
            if spec.shape[index] != -1:
                raise _refuse_export(model, f"the {name} axis of {spec.name!r} came out fixed to {spec.shape[index]}")


def _refuse_export(model: Any, reason: str) -> InvalidSource:
    return InvalidSource(
        f"torch cannot export {type(model).__name__} to ONNX with a free batch axis: {reason}. Data-dependent Python code in "
        "forward, or sizes fixed to the example's, are the usual causes"
    )


def flatten_outputs(given: Any) -> list[Tensor]:
    """A module's outputs (a tensor, a mapping, a sequence or a nest of these) as arrays, in order."""
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [array for item in given.values() for array in flatten_outputs(item)]
    if isinstance(given, tuple | list):
        return [array for item in given for array in flatten_outputs(item)]
    array: Tensor = given.detach().cpu().numpy()
    return [array]


def _answers(module: Any) -> Any:
    torch = require("torch", extra="torch")

    def answers(feed: Tensors, _: Table | None) -> list[Tensor]:
        with torch.no_grad():
            return flatten_outputs(module(*[torch.tensor(array) for array in feed.values()]))

    return answers


def _parameters(module: Any) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [p for p in inspect.signature(module.forward).parameters.values() if p.kind in kinds]
    names = [p.name for p in given if p.default is inspect.Parameter.empty]
    return names or [p.name for p in given[:1]]


def _examples(names: Sequence[str], context: Context) -> tuple[Any, ...]:
    """Example inputs from the reference: all features as one matrix, one list column, or one column per parameter."""
    table = context.reference
    if table is None:
        raise InvalidSource(
            "a torch module does not tell what it takes; give a reference data file, or return (module, example_inputs)"
        )
    rows = table.select(np.arange(_EXAMPLE_ROWS) % table.rows)
    if len(names) > 1:
        absent = [name for name in names if name not in rows.columns]
        if absent:
            raise InvalidData(
                f"forward takes {', '.join(names)}, but {table.origin} has no column {', '.join(map(repr, absent))}; name the "
                "columns so, or return (module, example_inputs)"
            )
        return tuple(_tensor(rows.column(name)) for name in names)
    columns = [rows.column(name) for name in context.features]
    text = [name for name, array in zip(context.features, columns, strict=True) if array.dtype.kind not in "biuf"]
    if text:
        raise InvalidData(f"{table.origin}: a torch module takes numbers, and {', '.join(map(repr, text))} hold none")
    if len(columns) == 1 and columns[0].ndim > 1:
        return (_tensor(columns[0]),)
    return (_tensor(np.column_stack([array.astype(np.float32) for array in columns])),)


def _tensor(given: Any) -> Any:
    torch = require("torch", extra="torch")
    if isinstance(given, torch.Tensor):
        return given
    array = np.asarray(given)
    return torch.tensor(array.astype(np.float32) if array.dtype == np.float64 else array)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _is_weights(torch: Any, path: Path) -> bool:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 (not weights alone, whatever it is)
        return False
    return not isinstance(held, torch.nn.Module)


def _read(path: Path, read: Any) -> Any:
    try:
        return read()
    except Exception as error:
        raise InvalidSource(f"{path} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"
