"""A registry with nothing released yet, and one where version 2 is being tried against version 1."""

from __future__ import annotations

import pytest

from fairway.core.gate import Outcome, Verdict
from fairway.rollout.changes import start
from tests.rollout.fakes import FakeRegistry

GOOD = Verdict(Outcome.PASSED, (), 0.025, 0.05)


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def trying(registry: FakeRegistry) -> FakeRegistry:
    """``digits:2`` gets 10 % since 1000 s; ``digits:1`` is the champion."""
    start(registry, "digits:1", check=GOOD, actor="ann", now=500.0)
    start(registry, "digits:2", check=GOOD, actor="ann", now=1000.0)
    return registry
