"""``fairway serve`` with several workers: the process that watches them, and, run as a program, one of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from fairway.loop.project import Project
from fairway.serving.channel import Start
from fairway.serving.settings import ServeSettings


class Spec(msgspec.Struct, frozen=True):
    """What a worker serves: as the command line says, in a project of which it reads the settings anew."""

    project: str | None
    models: tuple[str, ...]
    overrides: dict[str, Any]


def supervise(
    models: Sequence[str],
    *,
    project: Project,
    settings: ServeSettings,
    overrides: dict[str, Any],
    started: Callable[[str], None],
) -> None:
    """Start ``settings.workers`` processes that serve, and watch them until SIGTERM or SIGINT."""
    from fairway.core.launch import python
    from fairway.serving.supervisor import Supervisor

    spec = Spec(None if project.file is None else str(project.file), tuple(models), overrides)
    Supervisor(python("fairway.loop.workers"), msgspec.json.encode(spec), settings, started).run()


def work(start: Start) -> int:
    """Be one of the workers; gives the process's exit code."""
    from fairway.loop.serve import plan_of
    from fairway.serving import app
    from fairway.serving.logs import configure_logging
    from fairway.serving.service import Service
    from fairway.serving.worker import run_worker, sockets_of

    configure_logging(lock=start.lock)
    spec = msgspec.json.decode(start.spec, type=Spec)

    def make_service(plans: ExitStack) -> Service:
        project = Project.find(spec.project if spec.project is None else Path(spec.project))
        overrides = {**spec.overrides, "workers": start.workers}
        plan = plans.enter_context(plan_of(spec.models, project, overrides))
        return app.make_service(**plan, sockets=sockets_of(start))

    return run_worker(start, make_service)


if __name__ == "__main__":
    sys.exit(work(msgspec.json.decode(sys.argv[1], type=Start)))
