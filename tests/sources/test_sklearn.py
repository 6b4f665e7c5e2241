"""scikit-learn estimators keep their answers in the bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeRegressor

from fairway.bundle.format import Bundle, read_bundle
from fairway.bundle.samples import read_samples
from fairway.core.errors import InvalidData, InvalidSource, UntrustedSource
from fairway.core.manifest import Prediction
from fairway.core.tensors import Datatype
from fairway.model import Model
from fairway.sources.convert import convert
from fairway.sources.tables import Table, make_table
from tests.conftest import Digits
from tests.sources.conftest import assert_golden

Converter = Callable[..., Bundle]


def test_digits_keep_their_accuracy(digits: Digits, digits_table: Table, converter: Converter) -> None:
    bundle = converter(digits.model, reference=digits_table, label="digit")
    assert_golden(bundle, digits)
    manifest = bundle.manifest
    assert manifest.inputs[0].columns == digits.columns
    assert manifest.inputs[0].datatype is Datatype.FP32
    assert manifest.prediction == Prediction("probabilities", "probabilities")
    assert manifest.labels == tuple("0123456789")
    assert [spec.name for spec in manifest.outputs] == ["label", "probabilities"]


def test_the_bundle_says_where_it_comes_from(digits: Digits, digits_table: Table, converter: Converter) -> None:
    bundle = converter(digits.model, reference=digits_table, label="digit")
    lineage = bundle.manifest.lineage
    assert lineage.source == "sklearn.linear_model._logistic.LogisticRegression"
    assert lineage.source_kind == "sklearn"
    assert lineage.data_digests == {"reference": digits_table.digest}
    assert lineage.hyperparameters["max_iter"] == 1000
    assert {"scikit-learn", "skl2onnx", "python", "numpy"} <= set(lineage.environment)
    assert b'"rows_from": "reference"' in bundle.file("conversion.json").read_bytes()


def test_the_bundle_carries_sample_rows(digits: Digits, digits_table: Table, converter: Converter) -> None:
    bundle = converter(digits.model, reference=digits_table, label="digit")
    samples = read_samples(bundle)
    assert samples["x"].shape == (64, 64)
    with Model(bundle) as model:
        assert np.isfinite(model.infer(samples)["probabilities"]).all()


def test_converting_twice_gives_the_same_digest(digits: Digits, digits_table: Table, tmp_path: Path) -> None:
    made = [
        convert(
            digits.model,
            destination=tmp_path / name,
            name="digits",
            task="classification",
            reference=digits_table,
            label="digit",
            root=tmp_path,
        )
        for name in ("one", "two")
    ]
    assert made[0].digest == made[1].digest
    assert read_bundle(tmp_path / "two").digest == made[0].digest


CLASSIFIERS = [
    make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=30, random_state=0, early_stopping=True)),
    RandomForestClassifier(20, random_state=0),
    GradientBoostingClassifier(n_estimators=5, random_state=0),
    HistGradientBoostingClassifier(max_iter=5, random_state=0),
    GaussianNB(),
    KNeighborsClassifier(3),
    LinearSVC(random_state=0),
    CalibratedClassifierCV(LinearSVC(random_state=0), cv=2),
    GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-8]}, cv=2),
    make_pipeline(PCA(5, random_state=0), LogisticRegression()),
]


@pytest.fixture(scope="module")
def flowers() -> tuple[Any, Any]:
    from sklearn.datasets import load_breast_cancer

    return load_breast_cancer(return_X_y=True)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda c: type(c).__name__)
def test_classifiers_of_many_kinds_agree(classifier: Any, flowers: tuple[Any, Any], converter: Converter) -> None:
    x, y = flowers
    classifier.fit(x, np.array(["benign", "malign"])[y])
    table = make_table({f"f{i}": x[:, i] for i in range(x.shape[1])})
    bundle = converter(classifier, reference=table)
    with Model(bundle) as model:
        answer = model.infer(table.feed(bundle.manifest.inputs))
    told = np.array([label.decode() for label in answer["label"].ravel()])
    assert (told == classifier.predict(x)).mean() > 0.99
    if hasattr(classifier, "predict_proba"):
        assert bundle.manifest.labels == ("benign", "malign")


REGRESSORS = [
    LinearRegression(),
    RandomForestRegressor(10, random_state=0),
    DecisionTreeRegressor(random_state=0),
    HistGradientBoostingRegressor(max_iter=5, random_state=0),
]


@pytest.mark.parametrize("regressor", REGRESSORS, ids=lambda r: type(r).__name__)
def test_regressors_answer_one_number_per_row(regressor: Any, converter: Converter) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) * [1, 1e3, 1e-3]
    table = make_table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})
    bundle = converter(regressor.fit(x, x @ [1, 2e-3, 3e3]), reference=table, task="regression")
    assert bundle.manifest.prediction == Prediction("prediction", "value")
    assert bundle.manifest.labels == ()
    with Model(bundle) as model:
        answer = model.infer(table.feed(bundle.manifest.inputs))["prediction"]
    assert answer.shape == (200, 1)
    np.testing.assert_allclose(answer[:, 0], regressor.predict(x), rtol=1e-3, atol=1e-3)


def test_a_model_that_single_precision_would_change_is_kept_in_double(converter: Converter) -> None:
    x = 1e8 + np.arange(400.0).reshape(-1, 1)
    table = make_table({"time": x[:, 0]})
    bundle = converter(LinearRegression().fit(x, np.arange(400.0)), reference=table, task="regression")
    assert bundle.manifest.inputs[0].datatype is Datatype.FP64


@pytest.fixture
def customers() -> tuple[pa.Table, Any]:
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "age": rng.uniform(18, 90, 300),
            "visits": rng.integers(0, 9, 300),
            "home town": rng.choice(["Oslo", "Rome", "Lima"], 300).tolist(),
        }
    )
    return table, np.where(rng.uniform(size=300) < 0.5, "no", "yes")


def column_pipeline() -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer(
        [("numbers", numbers, ["age", "visits"]), ("town", OneHotEncoder(handle_unknown="ignore"), ["home town"])]
    )
    return make_pipeline(columns, LogisticRegression())


def test_a_pipeline_on_a_table_takes_one_input_per_column(
    customers: tuple[pa.Table, Any], converter: Converter
) -> None:
    frame, answer = customers
    pipeline = column_pipeline().fit(frame, answer)
    table = Table(frame.append_column("bought", pa.array(answer.tolist())), digest="sha256:0")
    bundle = converter(pipeline, reference=table, label="bought")
    inputs = {spec.name: spec for spec in bundle.manifest.inputs}
    assert list(inputs) == ["age", "visits", "home_town"]
    assert [spec.datatype for spec in inputs.values()] == [Datatype.FP32, Datatype.FP32, Datatype.BYTES]
    assert [spec.columns for spec in inputs.values()] == [("age",), ("visits",), ("home town",)]
    assert [spec.allow_nan for spec in inputs.values()] == [True, True, False]
    with Model(bundle) as model:
        probabilities = model.infer(table.feed(bundle.manifest.inputs))["probabilities"]
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(frame), atol=1e-4)


def test_features_are_taken_by_the_names_that_the_model_was_fitted_on(
    customers: tuple[pa.Table, Any], converter: Converter
) -> None:
    frame, answer = customers
    model = LogisticRegression(max_iter=1000).fit(frame.select(["visits", "age"]), answer)
    bundle = converter(model, reference=Table(frame, digest="sha256:0"))
    assert bundle.manifest.inputs[0].columns == ("visits", "age")
    renamed = Table(frame.rename_columns(["agee", "visits", "home town"]), digest="sha256:0")
    with pytest.raises(InvalidData, match=r"'age' \(did you mean 'agee'\?\)"):
        converter(model, reference=renamed, destination="other")


def test_a_model_that_imputes_takes_missing_numbers(converter: Converter) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2))
    x[::7, 0] = np.nan
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(x, rng.integers(0, 2, 100))
    table = make_table({"a": x[:, 0], "b": x[:, 1]})
    bundle = converter(model, reference=table)
    assert bundle.manifest.inputs[0].allow_nan
    with Model(bundle) as loaded:
        answer = loaded.infer(table.feed(bundle.manifest.inputs))
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(x), atol=1e-5)


def test_a_model_that_does_not_impute_takes_none(digits: Digits, digits_table: Table, converter: Converter) -> None:
    assert not converter(digits.model, reference=digits_table, label="digit").manifest.inputs[0].allow_nan


def test_an_array_column_is_one_input(digits: Digits, converter: Converter) -> None:
    table = make_table({"image": digits.x_train.reshape(-1, 8, 8), "digit": digits.y_train})
    bundle = converter(digits.model, reference=table, label="digit")
    assert [(spec.name, spec.shape) for spec in bundle.manifest.inputs] == [("image", (-1, 64))]


def test_without_data_the_check_runs_on_made_up_rows_and_says_so(digits: Digits, converter: Converter) -> None:
    bundle = converter(digits.model)
    assert b'"rows_from": "generated"' in bundle.file("conversion.json").read_bytes()


def test_a_transformer_is_an_embedding(digits: Digits, digits_table: Table, converter: Converter) -> None:
    bundle = converter(
        PCA(3, random_state=0).fit(digits.x_train), reference=digits_table, label="digit", task="embedding"
    )
    assert [(spec.name, spec.shape) for spec in bundle.manifest.outputs] == [("embedding", (-1, 3))]
    assert bundle.manifest.prediction is None


class Homemade(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn is untyped here
    def fit(self, x: Any, y: Any) -> Homemade:
        self.classes_ = np.unique(y)
        self.n_features_in_ = x.shape[1]
        return self

    def predict(self, x: Any) -> Any:
        return np.zeros(len(x))


X = np.random.default_rng(0).normal(size=(30, 2))
Y = np.arange(30) % 2


@pytest.mark.parametrize(
    ("model", "task", "says"),
    [
        (LogisticRegression(), "classification", "is not fitted"),
        (LinearRegression().fit(X, Y), "classification", "does regression, not classification"),
        (LogisticRegression().fit(X, Y), "regression", "does classification, not regression"),
        (Homemade().fit(X, Y), "classification", "no ONNX form"),
        (MultiOutputClassifier(LogisticRegression()).fit(X, np.c_[Y, Y]), "classification", "several labels per row"),
        (IsolationForest(n_estimators=2).fit(X), "classification", "neither a classifier"),
        (KMeans(2, n_init=1).fit(X), "classification", "does embedding, not classification"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_converted_says_why(model: Any, task: str, says: str, converter: Converter) -> None:
    with pytest.raises(InvalidSource, match=says):
        converter(model, task=task)


def test_too_few_columns_are_said(digits: Digits, converter: Converter) -> None:
    table = make_table({"a": [1.0, 2.0], "b": [1.0, 2.0]})
    with pytest.raises(InvalidData, match="fitted on 64 features, but table has 2 feature columns: a, b"):
        converter(digits.model, reference=table)


@pytest.mark.parametrize("suffix", [".pkl", ".joblib"])
def test_a_pickle_is_opened_only_with_trust(
    suffix: str, digits: Digits, digits_table: Table, converter: Converter, tmp_path: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    joblib.dump(digits.model, path)
    with pytest.raises(UntrustedSource, match=r"runs whatever code it carries.*trust = true"):
        converter(str(path), reference=digits_table, label="digit")
    bundle = converter(path.name, reference=digits_table, label="digit", trust=True)
    assert_golden(bundle, digits)
    assert bundle.manifest.lineage.source == path.name
    assert bundle.manifest.lineage.source_digest.startswith("sha256:")


def test_the_pickle_is_not_even_touched_without_trust(converter: Converter, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    joblib.dump(Bomb(), tmp_path / "model.pkl")
    with pytest.raises(UntrustedSource):
        converter("model.pkl")
    assert not (tmp_path / "exploded").exists()


def test_a_broken_pickle_is_said_to_be_broken(converter: Converter, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"no pickle")
    with pytest.raises(InvalidSource, match="cannot be unpickled"):
        converter("model.pkl", trust=True)
