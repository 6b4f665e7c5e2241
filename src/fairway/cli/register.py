"""``fairway register``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fairway
from fairway.cli.options import Json, ProjectPath
from fairway.cli.output import emit, note


def register(
    bundle: Annotated[str, typer.Argument(help="A packed bundle's directory or archive.")],
    alias: Annotated[
        list[str] | None, typer.Option(help="Also point this alias at it; may be given again.", show_default=False)
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(help="A public key (PEM): refuse the bundle unless it signed it.", show_default=False)
    ] = None,
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Put BUNDLE into the registry as its model's next version. The same bundle again is the same version."""
    version = fairway.register(bundle, aliases=alias or (), verify=verify, project=fairway.Project.find(project))
    document = {"model": version.model, "version": version.number, "digest": version.digest}
    emit(f"{version.model}:{version.number}  {version.digest}", document, json=json)
    note(f"next: fairway release {version.model}:{version.number}")
