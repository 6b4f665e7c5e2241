"""``fairway optimize``."""

from __future__ import annotations

from typing import Annotated

import typer

import fairway
from fairway.cli.errors import OUTCOME_CODES, REPLAY_CODES
from fairway.cli.options import Html, Json, ProjectPath
from fairway.cli.output import check_place, emit, watched, write_file
from fairway.core.errors import InvalidConfig


def optimize(
    model: Annotated[
        str | None, typer.Argument(help="A bundle or a registered reference; default: the source in fairway.toml.")
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            help="Search nothing: rebuild this optimized bundle by its recipe, from MODEL or the bundle it names.",
            show_default=False,
        ),
    ] = None,
    html: Html = None,
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Quantize and optimize MODEL; keep the best form that passes the gate, or the original where nothing pays.

    Prints where the chosen bundle lies. Exits as `evaluate` does, for the chosen form. With --replay: 0 if every digest
    is the same again, 1 if one differs, 4 if what a pass needs is not here.
    """
    check_place(html, "--html")
    if replay is not None:
        if html:
            raise InvalidConfig("a replay has no page; leave out --html, or ask for --json")
        _replay(replay, model, project, json=json)
    with watched() as progress:
        result = fairway.optimize(model, project=fairway.Project.find(project), progress=progress)
    write_file(html, result.as_html() if html else "")
    emit(
        f"{result.as_text()}\nchosen: {result.chosen.path}\nnext: fairway pack {result.chosen.path}",
        result.as_json(),
        json=json,
    )
    raise typer.Exit(OUTCOME_CODES[result.verdict.outcome])


def _replay(bundle: str, source: str | None, project: ProjectPath, *, json: bool) -> None:
    with watched() as progress:
        found = fairway.replay(bundle, source=source, project=fairway.Project.find(project), progress=progress)
    emit(found.as_text(), found.as_json(), json=json)
    raise typer.Exit(REPLAY_CODES[found.outcome])
