"""``module:callable`` sources: the project's own code makes the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fairway.bundle.format import Bundle, file_digest
from fairway.core.errors import InvalidSource, UntrustedSource

Converter = Callable[..., Bundle]

FIT = """
from sklearn.linear_model import LogisticRegression

from helpers import data


def fit():
    return LogisticRegression(C={c}).fit(*data())


ready = fit()
path = "model.pkl"


def where():
    return path


def broken():
    raise RuntimeError("no disk")


def odd():
    return 3
"""

HELPERS = """
import numpy

def data():
    return numpy.eye(4), [0, 1, 0, 1]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(FIT.format(c=1.0))
    (tmp_path / "helpers.py").write_text(HELPERS)
    return tmp_path


def test_what_the_function_returns_is_converted(project: Path, converter: Converter) -> None:
    lineage = converter("train:fit").manifest.lineage
    assert lineage.source == "train:fit"
    assert lineage.source_kind == "sklearn"
    assert lineage.source_digest == f"sha256:{file_digest(project / 'train.py')}"
    assert lineage.hyperparameters["C"] == 1.0


def test_a_ready_model_does_too(project: Path, converter: Converter) -> None:
    assert converter("train:ready").manifest.lineage.source == "train:ready"


def test_each_project_has_its_own_module_of_that_name(project: Path, tmp_path: Path, converter: Converter) -> None:
    assert converter("train:fit").manifest.lineage.hyperparameters["C"] == 1.0
    other = tmp_path / "other"
    other.mkdir()
    (other / "train.py").write_text(FIT.format(c=2.0))
    (other / "helpers.py").write_text(HELPERS)
    assert converter("train:fit", root=other, destination="b").manifest.lineage.hyperparameters["C"] == 2.0


def test_a_returned_path_is_opened_under_the_same_rules(project: Path, converter: Converter) -> None:
    joblib.dump(LogisticRegression().fit(np.eye(4), [0, 1, 0, 1]), project / "model.pkl")
    with pytest.raises(UntrustedSource):
        converter("train:where")
    assert converter("train:where", trust=True).manifest.lineage.source == "train:where → model.pkl"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("tarin:fit", r"no module 'tarin' in "),
        ("train:fti", r"module 'train' has no 'fti' \(did you mean 'fit'\?\)"),
        ("train:broken", r"train:broken raised RuntimeError: no disk \(train\.py, line \d+\)"),
        ("train:odd", r"train:odd gives a builtins\.int; wanted is a scikit-learn estimator"),
    ],
)
def test_what_goes_wrong_is_said_with_its_place(source: str, says: str, project: Path, converter: Converter) -> None:
    with pytest.raises(InvalidSource, match=says):
        converter(source)


def test_a_module_that_cannot_be_imported_says_why(project: Path, converter: Converter) -> None:
    (project / "syntax.py").write_text("def fit(:\n")
    (project / "lacking.py").write_text("import no_such_package\n")
    with pytest.raises(InvalidSource, match=r"syntax:fit raised SyntaxError"):
        converter("syntax:fit")
    with pytest.raises(InvalidSource, match=r"lacking:fit raised ModuleNotFoundError.*no_such_package"):
        converter("lacking:fit")
