"""Old windows go, so that a registry does not grow for ever. Statements on one connection; whoever calls serializes writers."""

from __future__ import annotations

import math

from sqlalchemy import Connection, delete, func, select

from fairway.registry import tables as t
from fairway.registry.dialects import insert
from fairway.registry.releases import read_release

EVERY_S = 3600.0
"""How often a process that stores windows looks for old ones, in seconds."""

_DAY_S = 86_400.0
_LEFT = 0.9  # of the most windows: so that what is kept moves on in steps, as it does by age


def forget_windows(connection: Connection, *, now: float, keep_s: float, most: float) -> None:
    """Remove windows older than ``keep_s``, and the oldest of a model that has more than ``most``.

    Whole days go at a time: each time the oldest windows change, drift forms new groups of those that are left. Windows
    of a release that is not decided stay, however old.
    """
    horizon = math.floor((now - keep_s) / _DAY_S) * _DAY_S if keep_s < math.inf else -math.inf
    for model in connection.execute(select(t.models.c.name)).scalars().all():
        until = max(horizon, _surplus_until(connection, model, most))
        release = read_release(connection, model)
        if release is not None and release.challenger is not None:
            until = min(until, release.started_at)
        _forget(connection, model, until)


def forgotten_periods(connection: Connection, model: str, version: int) -> int:
    """How many different starts the removed windows of a version had."""
    where = (t.forgotten.c.model == model, t.forgotten.c.version == version)
    return int(connection.execute(select(t.forgotten.c.periods).where(*where)).scalar() or 0)


def _surplus_until(connection: Connection, model: str, most: float) -> float:
    """Up to which end a model's windows are too many."""
    if most == math.inf:
        return -math.inf
    newest_first = select(t.windows.c.ended_at).where(t.windows.c.model == model).order_by(t.windows.c.ended_at.desc())
    if connection.execute(newest_first.offset(int(most)).limit(1)).first() is None:
        return -math.inf
    return float(connection.execute(newest_first.offset(int(most * _LEFT)).limit(1)).scalar_one())


def _forget(connection: Connection, model: str, until: float) -> None:
    old = (t.windows.c.model == model, t.windows.c.ended_at <= until)
    periods = func.count(t.windows.c.started_at.distinct())
    gone = connection.execute(select(t.windows.c.version, periods).where(*old).group_by(t.windows.c.version)).all()
    for version, count in gone:
        row = insert(connection, t.forgotten).values(model=model, version=version, periods=count)
        more = {"periods": t.forgotten.c.periods + count}
        connection.execute(row.on_conflict_do_update(index_elements=["model", "version"], set_=more))
    if gone:
        connection.execute(delete(t.windows).where(*old))
