"""``fairway release``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

import fairway
from fairway.cli.errors import DONE, FAILED, OUTCOME_CODES
from fairway.cli.options import Json, ProjectPath, Reason
from fairway.cli.output import emit, note
from fairway.core.errors import InvalidConfig


def release(
    model: Annotated[
        str, typer.Argument(help="NAME:VERSION to start its release; NAME to look at, change or end one.")
    ],
    weight: Annotated[
        float | None, typer.Option(help="The challenger's share of callers, above 0 and up to 1.", show_default=False)
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Judge live traffic until it is promoted or rolled back.")
    ] = False,
    promote: Annotated[bool, typer.Option("--promote", help="Make the challenger the champion now.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Release it against the gate; needs --reason.")] = False,
    reason: Reason = "",
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Let callers have a version by degrees, and decide by their traffic.

    The first version of a model becomes the champion at once. A later one gets a share; `--watch` judges it by the gate
    with statistics that hold at every look, and promotes it or takes it back.

    Exits 0 if done or passed, 1 if the gate refused it or it was rolled back, 2 while there is too little traffic to tell.
    """
    from fairway.core.events import Action
    from fairway.loop import release as verbs
    from fairway.rollout.report import as_json, as_text

    if sum((watch, promote, weight is not None or force)) > 1:
        raise InvalidConfig("--watch, --promote and --weight or --force exclude each other; give one at a time")
    opened = fairway.Project.find(project)
    name = model.partition(":")[0].partition("@")[0]
    starts = weight is not None or force or model != name
    if promote:
        verbs.promote(model, reason=reason, project=opened)
    elif starts:
        verbs.release(model, weight=weight, force=force, reason=reason, project=opened)
    step = verbs.watch(name, project=opened, seen=_tell) if watch else verbs.look(name, project=opened)
    emit(as_text(name, step, settings=opened.settings.release, now=time.time()), as_json(name, step), json=json)
    if starts or promote or step.verdict is None:
        raise typer.Exit(DONE)
    raise typer.Exit(FAILED if step.action is Action.ROLLED_BACK else OUTCOME_CODES[step.verdict.outcome])


def _tell(step: object) -> None:
    verdict = getattr(step, "verdict", None)
    if verdict is not None:
        note(f"- {verdict.challenger.requests:,} requests to the challenger: {verdict.outcome}")
