"""``kill -9`` at any point leaves a registry that opens, agrees with its audit trail, and gives back every bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fairway.core.events import Action
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from tests.killing import fork_server, kill_in_the_middle
from tests.registry.conftest import MakeBundle
from tests.registry.workers import churn, open_for_ever

KILLS = 32
MODELS = ("digits", "letters")


def assert_sound(settings: RegistrySettings, cache: Path) -> int:
    """Check everything that was promised; returns the number of versions."""
    versions = 0
    with Registry.open(settings) as registry:
        for model in registry.models():
            found = registry.versions(model)
            assert [v.number for v in found] == list(range(1, len(found) + 1))
            for version in found:
                registry.fetch(version, cache).verify()
            versions += len(found)
            assert_replays(registry, model, {v.number: v.digest for v in found})
    return versions


def assert_replays(registry: Registry, model: str, digests: dict[int, str]) -> None:
    """The audit trail tells how the present state came about: all of it, and nothing that did not happen."""
    registered: dict[int, str] = {}
    aliases: dict[str, int] = {}
    release = None
    for event in registry.events(model, limit=100_000):
        if event.action is Action.REGISTERED:
            registered[event.change["version"]] = event.change["digest"]
        if "alias" in event.change:
            assert aliases.get(event.change["alias"]) == event.change["before"]
            aliases[event.change["alias"]] = event.change["version"]
        if "release" in event.change:
            assert event.change["release"]["revision"] == (release["revision"] if release else 0) + 1
            release = event.change["release"]
            aliases["champion"] = release["champion"]
    assert registered == digests
    assert registry.aliases(model) == aliases
    now = registry.release(model)
    assert (now and {name: getattr(now, name) for name in release or ()}) == release


def test_a_registry_survives_being_killed_anywhere(
    settings: RegistrySettings, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    bundles = [make_bundle(n, model).path for n in range(30) for model in MODELS]
    context = fork_server()
    grown = []
    for kill in range(KILLS):
        arguments = (settings, bundles, tmp_path / "cache", kill)
        kill_in_the_middle(context, churn, arguments, rng, steps=6, delay_s=0.02)
        grown.append(assert_sound(settings, tmp_path / f"other-cache-{kill % 3}"))
    assert grown == sorted(grown)
    assert grown[-1] > len(MODELS)


def test_a_first_opening_killed_anywhere_leaves_nothing_half_made(settings: RegistrySettings, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    context = fork_server()
    for kill in range(12):
        fresh = settings if settings.url.startswith("postgresql") else RegistrySettings().at(tmp_path / str(kill))
        kill_in_the_middle(context, open_for_ever, (fresh,), rng, steps=1, delay_s=0.1)
        with Registry.open(fresh) as registry:
            assert registry.revision() == 0
            registry.record("digits", Action.REFUSED, "test")
            assert len(registry.events()) == 1
        empty(fresh)


def empty(settings: RegistrySettings) -> None:
    """Make the next opening of a PostgreSQL database a first one again."""
    if settings.url.startswith("postgresql"):
        import psycopg

        with psycopg.connect(settings.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
