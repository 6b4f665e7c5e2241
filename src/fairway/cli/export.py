"""``fairway export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import fairway
from fairway.cli.options import Json, ProjectPath
from fairway.cli.output import emit, watched


def export(
    model: Annotated[str, typer.Argument(help="A bundle or a registered reference.")],
    folder: Annotated[
        Path, typer.Argument(help="Triton's model repository, or the folder to make. Nothing in it is replaced.")
    ],
    to: Annotated[str, typer.Option(help="triton or onnx.")] = "triton",
    backend: Annotated[
        Literal["onnxruntime", "python"],
        typer.Option(help="Of Triton: onnxruntime runs the graph alone, python its tokenizer, too."),
    ] = "onnxruntime",
    raw: Annotated[
        bool, typer.Option("--raw", help="Without processing steps: callers send what the graph takes.")
    ] = False,
    instances: Annotated[int, typer.Option(help="Of Triton: how many run beside each other.")] = 1,
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Write MODEL in the layout of another server, with its tuning: all of it, or nothing."""
    with watched() as progress:
        made = fairway.export(
            model,
            folder,
            to=to,
            backend=backend,
            raw=raw,
            instances=instances,
            project=fairway.Project.find(project),
            progress=progress,
        )
    emit(str(made), {"path": str(made), "to": to}, json=json)
