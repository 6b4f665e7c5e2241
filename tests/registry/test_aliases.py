"""Aliases: names that move between versions, each move on record."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fairway.core.errors import InvalidConfig, ModelNotFound
from fairway.core.events import Action
from fairway.core.manifest import ModelRef
from fairway.registry.catalog import check_alias
from fairway.registry.store import Registry
from tests.registry.conftest import MakeBundle


def test_moving_an_alias_writes_an_event(registry: Registry, make_bundle: MakeBundle) -> None:
    registry.register(make_bundle(0), aliases=["champion"], actor="ann")
    registry.register(make_bundle(1))
    registry.set_alias("digits", "champion", 2, actor="bob", reason="better")
    assert registry.aliases("digits") == {"champion": 2}
    event = registry.events("digits")[-1]
    assert (event.action, event.actor, event.reason) == (Action.ALIASED, "bob", "better")
    assert event.change == {"alias": "champion", "version": 2, "before": 1}


def test_an_alias_that_stays_where_it_is_writes_none(registry: Registry, make_bundle: MakeBundle) -> None:
    registry.register(make_bundle(0), aliases=["champion", "champion"])
    before = registry.events()
    registry.set_alias("digits", "champion", 1, actor="ann")
    assert registry.events() == before


def test_an_alias_points_at_a_version_that_exists(registry: Registry, make_bundle: MakeBundle) -> None:
    registry.register(make_bundle(0))
    with pytest.raises(ModelNotFound, match="digits:1"):
        registry.set_alias("digits", "champion", 2, actor="ann")
    with pytest.raises(ModelNotFound):
        registry.set_alias("letters", "champion", 1, actor="ann")
    assert registry.aliases("digits") == {}


def test_models_do_not_share_aliases(registry: Registry, make_bundle: MakeBundle) -> None:
    registry.register(make_bundle(0, "digits"), aliases=["best"])
    registry.register(make_bundle(0, "letters"), aliases=["champion"])
    assert registry.aliases("digits") == {"best": 1}
    assert registry.aliases("letters") == {"champion": 1}


@pytest.mark.parametrize("alias", ["", "4", "a b", "a/b", "-a", "a" * 129, "ä", "a\n", "@a", "a:1"])
def test_a_name_that_could_not_be_written_in_a_reference_is_refused(alias: str) -> None:
    with pytest.raises(InvalidConfig, match="not an alias"):
        check_alias(alias)


@given(st.text(max_size=12))
@hypothesis_settings(suppress_health_check=[HealthCheck.filter_too_much])
def test_every_alias_that_is_accepted_reads_back_from_a_reference(alias: str) -> None:
    try:
        check_alias(alias)
    except InvalidConfig:
        return
    assert ModelRef.parse(f"digits@{alias}") == ModelRef("digits", alias=alias)
