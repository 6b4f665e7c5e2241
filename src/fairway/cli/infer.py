"""``fairway infer``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

import fairway
from fairway.cli.options import Json
from fairway.cli.output import emit
from fairway.core.errors import InvalidConfig, ServerUnavailable

if TYPE_CHECKING:
    from fairway.core.messages import InferResponse
    from fairway.core.tensors import Tensors

SHOWN = 20
"""Rows of an answer that a terminal gets; ``--json`` gives all."""


def infer(
    model: Annotated[str, typer.Argument(help="A model's name on the server; NAME:VERSION asks that version.")],
    data: Annotated[
        str | None, typer.Option(help="A data file; its columns fill the inputs.", show_default=False)
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many of the file's rows to send, from the first.")] = 1,
    inputs: Annotated[
        str | None, typer.Option(help="Inputs as JSON, instead of a file: '{\"x\": [[1.0, 2.0]]}'.", show_default=False)
    ] = None,
    url: Annotated[str, typer.Option(help="The server.", envvar="FAIRWAY_URL")] = "http://127.0.0.1:8000",
    key: Annotated[str | None, typer.Option(help="Route key: the same key stays with one version.")] = None,
    json: Json = False,
) -> None:
    """Ask a server: rows of a data file, or inputs given as JSON."""
    from fairway.core.manifest import ModelRef

    if (data is None) == (inputs is None):
        raise InvalidConfig("give either --data FILE or --inputs JSON")
    ref = ModelRef.parse(model)
    if ref.alias is not None:
        raise InvalidConfig(f"a server knows versions, not aliases: ask NAME or NAME:VERSION instead of {model}")
    with fairway.connect(url) as client:
        takes = _specs(client.metadata(ref.name, ref.version))
        feed = _from_file(data, rows, takes) if data is not None else _from_json(inputs or "", takes)
        answer = client.infer(ref.name, feed, version=ref.version, key=key)
    outputs = {name: _plain(array.tolist()) for name, array in answer.outputs.items()}
    emit(_table(answer), {"model": answer.model, "version": answer.version, "outputs": outputs}, json=json)


def _specs(metadata: dict[str, Any]) -> tuple[Any, ...]:
    from fairway.core.tensors import TensorSpec

    known = TensorSpec.__struct_fields__
    try:
        entries = [{**entry, **entry.get("parameters", {})} for entry in metadata["inputs"]]
        inputs = [{key: value for key, value in entry.items() if key in known} for entry in entries]
        return msgspec.convert(inputs, tuple[TensorSpec, ...])
    except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
        raise ServerUnavailable(f"the server does not say what the model takes ({error}); is it a V2 server?") from None


def _from_file(path: str, rows: int, specs: tuple[Any, ...]) -> Tensors:
    from fairway.sources.tables import load_table

    return load_table(path).feed(specs, slice(0, rows))


def _from_json(text: str, specs: tuple[Any, ...]) -> Tensors:
    import numpy as np

    try:
        given = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise InvalidConfig(f"--inputs is not a JSON object of inputs: {error}") from None
    types = {spec.name: spec.datatype.dtype for spec in specs}
    try:
        return {name: np.asarray(value, dtype=types.get(name)) for name, value in given.items()}
    except (TypeError, ValueError) as error:
        raise InvalidConfig(f"--inputs does not hold regular arrays: {error}") from None


def _table(answer: InferResponse) -> str:
    """One line per row."""
    lines = [f"{answer.model}:{answer.version}"]
    for name, array in answer.outputs.items():
        lines.append(f"{name} {list(array.shape)}")
        for row in array[:SHOWN]:
            flat = row.reshape(-1) if row.ndim else row.reshape(1)
            shown = ", ".join(_cell(value) for value in flat[:12])
            lines.append(f"  {shown}{' …' if flat.size > 12 else ''}")
        if len(array) > SHOWN:
            lines.append(f"  … {len(array) - SHOWN:,} rows more; --json gives all")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return f"{value:.4g}" if isinstance(value, float) or getattr(value, "dtype", None) is not None else str(value)


def _plain(value: Any) -> Any:
    """Bytes as text, at any depth: JSON has no bytes."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
