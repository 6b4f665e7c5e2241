"""``fairway optimize``."""

from __future__ import annotations

from typing import Annotated

import typer

import fairway
from fairway.cli.errors import OUTCOME_CODES
from fairway.cli.options import Html, Json, ProjectPath
from fairway.cli.output import emit, watched, write_file


def optimize(
    model: Annotated[
        str | None, typer.Argument(help="A bundle or a registered reference; default: the source in fairway.toml.")
    ] = None,
    html: Html = None,
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Quantize and optimize MODEL; keep the best form that passes the gate, or the original where nothing pays.

    Prints where the chosen bundle lies. Exits as `evaluate` does, for the chosen form.
    """
    with watched() as progress:
        result = fairway.optimize(model, project=fairway.Project.find(project), progress=progress)
    if html:
        write_file(html, result.as_html())
    emit(
        f"{result.as_text()}\nchosen: {result.chosen.path}\nnext: fairway pack {result.chosen.path}",
        result.as_json(),
        json=json,
    )
    raise typer.Exit(OUTCOME_CODES[result.verdict.outcome])
