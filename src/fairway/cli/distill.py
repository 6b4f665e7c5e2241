"""``fairway distill``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fairway
from fairway.cli.options import Json, ProjectPath
from fairway.cli.output import emit, note, watched


def distill(
    model: Annotated[
        str | None,
        typer.Argument(help="The teacher: a bundle or a registered reference; default: the source in fairway.toml."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write; default: NAME-student.fairway.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of what is there.")] = False,
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Teach the smaller model of [distill] what MODEL answers on the training data, and write it as a bundle."""
    with watched() as progress:
        made = fairway.distill(
            model, out=out, replace=replace, project=fairway.Project.find(project), progress=progress
        )
    bundle = made.bundle
    found = {"path": str(bundle.path), "digest": bundle.digest, "size_bytes": bundle.size_bytes}
    emit(
        f"{bundle.path}  {bundle.digest}  {bundle.size_bytes:,} bytes\n{made.as_text()}",
        {**found, "rows": made.rows, "training": made.training},
        json=json,
    )
    note(f"next: fairway evaluate {bundle.path}")
