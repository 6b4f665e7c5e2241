"""``fairway evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

import fairway
from fairway.cli.errors import OUTCOME_CODES, exit_code
from fairway.cli.options import Html, Json, JUnit, Markdown, ProjectPath
from fairway.cli.output import check_place, emit, note, watched, write_file
from fairway.core.errors import FairwayError


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
    markdown: Markdown = None,
    junit: JUnit = None,
    mlflow: Annotated[
        str,
        typer.Option(
            help="Also log it to this MLflow server or store; default: [tracking] mlflow.", show_default=False
        ),
    ] = "",
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Score MODEL on the test set, slice by slice, and judge it by the gate.

    Exits 0 if the gate passes, 1 if it fails, 2 if there is too little data to tell. Failing to log to MLflow is a
    warning: it changes neither the report nor the exit code.
    """
    places = {"--html": html, "--markdown": markdown, "--junit": junit}
    for option, place in places.items():
        check_place(place, option)
    with watched() as progress:
        report = fairway.evaluate(
            model,
            data=data,
            baseline=baseline,
            ray=ray,
            mlflow=mlflow,
            project=fairway.Project.find(project),
            progress=progress,
        )
    forms = {"--html": report.as_html, "--markdown": report.as_markdown, "--junit": report.as_junit}
    code = OUTCOME_CODES[report.verdict.outcome]
    for option, place in places.items():
        try:
            if place is not None:
                write_file(place, forms[option](), option)
        except FairwayError as error:  # minutes of measuring are not lost for want of one file
            note(f"error: {error}")
            code = exit_code(error)
    emit(report.as_text(), report.as_json(), json=json)
    raise typer.Exit(code)
