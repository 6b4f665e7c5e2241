"""Import an optional dependency, or say which extra brings it."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from fairway.core.errors import MissingExtra


def require(module: str, *, extra: str) -> Any:
    """Import ``module``, or raise :class:`MissingExtra` with the command that installs it.

    Examples
    --------
    >>> require("json", extra="all").dumps([1])
    '[1]'
    """
    try:
        imported: ModuleType = importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the module is there, and something that it needs is broken: hide nothing
        raise MissingExtra(module, extra) from None
    return imported
