"""An archive is the same bytes for the same bundle, and nothing unsafe comes out of one."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.bundle.archive import read_archive, write_archive
from fairway.bundle.format import MANIFEST, SIGNATURE, Bundle, read_bundle
from fairway.core.errors import InvalidBundle, NewerFormat
from tests.bundle.conftest import MakeBundle, tree


@pytest.fixture
def archive(bundle: Bundle, tmp_path: Path) -> Path:
    return write_archive(bundle, tmp_path / "digits.tar")


def rewrite(archive: Path, change: Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]) -> None:
    """Replace each member by what ``change`` makes of it."""
    with tarfile.open(archive) as tar:
        members = [(m, (tar.extractfile(m) or io.BytesIO()).read()) for m in tar]
    with tarfile.open(archive, "w") as tar:
        for member, content in (new for old in members for new in change(*old)):
            if member.isreg():
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_a_bundle_survives_the_round_trip(bundle: Bundle, archive: Path, tmp_path: Path) -> None:
    (bundle.path / SIGNATURE).write_bytes(b"signed")
    write_archive(bundle, archive)
    read = read_archive(archive, tmp_path / "read")
    assert read.digest == bundle.digest
    assert tree(read.path) == tree(bundle.path)
    read_bundle(read.path)


def test_the_same_bundle_gives_the_same_bytes(archive: Path, make_bundle: MakeBundle, tmp_path: Path) -> None:
    again = write_archive(make_bundle(tmp_path / "elsewhere" / "copy"), tmp_path / "again.tar")
    assert again.read_bytes() == archive.read_bytes()


def test_an_altered_bundle_is_not_archived(bundle: Bundle, tmp_path: Path) -> None:
    bundle.file("empty").write_bytes(b"!")
    with pytest.raises(InvalidBundle):
        write_archive(bundle, tmp_path / "digits.tar")
    assert not (tmp_path / "digits.tar").exists()


def test_a_failed_write_leaves_the_old_archive(bundle: Bundle, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = archive.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(OSError, match="No space"):
        write_archive(bundle, archive)
    assert archive.read_bytes() == before
    assert sorted(p.name for p in archive.parent.iterdir()) == sorted([archive.name, bundle.path.name])


def test_an_archive_truncated_at_any_byte_gives_nothing_or_the_whole_bundle(
    bundle: Bundle, archive: Path, tmp_path: Path
) -> None:
    whole = archive.read_bytes()
    used = whole.rstrip(b"\0")
    refused = 0
    for size in range(0, len(whole), 173):
        archive.write_bytes(whole[:size])
        try:
            assert read_archive(archive, tmp_path / f"read{size}").digest == bundle.digest
            assert size >= len(used)  # only the padding at the end may be missing
        except InvalidBundle:
            refused += 1
            assert not (tmp_path / f"read{size}").exists()
    assert refused > len(used) // 173


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_an_altered_byte_gives_nothing_or_the_same_bundle(
    bundle: Bundle, archive: Path, tmp_path: Path, data: st.DataObject
) -> None:
    whole = archive.read_bytes()
    altered = bytearray(whole)
    altered[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    archive.write_bytes(altered)
    try:
        assert read_archive(archive, tmp_path / "read").digest == bundle.digest
    except InvalidBundle:
        pass
    finally:
        archive.write_bytes(whole)


@given(st.binary(max_size=2048))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_bytes_make_reading_fail_in_another_way(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InvalidBundle):
        read_archive(tmp_path / "x.tar", tmp_path / "read")


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


HOSTILE = {
    "absolute": member("/tmp/escaped"),
    "parent": member("../escaped"),
    "symbolic link": member("link", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": member("link", tarfile.LNKTYPE, "model.onnx"),
    "device": member("device", tarfile.CHRTYPE),
    "pipe": member("pipe", tarfile.FIFOTYPE),
    "folder": member("folder", tarfile.DIRTYPE),
    "not in the manifest": member("extra"),
    "twice": member("model.onnx"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_member_is_refused_and_nothing_is_written(archive: Path, tmp_path: Path, name: str) -> None:
    rewrite(archive, lambda m, content: [(m, content)] + ([(HOSTILE[name], b"")] if m.name == "empty" else []))
    before = tree(tmp_path)
    with pytest.raises(InvalidBundle):
        read_archive(archive, tmp_path / "inside" / "read")
    assert tree(tmp_path) == before


def test_content_that_is_not_the_manifests_is_refused(archive: Path, tmp_path: Path) -> None:
    rewrite(archive, lambda m, content: [(m, content[::-1] if m.name == "tables/labels.json" else content)])
    with pytest.raises(InvalidBundle, match="altered"):
        read_archive(archive, tmp_path / "read")


def test_a_missing_file_or_manifest_is_named(archive: Path, tmp_path: Path) -> None:
    rewrite(archive, lambda m, content: [] if m.name == "empty" else [(m, content)])
    with pytest.raises(InvalidBundle, match="'empty'"):
        read_archive(archive, tmp_path / "read")
    rewrite(archive, lambda m, content: [] if m.name == MANIFEST else [(m, content)])
    with pytest.raises(InvalidBundle, match=MANIFEST):
        read_archive(archive, tmp_path / "read")


def test_a_newer_format_is_named(archive: Path, tmp_path: Path) -> None:
    rewrite(archive, lambda m, content: [(m, b'{"format": 99}' if m.name == MANIFEST else content)])
    with pytest.raises(NewerFormat, match="99"):
        read_archive(archive, tmp_path / "read")


def test_what_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.tar", tmp_path):
        with pytest.raises(InvalidBundle, match="no archive"):
            read_archive(path, tmp_path / "read")
