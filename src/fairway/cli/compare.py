"""``fairway compare``."""

from __future__ import annotations

from typing import Annotated

import typer

import fairway
from fairway.cli.options import Html, Json, ProjectPath
from fairway.cli.output import check_place, emit, watched, write_file


def compare(
    first: Annotated[str, typer.Argument(help="A bundle or a registered reference: what there was.")],
    second: Annotated[str, typer.Argument(help="Another: what is it worth against the first?")],
    html: Html = None,
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Say by every metric whether SECOND is better than FIRST, worse, or nobody can tell, and what differs between them.

    Quality on the test rows, the same for both; performance as served, both measured in turn.
    """
    check_place(html, "--html")
    with watched() as progress:
        found = fairway.compare(first, second, project=fairway.Project.find(project), progress=progress)
    write_file(html, found.as_html() if html else "")
    emit(found.as_text(), found.as_json(), json=json)
