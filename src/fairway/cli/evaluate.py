"""``fairway evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

import fairway
from fairway.cli.errors import OUTCOME_CODES
from fairway.cli.options import Html, Json, ProjectPath
from fairway.cli.output import emit, watched, write_page


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="A bundle, or NAME, NAME:VERSION, NAME@ALIAS; default: the source in fairway.toml."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Other test data than [data] test.", show_default=False)] = None,
    baseline: Annotated[str, typer.Option(help="Alias or reference to compare with, on the same rows.")] = "champion",
    ray: Annotated[
        str | None,
        typer.Option(help="Ray cluster that does the work: auto, local or its address.", show_default=False),
    ] = None,
    html: Html = None,
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Score MODEL on the test set, slice by slice, and judge it by the gate.

    Exits 0 if the gate passes, 1 if it fails, 2 if there is too little data to tell.
    """
    with watched() as progress:
        report = fairway.evaluate(
            model, data=data, baseline=baseline, ray=ray, project=fairway.Project.find(project), progress=progress
        )
    if html:
        write_page(html, report.as_html())
    emit(report.as_text(), report.as_json(), json=json)
    raise typer.Exit(OUTCOME_CODES[report.verdict.outcome])
