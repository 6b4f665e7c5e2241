"""What commands print: data to stdout, progress and errors to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fairway.bundle.staging import publish_file
from fairway.core.errors import InvalidConfig

if TYPE_CHECKING:
    from fairway.loop.progress import Progress


def emit(text: str, document: Any, *, json: bool, line: bool = False) -> None:
    """Print ``text`` for people, or ``document`` (structs, dicts or JSON bytes) for machines; on one ``line`` if asked."""
    if json:
        raw = document if isinstance(document, bytes) else msgspec.json.encode(document, enc_hook=str)
        text = raw.decode() if line else msgspec.json.format(raw, indent=2).decode()
    try:
        print(text, flush=True)  # noqa: T201 (this is where the command line prints)
    except BrokenPipeError:  # piped into `head`, say, which has seen enough: the exit code still counts
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def check_place(path: Path | None, option: str) -> None:
    """Before the work, not after it: raise :class:`InvalidConfig` where ``path`` surely cannot be written."""
    if path is None:
        return
    place = path.absolute()
    parent = next(folder for folder in place.parents if os.path.lexists(folder))
    if place.is_dir():
        raise InvalidConfig(f"{path} is a folder; name a file in it with {option}")
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InvalidConfig(
            f"cannot write {path}: nothing can be written in {parent}; choose another place with {option}"
        )


def write_file(path: Path | None, text: str, option: str = "--html") -> None:
    """Write a report where the user asked for one with ``option``: all of it, or nothing."""
    if path is None:
        return
    check_place(path, option)
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, a pipe: nothing takes its place
            path.write_text(text, "utf-8")
        else:
            with publish_file(path) as file:
                file.write(text.encode())
    except OSError as error:
        raise InvalidConfig(f"cannot write {path}: {error.strerror}; choose another place with {option}") from None
    note(f"wrote {path}")


def note(text: str) -> None:
    """Tell people something that is not the command's data."""
    print(text, file=sys.stderr)  # noqa: T201


@contextmanager
def watched() -> Iterator[Progress]:
    """A progress display on stderr: bars on a terminal, plain lines elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    bars = Bars(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    with bars:
        yield _Drawn(bars)


class _Lines:
    def step(self, text: str) -> None:
        note(f"- {text}")

    def __call__(self, text: str, done: int, total: int) -> None:
        if done == total:
            note(f"  {text}: {total}")


class _Drawn:
    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._task: Any = None
        self._text = ""

    def step(self, text: str) -> None:
        self._finish()
        self._text = text
        self._task = self._bars.add_task(text, total=None)

    def __call__(self, text: str, done: int, total: int) -> None:
        if self._task is None:
            self.step(text)
        self._bars.update(self._task, description=f"{self._text}: {text}", completed=done, total=total)

    def _finish(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, description=self._text, total=1, completed=1)
