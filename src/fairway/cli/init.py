"""``fairway init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairway.cli.options import Json
from fairway.cli.output import emit, note


def init(
    checkpoint: Annotated[str, typer.Argument(help="A model file or folder, or module:callable that returns a model.")],
    data: Annotated[
        str, typer.Argument(help="Test data: a file, a folder (of files, of images), a pattern, a URL or sql:SELECT …")
    ],
    reference: Annotated[
        str | None, typer.Option(help="Data such as the model was trained on.", show_default=False)
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="The column to predict; default: guessed.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name; default: the checkpoint's.", show_default=False)
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="The checkpoint carries code, and you trust it.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write.")] = Path("fairway.toml"),
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of what is there.")] = False,
    json: Json = False,
) -> None:
    """Look at CHECKPOINT and DATA, and write a commented fairway.toml to start from. Nothing is run."""
    from fairway.loop.init import init as write

    path = write(checkpoint, data, reference=reference, label=label, name=name, trust=trust, out=out, replace=replace)
    emit(f"wrote {path}", {"path": str(path)}, json=json)
    note("next: read it, set your limits under [gate], then: fairway run")
