"""A bundle is read only if every byte is as it was written, and says clearly why when it is not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.bundle.format import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    Bundle,
    decode_manifest,
    read_bundle,
    write_bundle,
)
from fairway.core.errors import InvalidBundle, NewerFormat
from fairway.core.manifest import FORMAT, FileEntry
from tests.bundle.conftest import FILES, MakeBundle, manifest, tree

names = st.text("abcABC019._-é ", min_size=1, max_size=8)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@given(st.dictionaries(paths, st.binary(max_size=64), max_size=5))
@settings(deadline=None, max_examples=50)
def test_what_was_written_is_what_is_read(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = write_bundle(Path(folder) / "b", manifest(), files)
        except InvalidBundle:  # such as 'a' beside 'a/b', or '..'
            assert tree(Path(folder)) == {}
            return
        read = read_bundle(written.path)
        assert {name: read.file(name).read_bytes() for name in read.manifest.files} == files
        assert (read.digest, read.manifest) == (written.digest, written.manifest)
        assert read.size_bytes == sum(map(len, files.values()))


def test_the_digest_depends_on_the_content_and_not_on_when_or_where(make_bundle: MakeBundle, tmp_path: Path) -> None:
    here, there = make_bundle(tmp_path / "here"), make_bundle(tmp_path / "far" / "there")
    assert here.digest == there.digest
    assert tree(here.path) == tree(there.path)
    assert make_bundle(tmp_path / "other", FILES | {"empty": b"!"}).digest != here.digest


def test_files_can_come_from_disk(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"w" * 3_000_000)  # several chunks
    assert read_bundle(write_bundle(tmp_path / "b", manifest(), {"w": source}).path).file("w").read_bytes() == (
        source.read_bytes()
    )


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_file_truncated_at_any_byte_is_refused(bundle: Bundle, name: str) -> None:
    path = bundle.path / name
    whole = path.read_bytes()
    for size in {*range(0, len(whole), 97), *range(max(0, len(whole) - 40), len(whole))}:
        path.write_bytes(whole[:size])
        with pytest.raises(InvalidBundle, match=r"truncated|damaged"):
            read_bundle(bundle.path)
    path.write_bytes(whole)
    read_bundle(bundle.path)


@given(data=st.data())
@shared_folder
def test_an_altered_byte_is_never_read_as_the_same_bundle(bundle: Bundle, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["model.onnx", "tables/labels.json", MANIFEST]))
    path = bundle.path / name
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    altered = bytearray(whole)
    altered[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(altered)
    try:
        found = read_bundle(bundle.path).digest
    except InvalidBundle:
        found = ""
    finally:
        path.write_bytes(whole)
    assert found != bundle.digest
    assert name == MANIFEST or found == ""


@given(st.binary(max_size=200) | st.text('{}[]":,0123456789abformat', max_size=80).map(str.encode))
def test_no_bytes_make_the_manifest_decoder_fail_in_another_way(raw: bytes) -> None:
    with pytest.raises(InvalidBundle):
        decode_manifest(raw, "somewhere")


def test_json_nested_too_deep_is_damage_not_a_crash(bundle: Bundle) -> None:
    content = (bundle.path / MANIFEST).read_bytes()
    deep = content.replace(
        b'"lineage":{', b'"lineage":{"hyperparameters":{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"},"
    )
    assert deep != content
    with pytest.raises(InvalidBundle, match="damaged"):
        decode_manifest(deep, "somewhere")


def test_a_newer_format_is_named_even_if_nothing_else_of_it_is_known(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b'{"format": %d, "shape of things to come": {}}' % (FORMAT + 1))
    with pytest.raises(NewerFormat, match="upgrade: pip install -U fairway"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("number", [0, -1])
def test_a_format_that_never_was_is_refused(bundle: Bundle, number: int) -> None:
    raw = msgspec.structs.replace(bundle.manifest, format=number).encode()
    with pytest.raises(InvalidBundle, match="never was"):
        decode_manifest(raw, "somewhere")


UNSAFE = [
    "/etc/passwd",
    "../up",
    "a/../../b",
    "a//b",
    "./a",
    "a/",
    "a\\b",
    "a\0b",
    "a\nb",
    "",
    ".",
    "x" * 256,
    "\udc80",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_a_name_that_could_leave_the_bundle_is_never_written_nor_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidBundle, match=r"safe|reserved"):
        write_bundle(tmp_path / "b", manifest(), {name: b"x"})
    assert list(tmp_path.iterdir()) == []
    try:
        raw = msgspec.structs.replace(manifest(), files={name: FileEntry("0" * 64, 1)}).encode()
    except UnicodeEncodeError:
        return  # JSON cannot even hold it
    with pytest.raises(InvalidBundle):
        decode_manifest(raw, "somewhere")


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, f"{MANIFEST}/x"])
def test_the_bundles_own_names_are_reserved(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidBundle, match="reserved"):
        write_bundle(tmp_path / "b", manifest(), {name: b"x"})


def test_a_file_cannot_also_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match="both a file and the folder"):
        write_bundle(tmp_path / "b", manifest(), {"a": b"", "a/b/c": b""})


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x" * 129])
def test_a_model_name_is_safe_in_a_path_and_a_reference(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidBundle, match="not a model name"):
        write_bundle(tmp_path / "b", manifest(name), FILES)


def test_links_are_refused_even_to_the_right_content(bundle: Bundle, tmp_path: Path) -> None:
    path = bundle.file("model.onnx")
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(InvalidBundle, match="lacks"):
        read_bundle(bundle.path)


def test_a_linked_folder_is_refused_even_with_the_right_content(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.path / "tables").rename(tmp_path / "tables")
    (bundle.path / "tables").symlink_to(tmp_path / "tables")
    with pytest.raises(InvalidBundle, match="tables"):
        read_bundle(bundle.path)


def test_neither_a_pipe_nor_a_missing_nor_an_extra_file_passes(bundle: Bundle) -> None:
    path = bundle.file("model.onnx")
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(InvalidBundle, match=r"lacks 'model.onnx'"):
        read_bundle(bundle.path)
    os.mkfifo(path)
    with pytest.raises(InvalidBundle, match=r"lacks 'model.onnx'"):
        read_bundle(bundle.path)
    path.unlink()
    path.write_bytes(whole)
    (bundle.path / "tables" / "extra").touch()
    with pytest.raises(InvalidBundle, match="does not list"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("what", ["nothing", "file", "folder", "manifest is a folder", "huge manifest", "null byte"])
def test_what_is_no_bundle_is_said_to_be_none(tmp_path: Path, what: str) -> None:
    path = tmp_path / ("a\0b" if what == "null byte" else "b")
    if what == "file":
        path.touch()
    elif what == "folder":
        path.mkdir()
    elif what == "manifest is a folder":
        (path / MANIFEST).mkdir(parents=True)
    elif what == "huge manifest":
        path.mkdir()
        with (path / MANIFEST).open("wb") as stream:
            stream.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(InvalidBundle):
        read_bundle(path)


def test_a_file_that_the_manifest_does_not_list_cannot_be_asked_for(bundle: Bundle) -> None:
    with pytest.raises(InvalidBundle, match=r"no file '../x'; it has: empty, model.onnx"):
        bundle.file("../x")


@pytest.mark.parametrize("engine", [{"max_batch": 0}, {"max_batch": -1}, {"threads": -1}, {"threads": 10**9}])
def test_engine_settings_that_no_server_could_run_with_are_damage(bundle: Bundle, engine: dict[str, int]) -> None:
    content = msgspec.json.decode((bundle.path / MANIFEST).read_bytes()) | {"engine": engine}
    (bundle.path / MANIFEST).write_bytes(msgspec.json.encode(content))
    with pytest.raises(InvalidBundle, match=next(iter(engine))):
        read_bundle(bundle.path)


def test_a_pipe_in_the_manifests_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST)
    with pytest.raises(InvalidBundle, match="not a bundle"):
        read_bundle(tmp_path)
