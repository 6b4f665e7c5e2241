"""Keras models keep their answers in the bundle."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidSource, UntrustedSource
from fairway.core.manifest import Prediction
from fairway.sources.convert import convert
from fairway.sources.tables import Table, make_table
from tests.conftest import Digits
from tests.sources.conftest import assert_golden

pytestmark = [
    pytest.mark.torch,
    # Keras on torch, as these tests build and save models; the conversion filters it for its users
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

Converter = Callable[..., Bundle]


@pytest.fixture(scope="session")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return importlib.import_module("keras")


@pytest.fixture(scope="session")
def saved(keras: Any, digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = keras.Sequential([keras.Input((64,), name="pixels"), keras.layers.Dense(10, activation="softmax")])
    model.layers[0].set_weights([digits.model.coef_.T, digits.model.intercept_])
    path: Path = tmp_path_factory.mktemp("keras") / "digits.keras"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def keras_bundle(saved: Path, digits_table: Table) -> Bundle:
    return convert(
        "digits.keras",
        destination=saved.parent / "one",
        name="digits",
        task="classification",
        reference=digits_table,
        label="digit",
        root=saved.parent,
    )


def test_digits_keep_their_accuracy(keras_bundle: Bundle, digits: Digits) -> None:
    assert_golden(keras_bundle, digits)
    manifest = keras_bundle.manifest
    assert manifest.inputs[0].shape == (-1, 64)
    assert manifest.inputs[0].columns == digits.columns
    assert manifest.prediction == Prediction("probabilities", "probabilities")
    assert manifest.lineage.source_kind == "keras"
    assert "keras" in manifest.lineage.environment


def test_converting_twice_gives_the_same_digest(keras_bundle: Bundle, saved: Path, digits_table: Table) -> None:
    again = convert(
        "digits.keras",
        destination=saved.parent / "two",
        name="digits",
        task="classification",
        reference=digits_table,
        label="digit",
        root=saved.parent,
    )
    assert again.digest == keras_bundle.digest


def test_a_live_model_is_converted_too(keras: Any, converter: Converter) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    bundle = converter(model, reference=make_table({"a": [0.1, 0.2], "b": [1.0, 2.0]}), task="regression")
    assert bundle.manifest.prediction == Prediction("prediction", "value")
    assert bundle.manifest.inputs[0].columns == ("a", "b")


def test_a_layer_that_carries_code_is_refused(keras: Any, tmp_path: Path, converter: Converter) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)])
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(UntrustedSource, match="carries Python code"):
        converter("lambda.keras")


def test_a_broken_file_is_said_to_be_broken(keras: Any, tmp_path: Path, converter: Converter) -> None:
    (tmp_path / "m.keras").write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidSource, match=r"m\.keras cannot be read"):
        converter("m.keras")
