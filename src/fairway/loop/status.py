"""The verb ``status``: what is registered, what answers, what happened, what to do next."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from fairway.core.errors import ModelNotFound
from fairway.core.events import Action
from fairway.loop.project import Project
from fairway.loop.release import withdrawn
from fairway.registry.records import CHAMPION, Event, Release, Replica, Version

if TYPE_CHECKING:
    from fairway.registry.store import Registry

ALIVE_S = 30.0
"""A server that has not been heard of for this long is taken for gone."""


class ModelStatus(msgspec.Struct, frozen=True):
    """One model: its newest version's number, its aliases, its release, and the command to type next."""

    name: str
    versions: int
    aliases: dict[str, int]
    release: Release | None
    next: str


class Status(msgspec.Struct, frozen=True):
    """The registry at a glance. Events are the newest, oldest first."""

    models: tuple[ModelStatus, ...]
    servers: tuple[Replica, ...]
    events: tuple[Event, ...]

    def as_text(self) -> str:
        """For the terminal."""
        from rich.console import Console
        from rich.table import Table

        console = Console(width=100, color_system=None, force_terminal=False)
        models = Table("model", "versions", "answers", "aliases", "next", box=None, pad_edge=False)
        for model in self.models:
            aliases = ", ".join(f"{alias} → {number}" for alias, number in sorted(model.aliases.items()))
            models.add_row(model.name, str(model.versions), _answers(model.release), aliases, model.next)
        servers = Table("server", "serves", "heard of", box=None, pad_edge=False)
        for server in self.servers:
            servers.add_row(server.url, ", ".join(server.models), _when(server.seen_at))
        events = Table("when", "model", "event", "by", "why", box=None, pad_edge=False)
        for event in self.events:
            events.add_row(_when(event.at), event.model, event.action.value, event.actor, event.reason)
        with console.capture() as captured:
            console.print(models if self.models else "no model is registered; run: fairway run")
            console.print()
            console.print(servers if self.servers else "no server is running; run: fairway serve")
            console.print()
            console.print(events)
        return captured.get().rstrip()


def status(model: str | None = None, *, project: Project | None = None, events: int = 10) -> Status:
    """What is registered, which servers live, and the newest ``events``; of one ``model`` if given."""
    project = project or Project.find()
    with project.registry(create=False) as registry:
        known = registry.models()
        if model is not None and model not in known:
            raise ModelNotFound(model, known)
        return Status(
            models=tuple(_model(registry, name) for name in known if model in (None, name)),
            servers=registry.replicas(seen_since=time.time() - ALIVE_S),
            events=registry.events(model, limit=events, newest=True),
        )


def _model(registry: Registry, name: str) -> ModelStatus:
    release, newest = registry.release(name), registry.versions(name)[-1]
    aliases = registry.aliases(name)
    if release is not None and release.challenger is not None:
        follow = f"fairway release {name} --watch"
    elif newest.number != aliases.get(CHAMPION) and not (_refused(registry, newest) or withdrawn(registry, newest)):
        follow = f"fairway release {newest.ref}"
    else:
        follow = f"fairway observe {name}"
    return ModelStatus(name, newest.number, aliases, release, follow)


def _refused(registry: Registry, version: Version) -> bool:
    """Whether the gate refused this version: then its release is not the thing to do next."""
    recent = registry.events(version.model, limit=50, newest=True)
    return any(e.action is Action.REFUSED and e.reason.startswith(f"{version.ref}:") for e in recent)


def _answers(release: Release | None) -> str:
    if release is None:
        return "nothing yet"
    if release.challenger is None:
        return f"{release.champion}"
    return f"{release.champion} ({1 - release.weight:.0%}), {release.challenger} ({release.weight:.0%})"


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
