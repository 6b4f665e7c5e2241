"""The audit trail: rows are added in the transaction that makes the change, and never touched again."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, insert, select

from fairway.core.events import Action
from fairway.registry import tables as t
from fairway.registry.records import Event


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An event to be. ``evidence`` is JSON data, or ``bytes`` that already are JSON."""

    at: float
    model: str
    action: Action
    actor: str
    reason: str = ""
    change: dict[str, Any] = {}
    evidence: Any = None


def append(connection: Connection, entry: Entry) -> None:
    """Add an event. Its id is given out in the order of commits, because writers are serialized."""
    row = msgspec.structs.asdict(entry) | {
        "action": entry.action.value,
        "change": msgspec.json.encode(entry.change, order="sorted"),
        "evidence": _encoded(entry.evidence),
    }
    connection.execute(insert(t.events).values(**row))


def read(connection: Connection, model: str | None, after: int, limit: int, *, newest: bool) -> tuple[Event, ...]:
    """Events in the order they happened: the first or the ``newest`` ``limit`` of those after ``after``."""
    query = select(t.events).where(t.events.c.id > after).limit(limit)
    query = query.order_by(t.events.c.id.desc() if newest else t.events.c.id)
    if model is not None:
        query = query.where(t.events.c.model == model)
    found = [_event(row) for row in connection.execute(query).mappings()]
    return tuple(reversed(found) if newest else found)


def _encoded(evidence: Any) -> bytes | None:
    if evidence is None:
        return None
    if isinstance(evidence, bytes):
        msgspec.json.decode(evidence)  # refuse now what could not be read back
        return evidence
    return msgspec.json.encode(evidence)


def _event(row: RowMapping) -> Event:
    return Event(
        id=row["id"],
        at=row["at"],
        model=row["model"],
        action=Action(row["action"]),
        actor=row["actor"],
        reason=row["reason"],
        change=msgspec.json.decode(row["change"]),
        evidence=None if row["evidence"] is None else msgspec.json.decode(row["evidence"]),
    )
