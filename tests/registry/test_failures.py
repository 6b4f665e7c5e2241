"""A database that cannot be reached, written or locked is a clear error that says what to do, never a traceback."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairway.core.errors import RegistryUnavailable
from fairway.core.events import Action
from fairway.registry.records import Release, Replica, Window
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from tests.registry.conftest import MakeBundle


@pytest.fixture
def local(tmp_path: Path) -> RegistrySettings:
    """A SQLite registry that exists and does not wait long."""
    settings = RegistrySettings(lock_timeout_s=0.05).at(tmp_path)
    Registry.open(settings).close()
    return settings


def database_file(settings: RegistrySettings) -> Path:
    return Path(settings.url.removeprefix("sqlite:///"))


def test_a_locked_registry_can_be_read_but_says_why_it_cannot_be_written(local: RegistrySettings) -> None:
    with Registry.open(local) as registry:
        other = sqlite3.connect(database_file(local))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryUnavailable, match=r"another process is writing.*lock_timeout_s"):
            registry.record("digits", Action.REFUSED, "ann")
        assert registry.events() == ()
        other.rollback()
        other.close()
        registry.record("digits", Action.REFUSED, "ann")
        assert len(registry.events()) == 1


@pytest.mark.postgres
def test_a_locked_postgresql_registry_says_so_too(postgres_url: str, tmp_path: Path) -> None:
    import psycopg

    settings = RegistrySettings(url=postgres_url, lock_timeout_s=0.05)
    with Registry.open(settings, root=tmp_path) as registry, psycopg.connect(postgres_url) as other:
        other.execute("UPDATE state SET revision = revision")
        with pytest.raises(RegistryUnavailable, match=r"another process is writing.*lock_timeout_s"):
            registry.record("digits", Action.REFUSED, "ann")
        other.rollback()
        registry.record("digits", Action.REFUSED, "ann")


def test_a_registry_that_can_only_be_read_is_read(
    local: RegistrySettings, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    with Registry.open(local) as registry:
        registry.register(make_bundle(0))
    read_only = RegistrySettings(url=f"sqlite:///file:{database_file(local)}?mode=ro&uri=true", blobs=local.blobs)
    with Registry.open(read_only) as registry:
        assert registry.fetch("digits", tmp_path / "cache").manifest.name == "digits"
        with pytest.raises(RegistryUnavailable, match=r"can only be read: check the permissions"):
            registry.set_alias("digits", "champion", 1, actor="ann")


@pytest.mark.parametrize("content", [b"certainly not a database, but long enough to be one" * 100, b"\x00" * 4096])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(content)
    with pytest.raises(RegistryUnavailable, match=r"not a registry|not a database"):
        Registry.open(RegistrySettings(url=f"sqlite:///{path}"))
    assert path.read_bytes() == content


def test_a_damaged_database_is_a_clear_error(local: RegistrySettings, make_bundle: MakeBundle) -> None:
    with Registry.open(local) as registry:
        for seed in range(8):
            registry.register(make_bundle(seed))
    path = database_file(local)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(RegistryUnavailable, match="damaged"):
        Registry.open(local)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / ".fairway").touch()
    with pytest.raises(RegistryUnavailable, match=r"check that it exists and that this user may write there"):
        Registry.open(root=tmp_path)


FILLER = """
import resource, sys
from pathlib import Path
from fairway.core.errors import RegistryUnavailable
from fairway.core.events import Action
from fairway.registry.store import Registry
with Registry.open(root=Path(sys.argv[1]), create=False) as registry:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    for kept in range(1000):
        try:
            registry.record("digits", Action.REFUSED, "ann", evidence={"long": "x" * 5000})
        except RegistryUnavailable as error:
            print(kept, error)
            break
