"""``fairway status``."""

from __future__ import annotations

from typing import Annotated

import typer

import fairway
from fairway.cli.options import Json, ProjectPath
from fairway.cli.output import emit


def status(
    model: Annotated[str | None, typer.Argument(help="Only this model.", show_default=False)] = None,
    events: Annotated[int, typer.Option(min=0, help="How many of the newest events to show.")] = 10,
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Show what is registered, what answers, which servers live, what happened, and what to type next."""
    found = fairway.status(model, project=fairway.Project.find(project), events=events)
    emit(found.as_text(), found, json=json)
