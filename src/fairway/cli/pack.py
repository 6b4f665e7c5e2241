"""``fairway pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fairway
from fairway.cli.options import Json, ProjectPath
from fairway.cli.output import emit, note, watched


def pack(
    model: Annotated[
        str | None, typer.Argument(help="A bundle or a registered reference; default: the source in fairway.toml.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write; .tar makes an archive; default: NAME.fairway.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of what is there.")] = False,
    sign: Annotated[
        Path | None, typer.Option(help="A private EC key (PEM): also sign the bundle with it.", show_default=False)
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Labeled rows, of neither training nor test: fit a temperature and build it in.", show_default=False
        ),
    ] = None,
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Evaluate MODEL and write it, with the evidence, as one bundle: data only, identified by its digest."""
    with watched() as progress:
        bundle = fairway.pack(
            model,
            out=out,
            replace=replace,
            sign=sign,
            calibrate=calibrate,
            project=fairway.Project.find(project),
            progress=progress,
        )
    where = out or bundle.path
    emit(
        f"{where}  {bundle.digest}  {bundle.size_bytes:,} bytes",
        {"path": str(where), "digest": bundle.digest, "size_bytes": bundle.size_bytes, "manifest": bundle.manifest},
        json=json,
    )
    note(f"next: fairway register {where}")
