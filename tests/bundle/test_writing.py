"""Writing is all or nothing: on a full disk, over what exists, when killed, and with several writers."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fairway.bundle import staging
from fairway.bundle.format import Bundle, copy_bundle, read_bundle, write_bundle
from fairway.core.errors import InvalidBundle
from tests.bundle.conftest import FILES, MakeBundle, manifest, tree
from tests.killing import fork_server, kill_in_the_middle


def test_the_same_bundle_again_is_left_as_it_is(bundle: Bundle, make_bundle: MakeBundle) -> None:
    before = bundle.file("model.onnx").stat()
    assert make_bundle().digest == bundle.digest
    assert bundle.file("model.onnx").stat() == before
    assert [p.name for p in bundle.path.parent.iterdir()] == [bundle.path.name]


@pytest.mark.parametrize("there", ["other bundle", "damaged bundle", "folder", "file", "dangling link"])
def test_something_else_is_never_overwritten(make_bundle: MakeBundle, tmp_path: Path, there: str) -> None:
    path = tmp_path / "b"
    if there == "other bundle":
        make_bundle(path, {"other": b"1"})
    elif there == "damaged bundle":
        make_bundle(path).file("model.onnx").write_bytes(b"")
    elif there == "folder":
        path.mkdir()
        (path / "precious").write_bytes(b"1")
    elif there == "file":
        path.write_bytes(b"precious")
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = tree(tmp_path)
    with pytest.raises(InvalidBundle):
        make_bundle(path)
    assert tree(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("failing", ["fsync", "write", "rename"])
def test_a_full_disk_leaves_nothing_behind(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = {"fsync": "os.fsync", "write": "fairway.bundle.format.copy", "rename": "pathlib.Path.rename"}[failing]
    monkeypatch.setattr(target, full)
    with pytest.raises(OSError, match="No space left"):
        make_bundle(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
from pathlib import Path
from fairway.bundle.format import write_bundle
from tests.bundle.conftest import manifest
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    write_bundle(Path(sys.argv[1]), manifest(), {"a": b"x" * 1000, "b": b"x" * 100_000})
except OSError as error:
    print(error.errno)
"""


def test_a_real_limit_on_file_size_leaves_nothing_behind(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", LIMITED, str(tmp_path / "b"), "20000"]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert int(said) == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [b"", b"weights" * 299, b"weights" * 300 + b"!", b"WEIGHTS" * 300])
def test_a_copy_that_is_not_what_the_manifest_says_never_appears(bundle: Bundle, tmp_path: Path, bad: bytes) -> None:
    bundle.file("model.onnx").write_bytes(bad)
    with pytest.raises(InvalidBundle, match=r"'model.onnx' of 'digits' is truncated or altered"):
        copy_bundle(tmp_path / "copy", bundle.manifest, lambda name: bundle.file(name).open("rb"))
    assert [p.name for p in tmp_path.iterdir()] == [bundle.path.name]


def test_a_copy_is_the_same_bundle_signature_included(bundle: Bundle, tmp_path: Path) -> None:
    copied = copy_bundle(tmp_path / "copy", bundle.manifest, lambda name: bundle.file(name).open("rb"), b"signed")
    assert (read_bundle(copied.path).digest, copied.signature()) == (bundle.digest, b"signed")


def write_for_ever(destination: Path, size: int, step: Callable[[], None]) -> None:
    files = FILES | {f"part{n}": b"x" * size for n in range(5)}
    for n in range(10**9):
        step()
        write_bundle(destination / str(n % 3), manifest(), files)
        (destination / str(n % 3)).rename(destination / f"done-{os.getpid()}-{n}")


def test_killed_anywhere_no_half_bundle_is_ever_under_the_final_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    context = fork_server()
    whole = 0
    for kill in range(30):
        kill_in_the_middle(context, write_for_ever, (tmp_path, 200_000), rng, steps=3, delay_s=0.02)
        for path in tmp_path.iterdir():
            if not path.name.startswith("."):
                read_bundle(path)
                whole += 1
                path.rename(tmp_path / f".checked-{kill}-{path.name}")
    assert whole > 0
    for n in range(3):
        write_bundle(tmp_path / str(n), manifest(), FILES)
    assert list(tmp_path.glob("*.partial")) == []  # the next writer clears up after a killed one


def test_what_another_writer_is_busy_with_is_left_alone(tmp_path: Path, make_bundle: MakeBundle) -> None:
    with staging.staging(tmp_path / "b") as busy:
        (busy / "half").write_bytes(b"1")
        bundle = make_bundle(tmp_path / "b")
        assert (busy / "half").read_bytes() == b"1"
        with pytest.raises(OSError, match=r"not empty|exists"):
            staging.publish(busy, bundle.path)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    read_bundle(bundle.path)


def test_a_very_long_name_can_be_written(make_bundle: MakeBundle, tmp_path: Path) -> None:
    read_bundle(make_bundle(tmp_path / ("x" * 255)).path)
