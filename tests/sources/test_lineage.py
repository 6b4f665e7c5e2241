"""What a bundle tells of its origin: enough to find it again, and no secrets."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from fairway.sources.lineage import code_revision, environment, hyperparameters, path_digest, relative_name


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_code_revision_is_the_commit_and_says_if_files_differ_from_it(tmp_path: Path) -> None:
    assert code_revision(tmp_path) == ""
    git(tmp_path, "init", "-q")
    assert code_revision(tmp_path) == ""
    (tmp_path / "train.py").write_text("one")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-q", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert code_revision(tmp_path) == commit
    (tmp_path / "notes.txt").write_text("untracked files do not matter")
    assert code_revision(tmp_path) == commit
    (tmp_path / "train.py").write_text("two")
    assert code_revision(tmp_path) == f"{commit}+changes"


def test_hyperparameters_are_plain_and_the_same_in_every_run() -> None:
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression(C=np.float64(0.5)))
    told = hyperparameters(pipeline.get_params())
    assert told["logisticregression__C"] == 0.5
    assert told["simpleimputer__missing_values"] == "nan"
    assert told["logisticregression"] == "sklearn.linear_model._logistic.LogisticRegression"
    assert "0x" not in str(told)


def test_secrets_are_left_out() -> None:
    given = {"C": 1, "api_key": "k", "db_password": "p", "nested": {"auth_token": "t", "depth": 3}}
    assert hyperparameters(given) == {"C": 1, "nested": {"depth": 3}}


def test_long_values_are_named_rather_than_copied() -> None:
    told = hyperparameters({"init": np.zeros((5, 5)), "text": "x" * 999, "function": np.sum, "many": list(range(999))})
    assert told["init"] == "numpy.ndarray"
    assert len(told["text"]) == 200
    assert told["function"].endswith("sum")
    assert told["many"] == "builtins.list"


def test_a_folder_has_a_digest_of_its_names_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "a").write_text("a")
    assert path_digest(one) == path_digest(two)
    (two / "deep" / "a").rename(two / "deep" / "b")
    assert path_digest(one) != path_digest(two)


def test_no_path_of_the_machine_is_told(tmp_path: Path) -> None:
    assert relative_name(tmp_path / "models" / "m.onnx", tmp_path) == "models/m.onnx"
    assert relative_name(tmp_path / "m.onnx", tmp_path / "elsewhere") == "m.onnx"


def test_the_environment_names_the_packages_that_made_the_graph() -> None:
    assert {"python", "numpy", "onnxruntime", "scikit-learn", "skl2onnx", "onnx"} <= set(environment("sklearn"))
