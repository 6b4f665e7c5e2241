"""``--json``: one JSON document on stdout and nothing else, for every command; words for people without it."""

from __future__ import annotations

from pathlib import Path

import pytest

import fairway
from tests.conftest import Digits
from tests.projects import Answer, edit, run_here, serving


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str]) -> type[Asking]:
    Asking.capfd = capfd
    return Asking


class Asking:
    """Runs a command with and without ``--json``."""

    capfd: pytest.CaptureFixture[str]

    @classmethod
    def document(cls, *arguments: str | Path, code: int = 0) -> dict[str, object]:
        answer = run_here(cls.capfd, *arguments, "--json")
        assert answer.code == code, answer.err
        assert "Traceback" not in answer.err
        found = answer.document
        assert isinstance(found, dict)
        return found

    @classmethod
    def text(cls, *arguments: str | Path, code: int = 0) -> Answer:
        answer = run_here(cls.capfd, *arguments)
        assert answer.code == code, answer.err
        assert not answer.out.startswith("{")
        assert answer.out.strip()
        return answer


def test_init(folder: Path, ask: type[Asking]) -> None:
    assert ask.document("init", "good.onnx", "test.parquet", "-o", "new.toml") == {"path": "new.toml"}
    assert "new.toml" in ask.text("init", "good.onnx", "test.parquet", "-o", "new.toml", "--replace").out


def test_run(released: Path, ask: type[Asking]) -> None:
    road = ask.document("run")
    assert (road["model"], road["version"], road["refused"]) == ("digits", 2, "")
    assert "digits:2" in ask.text("run").out


def test_evaluate(released: Path, ask: type[Asking]) -> None:
    report = ask.document("evaluate", "digits:2", "--html", "out/page.html")
    assert report["verdict"]["outcome"] == "passed"  # type: ignore[index]
    assert (released / "out" / "page.html").read_text().startswith("<!")


def test_a_failing_evaluation_exits_1_and_a_doubtful_one_2(released: Path, ask: type[Asking]) -> None:
    edit(released, "min = 0.9", "min = 0.999")
    assert "accuracy_score" in ask.text("evaluate", "digits:2", code=1).out
    edit(released, "min = 0.999", "min = 0.97")
    assert ask.document("evaluate", "digits:2", code=2)["verdict"]["outcome"] == "inconclusive"  # type: ignore[index]


def test_optimize(released: Path, ask: type[Asking]) -> None:
    edit(released, 'label = "digit"', 'reference = "train.parquet"\nlabel = "digit"')
    edit(released, "[serve]", '[optimize]\ncandidates = ["int8-dynamic"]\nrepeats = 1\n\n[serve]')
    found = ask.document("optimize", "digits:1", "--html", "page.html")
    assert found["chosen"]
    assert (released / "page.html").is_file()


def test_pack_and_register(released: Path, ask: type[Asking]) -> None:
    packed = ask.document("pack", "digits:1", "-o", "some.tar")
    assert packed["path"] == "some.tar"
    registered = ask.document("register", "some.tar", "--alias", "staging", "--alias", "newest")
    assert registered == {"model": "digits", "version": 3, "digest": packed["digest"]}
    assert "digits:3" in ask.text("register", "some.tar").out
    status = ask.document("status", "digits")
    assert status["models"][0]["aliases"] == {"champion": 1, "newest": 3, "staging": 3}  # type: ignore[index]


def test_serve_and_infer(released: Path, ask: type[Asking], digits: Digits) -> None:
    with serving(released) as (url, _):
        answer = ask.document("infer", "digits:1", "--data", "test.parquet", "--rows", "450", "--url", url)
        assert (answer["model"], answer["version"]) == ("digits", "1")
        rows = answer["outputs"]["probabilities"]  # type: ignore[index]
        right = [max(range(10), key=row.__getitem__) == label for row, label in zip(rows, digits.y_test, strict=True)]
        assert sum(right) / 450 == pytest.approx(0.969, abs=0.005)
        text = ask.text("infer", "digits", "--data", "test.parquet", "--rows", "30", "--url", url).out
        assert "10 rows more" in text
        given = '{"x": [' + ", ".join(["0.5"] * 64) + "]}"
        assert "[-1, 64]" in run_here(ask.capfd, "infer", "digits", "--inputs", given, "--url", url).err
        given = given.replace("[", "[[").replace("]", "]]")
        assert ask.document("infer", "digits", "--inputs", given, "--url", url)["model"] == "digits"


def test_the_releases_life(released: Path, ask: type[Asking]) -> None:
    assert ask.document("release", "digits", code=2)["release"]["challenger"] == 2  # type: ignore[index]
    ask.text("release", "digits", code=2)
    assert ask.document("release", "digits", "--weight", "0.5")["release"]["weight"] == 0.5  # type: ignore[index]
    assert ask.document("release", "digits", "--promote")["release"]["champion"] == 2  # type: ignore[index]
    assert ask.document("rollback", "digits", "--reason", "it stutters")["champion"] == 1
    assert "stutters" in ask.text("status").out


def test_observe_without_traffic_is_inconclusive(released: Path, ask: type[Asking]) -> None:
    assert ask.document("observe", "digits", "--html", "drift.html", code=2)["outcome"] == "inconclusive"
    assert "INCONCLUSIVE" in ask.text("observe", "digits", code=2).out
    assert (released / "drift.html").is_file()


def test_status(released: Path, ask: type[Asking]) -> None:
    status = ask.document("status", "--events", "1")
    assert [model["name"] for model in status["models"]] == ["digits"]  # type: ignore[attr-defined]
    assert len(status["events"]) == 1  # type: ignore[arg-type]
    assert "digits" in ask.text("status").out


def test_the_verbs_give_what_the_commands_print(released: Path, ask: type[Asking]) -> None:
    assert fairway.status().models[0].name == ask.document("status")["models"][0]["name"]  # type: ignore[index]
