"""``--help`` teaches every command, and the exit codes are those that decision 0004 records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from fairway.cli.app import app
from fairway.cli.errors import (
    BROKEN,
    DONE,
    EXIT_CODES,
    FAILED,
    INCONCLUSIVE,
    INTERRUPTED,
    MISTAKE,
    OUTCOME_CODES,
    exit_code,
)
from fairway.core.errors import FairwayError
from fairway.core.gate import Outcome
from tests.projects import FAIRWAY, run_here, run_there

ROAD = [
    "init",
    "run",
    "evaluate",
    "comment",
    "distill",
    "optimize",
    "compare",
    "pack",
    "export",
    "card",
    "register",
    "serve",
    "infer",
    "release",
    "rollback",
    "observe",
    "status",
]
DECISION = Path(__file__).parents[2] / "docs" / "decisions" / "0004-exit-codes.md"


def leaves(base: type[FairwayError]) -> Iterator[type[FairwayError]]:
    yield base
    for kind in base.__subclasses__():
        yield from leaves(kind)


ERRORS = sorted({kind for kind in leaves(FairwayError) if kind.__module__ == "fairway.core.errors"}, key=str)


def commands() -> dict[str, Any]:
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_these_are_the_commands() -> None:
    assert sorted(commands()) == sorted(ROAD)


def test_the_program_tells_its_commands_in_the_order_of_the_road(capfd: pytest.CaptureFixture[str]) -> None:
    answer = run_here(capfd, "--help")
    assert answer.code == DONE
    listed = re.findall(r"^  ([a-z]+)  +\S", answer.out.partition("Commands:")[2], flags=re.MULTILINE)
    assert sorted(listed) == sorted(ROAD)
    assert "Exit codes" in answer.out


def test_without_a_command_it_helps(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_here(capfd) == run_here(capfd, "--help")


def test_it_tells_its_version(capfd: pytest.CaptureFixture[str]) -> None:
    import fairway

    answer = run_here(capfd, "--version")
    assert (answer.code, answer.out) == (DONE, f"{fairway.version()}\n")


@pytest.mark.parametrize("name", ROAD)
def test_a_command_explains_itself_and_each_of_its_options(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    answer = run_here(capfd, name, "--help")
    assert answer.code == DONE
    assert answer.err == ""
    command = commands()[name]
    assert (command.help or "").strip()
    assert len(command.get_short_help_str(200)) > 10
    for parameter in command.params:
        assert getattr(parameter, "help", ""), f"{name}: {parameter.name} has no help"
        for spelling in parameter.opts if parameter.param_type_name == "option" else ():
            assert spelling in answer.out


@pytest.mark.parametrize("name", ROAD)
def test_every_command_speaks_json(name: str) -> None:
    assert "--json" in {spelling for parameter in commands()[name].params for spelling in parameter.opts}


@pytest.mark.parametrize("error", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_has_an_exit_code(error: type[FairwayError]) -> None:
    assert EXIT_CODES[error.code] in (FAILED, INCONCLUSIVE, MISTAKE, BROKEN)


def test_no_exit_code_is_left_without_its_error() -> None:
    assert set(EXIT_CODES) == {error.code for error in ERRORS}


def test_an_error_of_a_plug_in_is_broken() -> None:
    class Foreign(FairwayError):
        code = "foreign"

    assert exit_code(Foreign("?")) == BROKEN


def test_every_outcome_of_the_gate_has_an_exit_code() -> None:
    assert set(OUTCOME_CODES) == set(Outcome)
    assert OUTCOME_CODES[Outcome.INCONCLUSIVE] == INCONCLUSIVE


def test_the_codes_are_those_that_were_decided() -> None:
    decided = {int(number) for number in re.findall(r"^\| (\d+) \|", DECISION.read_text("utf-8"), flags=re.MULTILINE)}
    assert decided == {DONE, FAILED, INCONCLUSIVE, MISTAKE, BROKEN, INTERRUPTED}


def test_a_reader_that_leaves_early_is_no_error(released: Path) -> None:
    """As in ``fairway status | head -0``: the pipe is closed before anything is written."""
    import os
    import subprocess

    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*FAIRWAY, "status"], cwd=released, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert done.returncode == DONE


def test_the_program_is_installed(folder: Path) -> None:
    import sys

    assert (Path(sys.executable).parent / "fairway").is_file()
    assert run_there(folder, "--version").code == DONE
