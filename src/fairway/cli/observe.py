"""``fairway observe``."""

from __future__ import annotations

from typing import Annotated

import typer

import fairway
from fairway.cli.errors import DONE, FAILED, INCONCLUSIVE
from fairway.cli.options import Html, Json, ProjectPath
from fairway.cli.output import emit, write_file


def observe(
    model: Annotated[str, typer.Argument(help="NAME (its champion), NAME:VERSION or NAME@ALIAS.")],
    html: Html = None,
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Report drift: what MODEL is sent and answers, against the baseline that its bundle carries.

    Exits 0 without drift, 1 with drift, 2 if too few rows were seen to tell.
    """
    report = fairway.observe(model, project=fairway.Project.find(project))
    if html:
        write_file(html, report.as_html())
    emit(report.as_text(), report.as_json(), json=json)
    raise typer.Exit({"drift": FAILED, "no drift": DONE}.get(report.outcome, INCONCLUSIVE))
