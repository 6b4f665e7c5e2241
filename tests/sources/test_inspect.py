"""What a first look says of a checkpoint and of a data file, without running either."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairway.core.errors import InvalidSource
from fairway.sources.inspect import inspect_data, inspect_source
from fairway.sources.tables import Table, make_table
from tests.sources.test_onnx import linear_graph

X, Y = np.eye(4), [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("model", "task"),
    [
        (LogisticRegression(), "classification"),
        (LinearRegression(), "regression"),
        (RandomForestRegressor(2), "regression"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "classification"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_pickle_is_read_for_its_class_names_only(model: Any, task: str, tmp_path: Path) -> None:
    joblib.dump(model.fit(X, Y), tmp_path / "m.joblib")
    look = inspect_source("m.joblib", tmp_path)
    assert (look.kind, look.task, look.needs_trust) == ("sklearn", task, True)


def test_a_hostile_pickle_does_nothing(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    joblib.dump(Bomb(), tmp_path / "m.pkl")
    assert inspect_source("m.pkl", tmp_path).task is None
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(("width", "task"), [(3, "classification"), (1, "regression")])
def test_an_onnx_file_is_judged_by_its_outputs(width: int, task: str, tmp_path: Path) -> None:
    onnx.save(linear_graph(np.ones((3, width)), softmax=False), tmp_path / "m.onnx")
    look = inspect_source("m.onnx", tmp_path)
    assert (look.kind, look.task, look.needs_trust) == ("onnx", task, False)


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"architectures": ["BertForSequenceClassification"]}, "classification"),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "score"}}, "regression"),
        ({"architectures": ["BertModel"]}, "embedding"),
        ({}, "embedding"),
    ],
)
def test_a_hugging_face_folder_is_judged_by_its_architecture(config: Any, task: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    look = inspect_source(str(tmp_path))
    assert (look.kind, look.task, look.needs_trust) == ("huggingface", task, False)


def test_a_keras_file_is_judged_by_its_last_layer(tmp_path: Path) -> None:
    layers = [{"class_name": "Dense", "config": {"units": 1, "activation": "linear"}}]
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": layers}}))
    look = inspect_source("m.keras", tmp_path)
    assert (look.kind, look.task, look.needs_trust) == ("keras", "regression", False)


def test_a_function_is_not_imported(tmp_path: Path) -> None:
    assert inspect_source("absent:fit", tmp_path).kind == "callable"


@pytest.mark.parametrize("name", ["absent.onnx", "notes.txt", "broken.onnx", "broken.keras"])
def test_what_is_no_checkpoint_is_said(name: str, tmp_path: Path) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(InvalidSource, match=name):
        inspect_source(name, tmp_path)


@pytest.mark.parametrize(
    ("columns", "label", "task"),
    [
        ({"a": [0.1, 0.2, 0.3, 0.4], "Target": ["x", "y", "x", "y"]}, "Target", "classification"),
        ({"a": [0.1, 0.2, 0.3, 0.4], "y": [1.5, 2.5, 3.5, 4.5]}, "y", "regression"),
        ({"a": [0.1, 0.2, 0.3, 0.4], "y": [0.0, 1.0, 1.0, 0.0]}, "y", "classification"),
        ({"a": [0.1, 0.2, 0.3, 0.4], "kind": ["x", "y", "x", "y"]}, "kind", "classification"),
        ({"a": [0.1, 0.2, 0.3, 0.4], "b": [0.5, 0.6, 0.7, 0.8]}, None, None),
    ],
)
def test_the_label_and_its_task_are_guessed(columns: Any, label: str | None, task: str | None) -> None:
    look = inspect_data(make_table(columns))
    assert (look.label, look.task) == (label, task)
    assert look.features == tuple(name for name in columns if name != label)


def test_columns_are_told_with_their_datatypes(digits_table: Table) -> None:
    look = inspect_data(digits_table)
    assert look.rows == 1347
    assert look.label == "digit"
    assert look.task == "classification"
    assert look.columns["pixel_0_0"] == "FP32"
    assert look.columns["digit"] == "INT64"
