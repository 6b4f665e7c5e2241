"""Fixtures that several parts share: scikit-learn's digits, as data files and as a bundle."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from numpy.typing import NDArray

from fairway.bundle.format import Bundle
from fairway.testing.builders import linear_bundle

# How long an example takes says how busy the machine is. What CI tries is the same each time; elsewhere it is drawn anew.
hypothesis_settings.register_profile(
    "fairway",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis_settings.load_profile("fairway")


@pytest.fixture(autouse=True)
def _fresh_logging() -> None:
    """What earlier tests, or libraries that they used, changed in the process's logging, no test finds."""
    logging.disable(logging.NOTSET)
    logging.setLogRecordFactory(logging.LogRecord)
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers:
        handler.setLevel(logging.NOTSET)
        handler.filters.clear()
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "fairway":
            logger.setLevel(logging.NOTSET)
            logger.disabled = False


class Digits(NamedTuple):
    """Scikit-learn's digits, scaled to 0-1, split by class with seed 0 into 1347 training and 450 held-out rows."""

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    columns: tuple[str, ...]
    model: Any
    """A fitted ``LogisticRegression``."""


@pytest.fixture(scope="session")
def digits() -> Digits:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        (x / 16).astype(np.float32), y.astype(np.int64), test_size=450, random_state=0, stratify=y
    )
    model = LogisticRegression(max_iter=1000).fit(x_train, y_train)
    columns = tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8))
    return Digits(x_train, y_train, x_test, y_test, columns, model)


@pytest.fixture
def digits_bundle(digits: Digits, tmp_path: Path) -> Bundle:
    return linear_bundle(
        tmp_path / "digits.fairway",
        name="digits",
        weights=digits.model.coef_.T,
        bias=digits.model.intercept_,
        columns=digits.columns,
    )


@pytest.fixture(scope="session")
def digits_files(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data files and checkpoints that :func:`tests.projects.write_files` names. Copy, don't change."""
    from tests.projects import write_files

    folder = tmp_path_factory.mktemp("digits-files")
    write_files(folder, digits)
    return folder


@pytest.fixture
def folder(digits_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a project of its own, without any state."""
    from tests.projects import write_toml

    made = tmp_path / "project"
    shutil.copytree(digits_files, made)
    write_toml(made)
    _enter(made, monkeypatch)
    return made


@pytest.fixture(scope="session")
def released_files(digits_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was run twice: version 1 is the champion, version 2 its challenger. Copy, don't change."""
    from fairway.loop.project import Project
    from fairway.loop.run import run
    from tests.projects import edit, write_toml

    made = tmp_path_factory.mktemp("released") / "project"
    shutil.copytree(digits_files, made)
    write_toml(made)
    first = run(project=Project.find(made))
    edit(made, "good.onnx", "other.onnx")
    second = run(project=Project.find(made))
    assert (first.version, second.version) == (1, 2)
    return made


@pytest.fixture
def released(released_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a project with a champion and a challenger."""
    made = tmp_path / "project"
    shutil.copytree(released_files, made)
    _enter(made, monkeypatch)
    return made


def _enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in os.environ:
        if name.startswith("FAIRWAY_"):
            monkeypatch.delenv(name)
