"""Fixtures of the sources: digits as a table, and a converter with defaults."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.model import Model
from fairway.sources.convert import convert
from fairway.sources.tables import Table, make_table
from tests.conftest import Digits
from tests.registry.conftest import postgres, postgres_url  # noqa: F401 (fixtures)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("torch") is None or find_spec("torch") is not None:
        return
    if os.environ.get("CI") == "true" and sys.version_info[:2] == (3, 11):
        pytest.fail("PyTorch is not installed, and these tests must run here")
    pytest.skip("PyTorch is not installed")


def assert_golden(bundle: Bundle, digits: Digits) -> None:
    """The golden figure, and no less than what the original itself scores."""
    kept = accuracy(bundle, digits)
    assert kept == pytest.approx(0.969, abs=0.005)
    assert kept == pytest.approx(digits.model.score(digits.x_test, digits.y_test), abs=1 / 450)


@pytest.fixture(scope="session")
def digits_table(digits: Digits) -> Table:
    columns: dict[str, Any] = {name: digits.x_train[:, i] for i, name in enumerate(digits.columns)}
    return make_table({**columns, "digit": digits.y_train}, origin="digits")


@pytest.fixture
def converter(tmp_path: Path) -> Callable[..., Bundle]:
    """``convert`` into ``tmp_path``, as a classifier called ``model`` unless told otherwise."""

    def run(source: object, *, destination: str = "model.fairway", **arguments: Any) -> Bundle:
        defaults: dict[str, Any] = {"name": "model", "task": "classification", "root": tmp_path}
        return convert(source, destination=tmp_path / destination, **(defaults | arguments))

    return run


def accuracy(bundle: Bundle, digits: Digits) -> float:
    """Of the prediction on the 450 held-out digits."""
    manifest = bundle.manifest
    assert manifest.prediction is not None
    with Model(bundle) as model:
        scores = model.infer({manifest.inputs[0].name: digits.x_test.astype(manifest.inputs[0].datatype.dtype)})
    predicted = np.array(manifest.labels)[scores[manifest.prediction.output].argmax(axis=1)]
    return float((predicted == digits.y_test.astype(str)).mean())
