"""The audit trail: complete, in order, and never changed."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from fairway.core.events import Action
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from tests.registry.conftest import Clock, MakeBundle


def test_events_are_read_in_order_and_from_where_one_left_off(registry: Registry, clock: Clock) -> None:
    for n in range(5):
        clock.now = float(n)
        registry.record("digits", Action.REFUSED, "ann", f"reason {n}")
    first = registry.events(limit=2)
    rest = registry.events(after=first[-1].id)
    assert [e.reason for e in first + rest] == [f"reason {n}" for n in range(5)]
    assert [e.at for e in first + rest] == [0, 1, 2, 3, 4]
    assert [e.reason for e in registry.events(limit=2, newest=True)] == ["reason 3", "reason 4"]


def test_events_of_one_model_can_be_read_alone(registry: Registry) -> None:
    registry.record("digits", Action.REFUSED, "ann")
    registry.record("letters", Action.REFUSED, "ann")
    assert [e.model for e in registry.events("letters")] == ["letters"]


def test_evidence_is_kept_as_data_or_as_the_json_it_already_is(registry: Registry) -> None:
    registry.record("digits", Action.REFUSED, "ann", evidence={"accuracy_score": [0.9, None]})
    registry.record("digits", Action.REFUSED, "ann", evidence=b'{"accuracy_score": [0.9, null]}')
    registry.record("digits", Action.REFUSED, "ann")
    assert [e.evidence for e in registry.events()] == [{"accuracy_score": [0.9, None]}] * 2 + [None]


def test_evidence_that_could_not_be_read_back_is_not_written(registry: Registry) -> None:
    with pytest.raises(ValueError, match="malformed"):
        registry.record("digits", Action.REFUSED, "ann", evidence=b"{not json")
    assert registry.events() == ()


TAMPERING: dict[str, str | dict[str, str]] = {
    "change": "UPDATE events SET actor = 'eve'",
    "remove": "DELETE FROM events",
    "wipe": {
        "sqlite": "INSERT OR REPLACE INTO events SELECT id, at, model, action, 'eve', '', change, evidence FROM events",
        "postgresql": "TRUNCATE events",
    },
}


@pytest.mark.parametrize("tampering", TAMPERING)
def test_the_database_itself_refuses_to_change_an_event(
    registry: Registry, settings: RegistrySettings, make_bundle: MakeBundle, tampering: str
) -> None:
    registry.register(make_bundle(0), aliases=["champion"], actor="ann")
    before = registry.events()
    engine = create_engine(settings.url.replace("postgresql://", "postgresql+psycopg://"))
    found = TAMPERING[tampering]
    statement = found if isinstance(found, str) else found[engine.dialect.name]
    try:
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()
    assert registry.events() == before
