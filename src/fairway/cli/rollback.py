"""``fairway rollback``."""

from __future__ import annotations

from typing import Annotated

import typer

import fairway
from fairway.cli.options import Json, ProjectPath, Reason
from fairway.cli.output import emit, note


def rollback(
    model: Annotated[str, typer.Argument(help="A model's name.")],
    reason: Reason = "",
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Take the challenger out of traffic; if there is none, make the version before the champion again."""
    state = fairway.rollback(model, reason=reason, project=fairway.Project.find(project))
    emit(f"{model}: version {state.champion} answers every request", state, json=json)
    note(f"next: fairway status {model}")
