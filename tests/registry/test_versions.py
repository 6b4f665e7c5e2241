"""Versions: numbered without gaps, one per digest, found by number or alias."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fairway.bundle.format import write_bundle
from fairway.core.errors import InvalidBundle, InvalidConfig, ModelNotFound
from fairway.core.events import Action
from fairway.core.manifest import Lineage
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from tests.registry.conftest import Clock, MakeBundle


def test_versions_are_numbered_from_one_in_the_order_they_were_registered(
    registry: Registry, make_bundle: MakeBundle
) -> None:
    refs = [registry.register(make_bundle(seed)).ref for seed in range(3)]
    assert refs == ["digits:1", "digits:2", "digits:3"]
    assert [v.ref for v in registry.versions("digits")] == refs


def test_each_model_counts_for_itself(registry: Registry, make_bundle: MakeBundle) -> None:
    assert registry.register(make_bundle(0, "digits")).number == 1
    assert registry.register(make_bundle(0, "letters")).number == 1
    assert registry.models() == ("digits", "letters")


def test_the_same_bundle_again_is_the_version_it_already_is(registry: Registry, make_bundle: MakeBundle) -> None:
    first = registry.register(make_bundle(0))
    registry.register(make_bundle(1))
    revision = registry.revision()
    assert registry.register(make_bundle(0)) == first
    assert registry.revision() == revision
    assert len(registry.events()) == 2


def test_a_version_says_what_it_is_and_where_it_comes_from(
    registry: Registry, make_bundle: MakeBundle, clock: Clock, tmp_path: Path
) -> None:
    parent = registry.register(make_bundle(0))
    source = make_bundle(1)
    lineage = Lineage(parent=parent.digest, source_digest="sha256:" + "0" * 64)
    bundle = write_bundle(
        tmp_path / "child",
        msgspec.structs.replace(source.manifest, lineage=lineage),
        {name: source.file(name) for name in source.manifest.files},
    )
    clock.now = 2_000.5
    child = registry.register(bundle, actor="ann")
    assert (child.digest, child.created_at, child.parent) == (bundle.digest, 2_000.5, parent.digest)
    assert child.size_bytes == bundle.size_bytes
    assert child.manifest == bundle.manifest
    event = registry.events("digits")[-1]
    assert (event.action, event.actor, event.at) == (Action.REGISTERED, "ann", 2_000.5)
    assert event.change == {"version": 2, "digest": bundle.digest, "parent": parent.digest}


def test_a_bare_name_is_the_champion_or_else_the_newest(registry: Registry, make_bundle: MakeBundle) -> None:
    registry.register(make_bundle(0))
    registry.register(make_bundle(1))
    assert registry.version("digits").number == 2
    registry.set_alias("digits", "champion", 1, actor="ann")
    assert registry.version("digits").number == 1
    assert registry.version("digits:2").number == 2
    assert registry.version("digits@champion").number == 1


@pytest.mark.parametrize(
    ("ref", "known"),
    [("letters", "digits"), ("digits:9", "digits:1"), ("digits@best", "digits@champion"), ("letters:1", "digits")],
)
def test_what_is_not_there_is_answered_with_what_is(
    registry: Registry, make_bundle: MakeBundle, ref: str, known: str
) -> None:
    registry.register(make_bundle(0), aliases=["champion"])
    with pytest.raises(ModelNotFound, match=known):
        registry.version(ref)


def test_versions_of_an_unknown_model_are_an_error_not_an_empty_list(registry: Registry) -> None:
    with pytest.raises(ModelNotFound, match="none"):
        registry.versions("digits")


def test_an_altered_bundle_is_not_registered(registry: Registry, make_bundle: MakeBundle) -> None:
    bundle = make_bundle(0)
    path = bundle.file("model.onnx")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvalidBundle, match="altered"):
        registry.register(bundle)
    assert registry.models() == ()


def test_a_wrong_alias_registers_nothing(registry: Registry, make_bundle: MakeBundle) -> None:
    with pytest.raises(InvalidConfig, match="not an alias"):
        registry.register(make_bundle(0), aliases=["champion", "not/valid"])
    assert registry.models() == ()


def test_the_revision_grows_with_whatever_servers_follow_and_with_nothing_else(
    registry: Registry, make_bundle: MakeBundle
) -> None:
    seen = [registry.revision()]
    registry.register(make_bundle(0))
    seen.append(registry.revision())
    registry.set_alias("digits", "champion", 1, actor="")
    seen.append(registry.revision())
    assert seen == sorted(set(seen))
    registry.record("digits", Action.REFUSED, "ann", "too slow")
    registry.set_alias("digits", "champion", 1, actor="")
    assert registry.revision() == seen[-1]


def test_what_one_process_registers_another_sees(
    registry: Registry, settings: RegistrySettings, make_bundle: MakeBundle
) -> None:
    registry.register(make_bundle(0), aliases=["champion"])
    with Registry.open(settings, create=False) as other:
        assert other.version("digits@champion").number == 1
        assert other.revision() == registry.revision()
