"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout, for machines.")]
ProjectPath = Annotated[
    Path | None,
    typer.Option(
        "--project", "-p", help="fairway.toml or its folder; default: this folder or one above.", show_default=False
    ),
]
Html = Annotated[
    Path | None, typer.Option("--html", help="Also write the report as one HTML page.", show_default=False)
]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", help="Also write it as Markdown, for a pull request.", show_default=False)
]
JUnit = Annotated[
    Path | None,
    typer.Option("--junit", help="Also write the gate's findings as JUnit XML, for CI.", show_default=False),
]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit trail.", show_default=False)]
