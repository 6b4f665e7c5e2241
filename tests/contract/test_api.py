"""The public API: every name is there, is documented, says what it takes, and comes when it is asked for."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import fairway
from fairway.loop.project import Project
from tests.conftest import Digits

VERBS = (
    "card",
    "compare",
    "distill",
    "evaluate",
    "export",
    "load",
    "observe",
    "optimize",
    "pack",
    "register",
    "release",
    "replay",
    "rollback",
    "run",
    "serve",
    "status",
)


def test_this_is_the_public_api() -> None:
    assert sorted(fairway.__all__) == sorted(
        (*VERBS, "Bundle", "FairwayError", "Model", "Project", "connect", "version")
    )
    assert set(fairway.__all__) <= set(dir(fairway))


@pytest.mark.parametrize("name", fairway.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(fairway, name)
    assert inspect.getdoc(found)
    assert found.__name__ == name


@pytest.mark.parametrize("name", fairway.__all__)
def test_a_public_name_is_typed_for_checkers_as_it_is_at_run_time(name: str) -> None:
    """Each lazy name stands once more under ``TYPE_CHECKING``, from the same module."""
    if name == "version":
        return
    source = Path(inspect.getfile(fairway)).read_text("utf-8")
    declared = re.search(rf"^    from ([\w.]+) import {name} as {name}$", source, flags=re.MULTILINE)
    assert declared is not None
    assert getattr(importlib.import_module(declared[1]), name) is getattr(fairway, name)


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(inspect.getfile(fairway)).with_name("py.typed").is_file()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="retrain"):
        _ = fairway.retrain


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_works_in_a_project_and_is_fully_typed(name: str) -> None:
    verb = getattr(fairway, name)
    signature = inspect.signature(verb)
    project = signature.parameters["project"]
    assert project.kind is inspect.Parameter.KEYWORD_ONLY
    assert project.default is None
    assert "return" in verb.__annotations__
    assert set(verb.__annotations__) >= set(signature.parameters)


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_documents_what_is_its_own(name: str) -> None:
    """``project`` and ``progress`` are the same everywhere; a verb of nothing else needs no list."""
    verb = getattr(fairway, name)
    text = inspect.getdoc(verb) or ""
    own = [parameter for parameter in inspect.signature(verb).parameters if parameter not in ("project", "progress")]
    missing = [
        parameter for parameter in own if not re.search(rf"``{parameter}``|^\**{parameter}\b", text, re.MULTILINE)
    ]
    assert not missing


def test_a_project_is_found_from_below(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = released / "notebooks" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert Project.find().root == released
    assert fairway.status().models[0].name == "digits"


def test_verbs_compose(released: Path, digits: Digits) -> None:
    """From Python: load what is registered, ask it, release, observe, go back."""
    with fairway.load("digits:2") as model:
        answer = model.infer({"x": digits.x_test})["probabilities"]
    assert (answer.argmax(axis=1) == digits.y_test).mean() == pytest.approx(0.969, abs=0.005)
    assert fairway.release("digits", weight=0.5).weight == 0.5
    assert fairway.observe("digits").outcome == "inconclusive"
    assert fairway.rollback("digits").challenger is None
