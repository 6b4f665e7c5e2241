"""Several processes at once never corrupt, skip or duplicate anything."""

from __future__ import annotations

from pathlib import Path

from fairway.core.events import Action
from fairway.registry.records import Release
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from tests.registry.conftest import MakeBundle
from tests.registry.workers import fetch_one, open_first, register_all, run_together, swap_release

PROCESSES = 5


def test_a_registry_opened_first_by_several_processes_is_made_once(settings: RegistrySettings) -> None:
    assert run_together(open_first, [(settings,)] * PROCESSES) == [0] * PROCESSES


def test_the_same_and_different_bundles_registered_at_once_are_numbered_without_gaps(
    settings: RegistrySettings, make_bundle: MakeBundle
) -> None:
    shared = [make_bundle(seed).path for seed in range(4)]
    own = [[make_bundle(100 + 10 * p + n).path for n in range(3)] for p in range(PROCESSES)]
    Registry.open(settings).close()
    answers = run_together(register_all, [(settings, shared + own[p]) for p in range(PROCESSES)])
    with Registry.open(settings, create=False) as registry:
        versions = registry.versions("digits")
        events = registry.events(limit=1000)
    total = len(shared) + PROCESSES * 3
    assert [v.number for v in versions] == list(range(1, total + 1))
    assert len({v.digest for v in versions}) == total
    assert [e.change["version"] for e in events] == list(range(1, total + 1))
    assert [e.change["digest"] for e in events] == [v.digest for v in versions]
    agreed = {v.digest: v.number for v in versions}
    assert all(agreed[digest] == number for answer in answers for digest, number in answer)


def test_of_several_changes_to_one_release_none_is_lost(
    settings: RegistrySettings, registry: Registry, make_bundle: MakeBundle
) -> None:
    registry.register(make_bundle(0))
    registry.register(make_bundle(1))
    registry.save_release(Release("digits", 1, 2, 0.1), expected=None, action=Action.RELEASED, actor="test")
    wanted = 5
    run_together(swap_release, [(settings, f"p{p}", wanted) for p in range(PROCESSES)])
    release = registry.release("digits")
    assert release is not None
    assert release.revision == 1 + PROCESSES * wanted
    changes = [e.change["release"]["revision"] for e in registry.events() if e.action is Action.WEIGHTED]
    assert changes == list(range(2, release.revision + 1))


def test_a_cache_shared_by_several_processes_gets_one_good_copy(
    settings: RegistrySettings, registry: Registry, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    version = registry.register(make_bundle(0))
    cache = tmp_path / "cache"
    digests = run_together(fetch_one, [(settings, version.ref, cache)] * PROCESSES)
    assert digests == [version.digest] * PROCESSES
    assert [p.name for p in cache.iterdir() if not p.name.startswith(".")] == [version.digest.replace(":", "-")]
    assert not list(cache.glob("*.partial"))
