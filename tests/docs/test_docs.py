"""Every example in the README and the documentation works: Python and curl are run, settings read, commands checked."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main

import fairway
from fairway.cli.app import app
from fairway.settings import read_settings
from tests.projects import edit

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
URL = "http://127.0.0.1:8000"
"""The server, as pages call it."""

WITH_CHALLENGER = "releasing.md"
WITH_ANALYSES = "evaluation.md"
"""The page whose examples begin during a release."""


class Block(NamedTuple):
    """One fenced block: its page, the line it starts on, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in re.finditer(r"^( *)```(\w+)\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match[2], match[3]))
    return [block for block in found if block.language in languages]


def commands(block: Block) -> list[list[str]]:
    """The ``fairway …`` commands of a shell block, without what stands before (a path, variables) and comments."""
    joined = block.text.replace("\\\n", " ")
    found = [re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?fairway (.*)", line) for line in joined.splitlines()]
    return [shlex.split(match[1], comments=True) for match in found if match]


PYTHON, TOML, SHELL = blocks("python"), blocks("toml"), blocks("sh", "console")
RUN_BY_SHELL = [block for block in SHELL if "curl " in block.text]
PAGES_OF_PYTHON = sorted({block.page for block in PYTHON})


@pytest.fixture(scope="module")
def packed(released_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as the pages assume it: data files, a model, two versions, the first as champion, and a packed bundle."""
    made = tmp_path_factory.mktemp("docs") / "project"
    shutil.copytree(released_files, made)
    (made / "data").mkdir()
    shutil.copy(made / "test.parquet", made / "data" / "test.parquet")
    project = fairway.Project.find(made)
    fairway.pack(out=made / "digits.fairway", project=project)
    return made


@pytest.fixture
def project(request: pytest.FixtureRequest, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of that project, during a release for the page that is about releases."""
    made = tmp_path / "project"
    shutil.copytree(packed, made)
    edit(made, "[serve]", "[optimize]\ncandidates = ['graph']\nrepeats = 1\n\n[serve]")
    monkeypatch.chdir(made)
    page = getattr(request, "param", None)
    if page is not None and page.name == WITH_ANALYSES:
        edit(made, 'analyses = ["errors"]', 'analyses = ["calibration", "data_checks"]')
    if page is None or page.name != WITH_CHALLENGER:
        fairway.rollback("digits", project=fairway.Project.find(made))
    return made


@pytest.fixture
def url(project: Path) -> Iterator[str]:
    """A server of the project."""
    with fairway.serve("digits", port=0) as server:
        yield server.url


@pytest.mark.parametrize(
    ("project", "page"),
    [pytest.param(page, page, id=str(page.relative_to(ROOT))) for page in PAGES_OF_PYTHON],
    indirect=["project"],
)
def test_the_python_of_a_page_runs_from_top_to_bottom(project: Path, url: str, page: Path) -> None:
    names: dict[str, Any] = {"__name__": "__page__"}
    for block in [block for block in PYTHON if block.page == page]:
        code = "\n" * block.line + block.text.replace(URL, url)
        exec(compile(code, str(page), "exec"), names)


def test_some_pages_have_python() -> None:
    assert {"README.md", "serving.md", "releasing.md", "observing.md", "registry.md"} <= {
        p.name for p in PAGES_OF_PYTHON
    }


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("block", RUN_BY_SHELL, ids=str)
def test_what_a_page_asks_with_curl_is_answered(project: Path, url: str, block: Block) -> None:
    failing = 'curl() { command curl --fail --show-error "$@"; }\n'
    previous = "".join(b.text for b in RUN_BY_SHELL if b.page == block.page and b.line < block.line)
    script = failing + (previous + block.text).replace(URL, url)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", TOML, ids=str)
def test_the_settings_of_a_page_are_valid(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "fairway.toml"
    path.write_text(block.text)
    read_settings(path, environ={})


@pytest.mark.parametrize("block", [block for block in SHELL if commands(block)], ids=str)
def test_the_commands_of_a_page_exist_with_these_options(block: Block) -> None:
    program = typer.main.get_command(app)
    for name, *arguments in commands(block):
        with contextlib.suppress(typer.Exit):  # what --help does
            known: Any = program
            known.commands[name].make_context(name, list(arguments))


def test_commands_named_within_a_sentence_exist_with_these_options() -> None:
    program: Any = typer.main.get_command(app)
    named = 0
    for page in PAGES:
        for text in re.findall(r"`fairway ([^`]+)`", page.read_text("utf-8").replace("\n", " ")):
            name, *arguments = text.split()
            if name in ("COMMAND", "--help", "--version"):
                continue
            assert name in program.commands, f"{page.name}: fairway {text}"
            options = {option for parameter in program.commands[name].params for option in parameter.opts} | {"--help"}
            asked = {word for word in arguments if word.startswith("-")}
            assert asked <= options, f"{page.name}: fairway {text}"
            named += 1
    assert named > 20
