"""Projects whose registry is where production has it."""

from __future__ import annotations

from tests.registry.conftest import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]
