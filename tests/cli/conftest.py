"""The command line in this process: a second saved per command."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging stays as the tests have it: ``serve`` would turn all of it into JSON."""
    monkeypatch.setattr("fairway.serving.logs.configure_logging", lambda: None)
