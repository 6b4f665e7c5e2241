"""``fairway comment``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fairway.cli.options import Json
from fairway.cli.output import emit
from fairway.core.errors import InvalidConfig


def comment(
    report: Annotated[Path, typer.Argument(help="What `fairway evaluate --markdown` wrote.")],
    json: Json = False,
) -> None:
    """Put REPORT into the pull request of this CI job, in place of the one before.

    On GitHub Actions it needs GITHUB_TOKEN with 'pull-requests: write', on GitLab CI FAIRWAY_GITLAB_TOKEN with the scope
    'api'. A job that is about no pull request writes nothing.
    """
    from fairway.loop.comment import comment as put

    try:
        text = report.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{report} cannot be read: {error}") from None
    address = put(text, os.environ)
    emit(address or "this job is about no pull request: nothing written", {"comment": address}, json=json)
