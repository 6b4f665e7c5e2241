"""``fairway run``."""

from __future__ import annotations

import typer

import fairway
from fairway.cli.errors import FAILED, OUTCOME_CODES
from fairway.cli.options import Json, ProjectPath
from fairway.cli.output import emit, note, watched


def run(project: ProjectPath = None, json: Json = False) -> None:
    """Take the source in fairway.toml down the whole road: convert, evaluate, optimize, pack, register, release.

    The first version becomes the champion; a later one starts as a canary. Nothing is made twice: run it again after
    a crash, and it goes on where it was.
    """
    with watched() as progress:
        road = fairway.run(project=fairway.Project.find(project), progress=progress)
    lines = [f"{road.model}:{road.version}  {road.digest}", f"gate: {road.verdict.outcome}", *road.verdict.reasons]
    lines += [f"{name}: {path}" for name, path in road.pages.items()]
    if road.refused:
        lines.append(f"not released: {road.refused}")
    emit("\n".join(lines), road, json=json)
    if road.refused:
        raise typer.Exit(OUTCOME_CODES[road.verdict.outcome] or FAILED)
    canary = road.release is not None and road.release.challenger == road.version
    note(f"next: fairway release {road.model} --watch" if canary else "next: fairway serve")
