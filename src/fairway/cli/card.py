"""``fairway card``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fairway
from fairway.cli.options import Json, ProjectPath
from fairway.cli.output import check_place, emit, write_file


def card(
    model: Annotated[
        str | None, typer.Argument(help="A bundle or a registered reference; default: the source in fairway.toml.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="huggingface (Markdown) or cyclonedx (ML-BOM).")
    ] = "huggingface",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write it; default: stdout.", show_default=False)
    ] = None,
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Print the model card of MODEL: what it is, where it comes from, what it scored when it was packed.

    A packed bundle holds both forms already: README.md and bom.cdx.json.
    """
    check_place(out, "--out")
    text = fairway.card(model, form=form, project=fairway.Project.find(project))
    write_file(out, text, "--out")
    if json:
        emit("", {"format": form, "card": text, "path": str(out) if out else ""}, json=True)
    elif out is None:
        emit(text.rstrip("\n"), None, json=False)
    else:
        emit(str(out), None, json=False)
