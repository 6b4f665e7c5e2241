"""Blobs: by digest, atomic, checked, in a folder or wherever fsspec reaches."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import uuid
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import InvalidBundle, InvalidConfig, RegistryUnavailable
from fairway.core.manifest import FileEntry
from fairway.registry.blobs import Blobs, FolderBlobs, RemoteBlobs, open_blobs
from fairway.registry.errors import masked, scrubbed
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from tests.registry.conftest import MakeBundle


def entry_of(content: bytes) -> FileEntry:
    return FileEntry(hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture(params=["folder", "file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    urls = {
        "folder": f"{tmp_path}/blobs",
        "file": f"file://{tmp_path}/blobs",
        "memory": f"memory://{uuid.uuid4()}/blobs",
    }
    return open_blobs(urls[request.param])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"weights" * 1000)
    return path


def blob_path(blobs: RemoteBlobs, entry: FileEntry) -> str:
    return f"{blobs._root}/sha256/{entry.sha256[:2]}/{entry.sha256}"


def read(blobs: Blobs, entry: FileEntry) -> bytes:
    with blobs.open(entry) as stream:
        return stream.read()


def test_what_was_put_can_be_read_and_putting_it_again_changes_nothing(blobs: Blobs, source: Path) -> None:
    entry = entry_of(source.read_bytes())
    blobs.put(source, entry)
    blobs.put(source, entry)
    assert read(blobs, entry) == source.read_bytes()


def test_a_blob_that_is_not_there_is_named_with_what_to_do(blobs: Blobs) -> None:
    with pytest.raises(InvalidBundle, match=r"check registry\.blobs"):
        read(blobs, entry_of(b"never put"))


def test_putting_again_repairs_a_damaged_blob(tmp_path: Path, source: Path) -> None:
    blobs, entry = FolderBlobs(tmp_path / "blobs"), entry_of(source.read_bytes())
    blobs.put(source, entry)
    (kept,) = (p for p in (tmp_path / "blobs").rglob("*") if p.is_file())
    for damage in (b"", b"x" * entry.size):
        kept.write_bytes(damage)
        blobs.put(source, entry)
        assert read(blobs, entry) == source.read_bytes()


def test_putting_again_completes_a_remote_blob_that_was_cut_short(source: Path) -> None:
    blobs, entry = RemoteBlobs(f"memory://{uuid.uuid4()}"), entry_of(source.read_bytes())
    blobs.put(source, entry)
    blobs._fs.pipe_file(blob_path(blobs, entry), b"cut")
    blobs.put(source, entry)
    assert read(blobs, entry) == source.read_bytes()


def test_a_whole_registry_lives_in_a_remote_store(tmp_path: Path, make_bundle: MakeBundle) -> None:
    settings = RegistrySettings(blobs=f"memory://{uuid.uuid4()}")
    with Registry.open(settings, root=tmp_path) as registry:
        version = registry.register(make_bundle(0))
        assert registry.fetch(version, tmp_path / "cache").digest == version.digest


def test_a_store_that_nothing_installed_can_reach_is_an_error_at_opening(tmp_path: Path) -> None:
    for url in ("nosuch://models", "gs://models"):
        with pytest.raises(InvalidConfig, match=r"registry\.blobs"):
            Registry.open(RegistrySettings(blobs=url), root=tmp_path)


def test_a_store_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    settings = RegistrySettings(blobs="ftp://ann:hunter2@127.0.0.1:1/models")  # nothing listens on port 1
    with pytest.raises(RegistryUnavailable, match=r"ann:\*\*\*@127.0.0.1.*check the address") as caught:
        Registry.open(settings, root=tmp_path)
    assert "hunter2" not in str(caught.value)


WRITER = """
import resource, signal, sys
from pathlib import Path
from fairway.core.manifest import FileEntry
from fairway.registry.blobs import FolderBlobs
from fairway.core.errors import FairwayError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    FolderBlobs(Path(sys.argv[1])).put(Path(sys.argv[2]), FileEntry(sys.argv[3], int(sys.argv[4])))
except FairwayError as error:
    print(error.code, error)
"""


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path: Path, source: Path) -> None:
    entry, root = entry_of(source.read_bytes()), tmp_path / "blobs"
    arguments = [sys.executable, "-c", WRITER, str(root), str(source), entry.sha256, str(entry.size)]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert said.startswith("registry_unavailable")
    assert "free some space" in said
    assert [p for p in root.rglob("*") if p.is_file()] == []


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path: Path, source: Path) -> None:
    with pytest.raises(RegistryUnavailable, match="check that it exists"):
        FolderBlobs(source).put(source, entry_of(source.read_bytes()))


secrets = st.text("abcdefgh0123456789:@/?#%", min_size=6).map(lambda s: "s3cr3t" + s)


@given(secrets)
def test_no_message_ever_holds_a_password(secret: str) -> None:
    quoted = quote(secret, safe="")
    for url in (f"ftp://ann:{quoted}@host/models", f"postgresql://ann@db/fairway?sslmode=off&password={quoted}"):
        assert "s3cr3t" not in masked(url)
        assert "s3cr3t" not in scrubbed(f"cannot open {url}: denied for {secret}", url)


def test_putting_again_repairs_a_remote_blob_of_the_same_size(source: Path) -> None:
    blobs, entry = RemoteBlobs(f"memory://{uuid.uuid4()}"), entry_of(source.read_bytes())
    blobs.put(source, entry)
    for _ in range(2):
        blobs._fs.pipe_file(blob_path(blobs, entry), b"x" * entry.size)
        blobs.put(source, entry)
        assert read(blobs, entry) == source.read_bytes()


def test_a_remote_blob_that_is_known_to_be_whole_is_not_read_again(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, entry = f"memory://{uuid.uuid4()}", entry_of(source.read_bytes())
    blobs = RemoteBlobs(url)
    blobs.put(source, entry)
    blobs._fs.rm(f"{blob_path(blobs, entry)}.whole")  # put there by an older Fairway: read once
    blobs.put(source, entry)
    read_again: list[str] = []
    again = RemoteBlobs(url)
    monkeypatch.setattr(again, "_sha256", read_again.append)
    again.put(source, entry)
    assert read_again == []
