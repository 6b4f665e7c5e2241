"""Fetching: a verified copy by digest, healed when damaged, never half there."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from fairway.bundle.format import SIGNATURE, read_bundle
from fairway.bundle.staging import still_used
from fairway.core.errors import InvalidBundle, ModelNotFound, RegistryUnavailable
from fairway.model import Model
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from tests.killing import fork_server, kill_in_the_middle
from tests.registry.conftest import MakeBundle
from tests.registry.workers import fetch_for_ever


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def blob_files(root: Path) -> list[Path]:
    return [p for p in (root / ".fairway" / "blobs").rglob("*") if p.is_file()]


def test_what_is_fetched_is_what_was_registered_and_runs(
    registry: Registry, make_bundle: MakeBundle, cache: Path
) -> None:
    bundle = make_bundle(0)
    fetched = registry.fetch(registry.register(bundle), cache)
    assert fetched.digest == bundle.digest
    assert fetched.manifest == bundle.manifest
    rows = {"x": np.ones((2, 3), np.float32)}
    with Model(fetched) as copy, Model(bundle) as original:
        np.testing.assert_array_equal(copy.infer(rows)["probabilities"], original.infer(rows)["probabilities"])


def test_a_second_fetch_reads_nothing_from_the_store(
    registry: Registry, make_bundle: MakeBundle, cache: Path, tmp_path: Path
) -> None:
    version = registry.register(make_bundle(0))
    registry.fetch(version, cache)
    for blob in blob_files(tmp_path):
        blob.unlink()
    assert registry.fetch("digits:1", cache).digest == version.digest


@pytest.mark.parametrize("damage", ["altered", "truncated", "manifest", "file removed", "file added", "not a folder"])
def test_a_damaged_copy_is_replaced(registry: Registry, make_bundle: MakeBundle, cache: Path, damage: str) -> None:
    version = registry.register(make_bundle(0))
    copy = registry.fetch(version, cache)
    model = copy.file("model.onnx")
    if damage == "altered":
        model.write_bytes(bytes(len(model.read_bytes())))
    elif damage == "truncated":
        model.write_bytes(model.read_bytes()[:-1])
    elif damage == "manifest":
        (copy.path / "manifest.json").write_bytes(b"{")
    elif damage == "file removed":
        model.unlink()
    elif damage == "file added":
        (copy.path / "extra").touch()
    else:
        copy.path.rename(cache / "elsewhere")
        copy.path.write_bytes(b"")
    registry.fetch(version, cache).verify()


def test_a_damaged_blob_is_never_handed_out_and_registering_again_repairs_it(
    registry: Registry, make_bundle: MakeBundle, cache: Path, tmp_path: Path
) -> None:
    version = registry.register(make_bundle(0))
    (blob,) = blob_files(tmp_path)
    good = blob.read_bytes()
    for bad in (good[:-1], good + b"x", bytes(len(good))):
        blob.write_bytes(bad)
        with pytest.raises(InvalidBundle, match="register the bundle again"):
            registry.fetch(version, cache)
        assert [p for p in cache.iterdir() if not p.name.endswith(".lock")] == []
    blob.unlink()
    with pytest.raises(InvalidBundle, match="register the bundle again"):
        registry.fetch(version, cache)
    registry.register(make_bundle(0))
    registry.fetch(version, cache).verify()


def test_a_signature_travels_with_the_version_even_if_it_came_later(
    registry: Registry, make_bundle: MakeBundle, cache: Path
) -> None:
    bundle = make_bundle(0)
    assert registry.fetch(registry.register(bundle), cache).signature() == b""
    (bundle.path / SIGNATURE).write_bytes(b'{"signed": 1}')
    version = registry.register(read_bundle(bundle.path))
    assert version.signed
    assert version.number == 1
    fetched = registry.fetch(version, cache)
    assert fetched.signature() == b'{"signed": 1}'
    fetched.verify()


def test_an_unknown_version_is_not_fetched(registry: Registry, make_bundle: MakeBundle, cache: Path) -> None:
    registry.register(make_bundle(0))
    with pytest.raises(ModelNotFound):
        registry.fetch("digits:2", cache)


def test_a_cache_that_cannot_be_written_is_a_clear_error(
    registry: Registry, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    version = registry.register(make_bundle(0))
    (tmp_path / "file").touch()
    with pytest.raises(RegistryUnavailable, match="the cache of bundles"):
        registry.fetch(version, tmp_path / "file")


def test_a_fetch_killed_anywhere_leaves_no_half_copy_and_does_not_block_the_next(
    registry: Registry, settings: RegistrySettings, make_bundle: MakeBundle, cache: Path
) -> None:
    rng = np.random.default_rng(0)
    version = registry.register(make_bundle(0))
    context = fork_server()
    for _ in range(15):
        kill_in_the_middle(context, fetch_for_ever, (settings, cache), rng, steps=3, delay_s=0.01)
        final = cache / version.digest.replace(":", "-")
        if final.exists():
            read_bundle(final)  # whole, whenever it is there
        assert registry.fetch(version, cache).digest == version.digest
        shutil.rmtree(final)
        registry.fetch(version, cache)
        assert list(cache.glob(".*.partial")) == []  # the next writer clears up after a killed one


def test_the_longest_unused_leave_a_full_cache_and_what_is_in_use_stays(
    tmp_path: Path, make_bundle: MakeBundle, cache: Path
) -> None:
    bundles = [make_bundle(number) for number in range(5)]
    with Registry.open(RegistrySettings(cache_mb=2.5 * bundles[0].size_bytes / 1e6), root=tmp_path) as registry:
        versions = [registry.register(bundle) for bundle in bundles]

        def fetched(number: int, days_ago: float = 0.0) -> Path:
            path = registry.fetch(versions[number], cache).path
            os.utime(path, times=(time.time() - days_ago * 86_400,) * 2)
            return path

        oldest, older, in_use = fetched(0, days_ago=3), fetched(1, days_ago=2), fetched(2, days_ago=9)
        still_used(in_use)
        newest = fetched(3)
        assert [path.exists() for path in (oldest, older, in_use, newest)] == [False, False, True, True]
        assert fetched(4).exists()  # none of those there is unused for a day, so the cache is too large for a while
        assert [path.exists() for path in (in_use, newest)] == [True, True]
        registry.fetch(versions[0], cache).verify()
