"""Whether a program can be shared, before any process is started for it."""

from __future__ import annotations

from typing import Any

from fairway.engines.torch_parallel.graphs import plain_module
from fairway.engines.torch_parallel.pipeline import cut
from fairway.engines.torch_parallel.tensor import check_shared


def check_program(torch: Any, program: Any, parallel: str, ranks: int, name: str) -> None:
    """Raise :class:`~fairway.core.errors.InvalidBundle` if ``ranks`` processes cannot share it so."""
    source = plain_module(program, name)
    if parallel == "pipeline":
        cut(torch, source, ranks, name)
    else:
        check_shared(source, ranks, name)
