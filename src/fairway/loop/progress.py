"""How long work tells that it is getting on. The command line draws it; the API is silent unless asked."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Somebody who watches."""

    def step(self, text: str) -> None:
        """A new step begins."""
        ...

    def __call__(self, text: str, done: int, total: int) -> None:
        """Within the step, ``done`` of ``total`` parts of ``text`` are finished."""
        ...


class _Silent:
    def step(self, text: str) -> None:
        """Say nothing."""

    def __call__(self, text: str, done: int, total: int) -> None:
        """Say nothing."""


SILENT: Progress = _Silent()
