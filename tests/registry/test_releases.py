"""Releases: compare-and-swap, in step with the champion alias, each change on record."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from fairway.core.errors import Conflict, InvalidConfig, ModelNotFound
from fairway.core.events import Action
from fairway.registry.records import Release
from fairway.registry.store import Registry
from tests.registry.conftest import Clock, MakeBundle


@pytest.fixture
def two(registry: Registry, make_bundle: MakeBundle) -> Registry:
    """A registry with digits:1 as champion, and digits:2 and digits:3."""
    registry.register(make_bundle(0), aliases=["champion"])
    registry.register(make_bundle(1))
    registry.register(make_bundle(2))
    return registry


def canary(**changes: Any) -> Release:
    return msgspec.structs.replace(Release("digits", 1, 2, 0.1, started_at=900.0), **changes)


def test_there_is_no_release_until_one_is_saved(two: Registry) -> None:
    assert two.release("digits") is None
    assert two.release("unknown") is None


def test_a_release_is_what_was_saved(two: Registry, clock: Clock) -> None:
    clock.now = 1_234.5
    saved = two.save_release(canary(), expected=None, action=Action.RELEASED, actor="ann", reason="try it")
    assert saved == canary(revision=1, updated_at=1_234.5)
    assert two.release("digits") == saved


def test_promoting_moves_the_champion_alias_and_writes_one_event(two: Registry) -> None:
    first = two.save_release(canary(), expected=None, action=Action.RELEASED, actor="ann")
    promoted = canary(champion=2, challenger=None, weight=0.0, previous=1)
    before, revision = len(two.events()), two.revision()
    two.save_release(
        promoted,
        expected=first.revision,
        action=Action.PROMOTED,
        actor="bob",
        reason="passed",
        evidence={"outcome": "passed"},
    )
    assert two.aliases("digits") == {"champion": 2}
    (event,) = two.events()[before:]
    assert (event.action, event.actor, event.reason) == (Action.PROMOTED, "bob", "passed")
    assert event.evidence == {"outcome": "passed"}
    assert event.change["release"] == {"champion": 2, "challenger": None, "weight": 0.0, "previous": 1, "revision": 2}
    assert two.revision() > revision


@pytest.mark.parametrize("expected", [None, 1, 3])
def test_a_change_on_an_outdated_view_is_refused_and_told_what_is_there_now(
    two: Registry, expected: int | None
) -> None:
    two.save_release(canary(), expected=None, action=Action.RELEASED, actor="ann")
    two.save_release(canary(weight=0.5), expected=1, action=Action.WEIGHTED, actor="bob")
    before = two.events()
    with pytest.raises(Conflict, match=r"revision 2 \(champion 1, challenger 2 at 50%\).*weighted by bob"):
        two.save_release(canary(weight=0.2), expected=expected, action=Action.WEIGHTED, actor="eve")
    assert two.release("digits") == canary(weight=0.5, revision=2, updated_at=1000.0)
    assert two.events() == before


def test_a_release_that_vanished_is_a_conflict(two: Registry) -> None:
    with pytest.raises(Conflict, match="no release any more"):
        two.save_release(canary(), expected=4, action=Action.WEIGHTED, actor="ann")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight": 1.5}, "between 0 and 1"),
        ({"weight": -0.1}, "between 0 and 1"),
        ({"weight": math.nan}, "between 0 and 1"),
        ({"challenger": None}, "weight 0"),
        ({"challenger": 1}, "own challenger"),
    ],
)
def test_a_release_that_contradicts_itself_is_refused(two: Registry, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        two.save_release(canary(**wrong), expected=None, action=Action.RELEASED, actor="ann")
    assert two.release("digits") is None


@pytest.mark.parametrize("wrong", [{"champion": 9}, {"challenger": 9}, {"previous": 9}, {"model": "letters"}])
def test_a_release_names_versions_that_exist(two: Registry, wrong: dict[str, Any]) -> None:
    before = two.events()
    with pytest.raises(ModelNotFound):
        two.save_release(canary(**wrong), expected=None, action=Action.RELEASED, actor="ann")
    assert two.events() == before


def test_moving_the_champion_alias_by_hand_takes_the_release_along(two: Registry) -> None:
    settled = canary(challenger=None, weight=0.0)
    two.save_release(settled, expected=None, action=Action.PROMOTED, actor="ann")
    two.set_alias("digits", "champion", 3, actor="bob")
    release = two.release("digits")
    assert release is not None
    assert (release.champion, release.previous, release.revision) == (3, 1, 2)
    change = two.events()[-1].change
    assert (change["alias"], change["before"], change["version"]) == ("champion", 1, 3)
    assert change["release"]["champion"] == 3


def test_the_champion_alias_stays_while_a_challenger_is_tried(two: Registry, make_bundle: MakeBundle) -> None:
    two.save_release(canary(), expected=None, action=Action.RELEASED, actor="ann")
    with pytest.raises(Conflict, match="promote it or roll it back"):
        two.set_alias("digits", "champion", 3, actor="bob")
    with pytest.raises(Conflict):
        two.register(make_bundle(7), aliases=["champion"])
    assert two.aliases("digits") == {"champion": 1}
    assert len(two.versions("digits")) == 3
    two.set_alias("digits", "candidate", 3, actor="bob")  # other aliases are free