"""


def test_a_full_disk_keeps_what_was_committed_and_says_what_to_do(local: RegistrySettings, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FILLER, str(tmp_path)], capture_output=True, text=True, check=True)
    kept, _, message = done.stdout.partition(" ")
    assert "free some space" in message
    with Registry.open(local) as registry:
        assert len(registry.events(limit=2000)) == int(kept) > 0
        registry.record("digits", Action.REFUSED, "ann")


@pytest.mark.postgres
@pytest.mark.parametrize(
    "url", ["postgresql://ann:hunter2@127.0.0.1:1/fairway", "postgres://ann:hunter2@[::1]:1/x?a=hunter2"]
)
def test_a_server_that_does_not_answer_is_named_without_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryUnavailable) as caught:  # nothing listens on port 1
        Registry.open(RegistrySettings(url=url), root=tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "postgresql://ann:***@" in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.postgres
def test_a_database_that_does_not_exist_on_the_server_is_a_clear_error(postgres_url: str, tmp_path: Path) -> None:
    from sqlalchemy import make_url

    missing = make_url(postgres_url).set(database="nowhere").render_as_string(hide_password=False)
    with pytest.raises(RegistryUnavailable, match=r"\"nowhere\" does not exist.*database in registry\.url"):
        Registry.open(RegistrySettings(url=missing), root=tmp_path)


@pytest.mark.postgres
def test_a_registry_goes_on_after_its_connections_were_cut(postgres_url: str, postgres: str, tmp_path: Path) -> None:
    import psycopg

    with Registry.open(RegistrySettings(url=postgres_url), root=tmp_path) as registry:
        registry.record("digits", Action.REFUSED, "ann")
        with psycopg.connect(postgres, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        registry.record("digits", Action.REFUSED, "ann")
        assert len(registry.events()) == 2


CALLS: dict[str, Callable[[Registry], Any]] = {
    "models": lambda r: r.models(),
    "versions": lambda r: r.versions("digits"),
    "version": lambda r: r.version("digits"),
    "aliases": lambda r: r.aliases("digits"),
    "set_alias": lambda r: r.set_alias("digits", "champion", 1, actor=""),
    "release": lambda r: r.release("digits"),
    "save_release": lambda r: r.save_release(Release("digits", 1), expected=None, action=Action.RELEASED, actor=""),
    "record": lambda r: r.record("digits", Action.REFUSED, ""),
    "events": lambda r: r.events(),
    "add_window": lambda r: r.add_window(Window("digits", 1, "a", 0.0, 1.0, b"", b"")),
    "windows": lambda r: r.windows("digits"),
    "heartbeat": lambda r: r.heartbeat(Replica("a", "", (), 0.0)),
    "replicas": lambda r: r.replicas(),
    "remove_replica": lambda r: r.remove_replica("a"),
    "revision": lambda r: r.revision(),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_method_says_when_the_registry_is_gone(tmp_path: Path, call: str) -> None:
    settings = msgspec.structs.replace(RegistrySettings(), lock_timeout_s=0.05).at(tmp_path)
    with Registry.open(settings) as registry:
        registry.close()  # so that the next call connects anew
        folder = database_file(settings).parent
        folder.rename(tmp_path / "gone")
        with pytest.raises(RegistryUnavailable, match="check that its folder exists"):
            CALLS[call](registry)


def test_a_registry_whose_file_is_removed_is_gone_and_one_put_in_its_place_is_followed(
    local: RegistrySettings, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    """As SQLite sees it, a removed file lives on for whoever has it open."""
    backup = tmp_path / "backup.db"
    with Registry.open(local) as registry:
        registry.register(make_bundle(name="one"))
        file = Path(local.url.removeprefix("sqlite:///"))
        with sqlite3.connect(file) as source, sqlite3.connect(backup) as target:
            source.backup(target)
        source.close()
        target.close()
        registry.register(make_bundle(name="two"))
        for path in file.parent.glob(f"{file.name}*"):
            path.unlink()
        for call in (registry.revision, registry.models, lambda: registry.record("one", Action.REFUSED, "test")):
            with pytest.raises(RegistryUnavailable, match="No such file"):
                call()
        assert not file.exists()
        backup.rename(file)
        assert registry.models() == ("one",)
