"""An export appears whole or not at all, and never over something else."""

from __future__ import annotations

from pathlib import Path

import pytest

import fairway
from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidConfig
from fairway.exports import triton
from tests.projects import run_here


def test_a_repository_takes_more_models_but_none_twice(numbers: Bundle, texts: Bundle, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    fairway.export(numbers, repository)
    fairway.export(texts, repository, raw=True)
    assert {path.name for path in repository.iterdir()} == {"numbers", "mood"}
    with pytest.raises(InvalidConfig, match="exists already"):
        fairway.export(numbers, repository)


def test_what_is_there_stays_as_it_is(numbers: Bundle, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "file", "link"):
        with pytest.raises(InvalidConfig, match="exists already"):
            fairway.export(numbers, tmp_path / name, to="onnx")
    assert (tmp_path / "full" / "mine").read_text() == "mine"


def test_an_empty_folder_is_filled(numbers: Bundle, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder = fairway.export(numbers, tmp_path / "empty", to="onnx")
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "labels.txt", "manifest.json"}


def test_a_failure_leaves_nothing_behind(numbers: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(triton, "pbtxt", full)
    with pytest.raises(OSError, match="No space"):
        fairway.export(numbers, tmp_path / "repository")
    assert not list((tmp_path / "repository").iterdir())


def test_onnx_has_the_tokenizer_beside_the_graph(texts: Bundle, tmp_path: Path) -> None:
    folder = fairway.export(texts, tmp_path / "folder", to="onnx")
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "labels.txt", "manifest.json", "tokenizer.json"}


def test_the_command_says_where_it_is(
    folder: Path, numbers: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = run_here(capfd, "export", numbers.path, "--to", "triton", tmp_path / "repository", "--json")
    assert answer.code == 0
    assert Path(answer.document["path"], "config.pbtxt").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--to", "tfserving"], "TensorFlow Serving reads SavedModels only"),
        (["--to", "elsewhere"], "there are: triton, onnx"),
        (["--instances", "0"], "at least one"),
        (["--backend", "python", "--raw"], "leave out --raw"),
    ],
)
def test_what_cannot_be_had_is_a_mistake_that_says_what_can(
    folder: Path, numbers: Bundle, options: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = run_here(capfd, "export", numbers.path, tmp_path / "repository", *options)
    assert answer.code == 3
    assert said in answer.err
