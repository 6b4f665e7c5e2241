"""How a program of Fairway's own is started in another process."""

from __future__ import annotations

import sys


def python(module: str) -> list[str]:
    """The command that runs a module in this Python, with the same warnings; a folder of the user's shadows nothing."""
    return [sys.executable, "-P", *(f"-W{option}" for option in sys.warnoptions), "-m", module]
