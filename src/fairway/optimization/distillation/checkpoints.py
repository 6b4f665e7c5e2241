"""A training run's state on disk: all of it, or that of before."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from fairway.core.extras import require
from fairway.optimization.files import write_atomic


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values."""
    held = io.BytesIO()
    require("torch", extra="torch").save(state, held)
    write_atomic(path, held.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read it back; ``None`` if there is none. Nothing but tensors and plain values is unpickled."""
    if not path.is_file():
        return None
    state: dict[str, Any] = require("torch", extra="torch").load(path, map_location="cpu", weights_only=True)
    return state
