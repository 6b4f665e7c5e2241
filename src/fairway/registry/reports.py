"""What servers report: windows of traffic, and that they are alive. Statements on one connection."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, delete, select

from fairway.registry import tables as t
from fairway.registry.dialects import insert
from fairway.registry.records import Replica, Window


def add_window(connection: Connection, window: Window) -> bool:
    """Keep a window: whether it was new. One that is there already stays as it is."""
    row = insert(connection, t.windows).values(**msgspec.structs.asdict(window)).on_conflict_do_nothing()
    return bool(connection.execute(row).rowcount)


def read_windows(connection: Connection, model: str, version: int | None, since: float | None) -> tuple[Window, ...]:
    """A model's windows, oldest first: of one version if given, and that ended after ``since`` if given."""
    query = select(t.windows).where(t.windows.c.model == model)
    if version is not None:
        query = query.where(t.windows.c.version == version)
    if since is not None:
        query = query.where(t.windows.c.ended_at > since)
    rows = connection.execute(query.order_by(t.windows.c.started_at, t.windows.c.replica)).mappings()
    return tuple(Window(**row) for row in rows)


_FORGOTTEN_S = 86_400.0


def write_heartbeat(connection: Connection, replica: Replica) -> None:
    """Add the replica, or replace what it said before. Those that were killed, a day ago, are forgotten."""
    row = msgspec.structs.asdict(replica) | {"models": msgspec.json.encode(replica.models).decode()}
    fresh = {name: value for name, value in row.items() if name != "id"}
    statement = insert(connection, t.replicas).values(**row)
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=fresh))
    connection.execute(delete(t.replicas).where(t.replicas.c.seen_at < replica.seen_at - _FORGOTTEN_S))


def read_replicas(connection: Connection, seen_since: float | None) -> tuple[Replica, ...]:
    """Replicas by id: all, or those heard of after ``seen_since``."""
    query = select(t.replicas).order_by(t.replicas.c.id)
    if seen_since is not None:
        query = query.where(t.replicas.c.seen_at > seen_since)
    rows = connection.execute(query).mappings()
    return tuple(
        Replica(row["id"], row["url"], msgspec.json.decode(row["models"], type=tuple[str, ...]), row["seen_at"])
        for row in rows
    )


def remove_replica(connection: Connection, replica: str) -> None:
    """Forget a replica that says goodbye."""
    connection.execute(delete(t.replicas).where(t.replicas.c.id == replica))
