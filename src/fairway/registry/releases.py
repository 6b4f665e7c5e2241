"""Releases: who answers a model's callers. Statements on one connection; whoever calls holds the transaction."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select, update

from fairway.core.errors import Conflict, InvalidConfig
from fairway.registry import journal
from fairway.registry import tables as t
from fairway.registry.catalog import move_alias, version_at
from fairway.registry.records import CHAMPION, Release


def read_release(connection: Connection, model: str) -> Release | None:
    """The model's release, or ``None`` if none was ever made."""
    row = connection.execute(select(t.releases).where(t.releases.c.model == model)).mappings().first()
    return None if row is None else Release(**row)


def check_release(release: Release) -> None:
    """Raise :class:`InvalidConfig` where a release contradicts itself."""
    if not 0 <= release.weight <= 1:
        raise InvalidConfig(f"a release's weight is between 0 and 1, not {release.weight}")
    if release.challenger is None and release.weight:
        raise InvalidConfig("a release without a challenger has weight 0")
    if release.challenger == release.champion:
        raise InvalidConfig(f"{release.model}:{release.champion} cannot be its own challenger; name another version")


def write_release(connection: Connection, release: Release, expected: int | None, at: float) -> Release:
    """Compare-and-swap on the revision, and point the champion alias at the release's champion.

    Raises
    ------
    Conflict
        If the release is not at revision ``expected`` (``None``: if there is one).
    ModelNotFound
        If it names a version that does not exist.
    """
    current = read_release(connection, release.model)
    if (current.revision if current else None) != expected:
        raise Conflict(_conflict(connection, release.model, current, expected))
    for number in {release.champion, release.challenger, release.previous} - {None}:
        version_at(connection, release.model, number or 0)
    written = msgspec.structs.replace(release, revision=(expected or 0) + 1, updated_at=at)
    if current is None:
        connection.execute(insert(t.releases).values(**msgspec.structs.asdict(written)))
    else:
        where = t.releases.c.model == release.model
        connection.execute(update(t.releases).where(where).values(**msgspec.structs.asdict(written)))
    move_alias(connection, release.model, CHAMPION, release.champion, at)
    return written


def follow_champion(connection: Connection, model: str, number: int, at: float) -> Release | None:
    """Keep a release in step with a champion alias that somebody moves by hand: the release, if that changed it.

    Raises
    ------
    Conflict
        If a challenger is being tried: the decision about it comes first.
    """
    current = read_release(connection, model)
    if current is None or current.champion == number:
        return None
    if current.challenger is not None:
        raise Conflict(
            f"{model}:{current.challenger} is being released against {model}:{current.champion}; promote it or roll it "
            f"back before moving {model}@{CHAMPION}"
        )
    moved = msgspec.structs.replace(current, champion=number, previous=current.champion)
    return write_release(connection, moved, current.revision, at)


def as_change(release: Release) -> dict[str, Any]:
    """The release as an event's change holds it."""
    return {"release": {name: getattr(release, name) for name in _DECIDED}}


_DECIDED = ("champion", "challenger", "weight", "previous", "revision")


def _conflict(connection: Connection, model: str, current: Release | None, expected: int | None) -> str:
    if current is None:
        return f"{model} has no release any more, and revision {expected} of it was expected; look again, then decide"
    last = journal.read(connection, model, 0, 1, newest=True)
    by = f"; last change: {last[0].action} by {last[0].actor or 'unknown'}" if last else ""
    challenger = f", challenger {current.challenger} at {current.weight:.0%}" if current.challenger else ""
    wanted = "none was expected" if expected is None else f"revision {expected} was expected"
    return (
        f"the release of {model} changed meanwhile: it is at revision {current.revision} (champion {current.champion}"
        f"{challenger}), and {wanted}{by}; look again with fairway status, then decide"
    )
