"""Declared steps: found by name, with clear errors where a bundle is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.core.errors import InvalidBundle
from fairway.core.manifest import Step
from fairway.processing.steps import load_step


def test_an_unknown_step_is_said_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match=r"declares step 'resize'; this Fairway knows: .*tokenize"):
        load_step(Step("resize"), tmp_path)


def test_wrong_parameters_are_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match=r"step 'tokenize' has wrong parameters: .*files"):
        load_step(Step("tokenize", {"files": "tokenizer.json"}), tmp_path)
