"""Weights that are mapped are copied first: once for all workers, and gone with the last of them."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fairway.bundle.format import Bundle
from fairway.serving.copies import PrivateBundle, safe_copy
from tests.serving.test_model_faults import table_bundle
from tests.serving.test_workers import server, until


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return table_bundle(tmp_path / "table")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary directory, of this process and of those that it starts."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield folder
    monkeypatch.setattr("tempfile.tempdir", None)


def copies(scratch: Path) -> list[Path]:
    return sorted(scratch.glob("fairway-*/**/weights"))


def test_those_who_share_have_one_copy_that_goes_with_the_last(bundle: Bundle, scratch: Path) -> None:
    one, other = safe_copy(bundle, shared=True), safe_copy(bundle, shared=True)
    assert one.path == other.path
    assert copies(scratch) == [one.file("weights")]
    other.verify()
    del one
    gc.collect()
    assert copies(scratch) == [other.file("weights")]
    del other
    gc.collect()
    assert copies(scratch) == []


def test_a_bundle_that_is_altered_while_it_is_served_is_still_what_others_get(bundle: Bundle, scratch: Path) -> None:
    first = safe_copy(bundle, shared=True)
    bundle.file("weights").write_bytes(b"")
    safe_copy(bundle, shared=True).verify()
    first.verify()


def test_a_copy_that_was_cut_is_made_anew_and_those_who_have_it_keep_theirs(bundle: Bundle, scratch: Path) -> None:
    first = safe_copy(bundle, shared=True)
    with first.file("weights").open("rb") as mapped:
        first.file("model.onnx").write_bytes(b"")
        second = safe_copy(bundle, shared=True)
        second.verify()
        assert mapped.read() == bundle.file("weights").read_bytes()


def test_what_a_killed_process_left_is_not_trusted_and_goes(bundle: Bundle, scratch: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from fairway.bundle.format import read_bundle; from fairway.serving.copies import safe_copy\n"
        "copy = safe_copy(read_bundle(sys.argv[1]), shared=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    (tmp_path / "more").mkdir()
    other = table_bundle(tmp_path / "more" / "table", scale=2)
    for each in (bundle, other):
        subprocess.run([sys.executable, "-c", code, str(each.path)], check=False)
    (left,) = copies(scratch)  # what the first left went as the second came
    size = left.stat().st_size
    left.write_bytes(bytes(size))
    again = safe_copy(other, shared=True)
    assert copies(scratch) == [again.file("weights")]
    again.verify()


def test_where_another_user_has_the_directory_each_has_a_copy_of_its_own(bundle: Bundle, scratch: Path) -> None:
    safe_copy(bundle, shared=True)
    (root,) = scratch.iterdir()
    root.chmod(0o777)
    alone = safe_copy(bundle, shared=True)
    assert isinstance(alone, PrivateBundle)
    alone.release()
    assert list(scratch.iterdir()) == [root]


@pytest.mark.parametrize("table", ["engine_cache_mb = 0\n", ""], ids=["without the engines' cache", "with it"])
def test_workers_serve_one_copy_which_ends_with_the_server(
    bundle: Bundle, scratch: Path, tmp_path: Path, table: str
) -> None:
    (tmp_path / "project").mkdir()
    with server(bundle, tmp_path / "project", table=table, workers="2") as running:
        until(lambda: running.serving() == 2, "second worker")
        assert len(copies(scratch)) == 1
        for file in bundle.path.iterdir():
            file.unlink()
        asked = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [4095]}]}
        for _ in range(20):
            answer = httpx.post(f"{running.url}/v2/models/table/infer", json=asked).json()
            assert answer["outputs"][0]["data"][0] == 4095 * 64
        running.running.send_signal(signal.SIGTERM)
        running.running.wait(30)
    assert copies(scratch) == []
