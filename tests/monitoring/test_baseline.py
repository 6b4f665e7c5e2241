"""A baseline watches what a model takes and gives, in bins that suit the reference rows."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.errors import FairwayError, InvalidBundle, InvalidData, NewerFormat
from fairway.core.manifest import Manifest, Prediction
from fairway.core.tensors import Datatype, TensorSpec
from fairway.model import Model
from fairway.monitoring.baseline import DEFAULTS, decode_baseline, make_baseline, read_baseline
from fairway.monitoring.features import Feature, plan
from fairway.monitoring.settings import MonitorSettings
from tests.conftest import Digits
from tests.monitoring.conftest import Watched


def features_of(
    spec: TensorSpec,
    array: np.ndarray,
    settings: MonitorSettings = DEFAULTS,
    prediction: Prediction | None = None,
) -> dict[str, Feature]:
    side = "outputs" if prediction else "inputs"
    manifest = Manifest("m", "classification", () if prediction else (spec,), (spec,) if prediction else (), {})
    manifest = msgspec.structs.replace(manifest, prediction=prediction)
    tensors = {spec.name: array}
    planned = plan(
        manifest, tensors if side == "inputs" else {}, tensors if side == "outputs" else {}, len(array), settings
    )
    return {feature.name: feature for feature in planned}


def test_digits_are_watched_per_pixel_class_and_confidence(watched: Watched, digits: Digits) -> None:
    names = [feature.name for feature in watched.baseline.features]
    assert names == [*digits.columns, "predicted class", "confidence"]
    assert watched.baseline.rows == 1347
    classes = watched.baseline.sketches.counts[64]
    assert sum(classes.bins[:10]) == 1347
    assert classes.bins[10] == 0


def test_the_same_rows_give_the_same_bytes(digits: Digits, digits_bundle: Bundle) -> None:
    with Model(digits_bundle) as model:
        feed = {"x": digits.x_train}
        assert make_baseline(model, feed) == make_baseline(model, feed)


def test_a_bundle_carries_its_baseline_and_may_lack_one(digits: Digits, digits_bundle: Bundle, tmp_path: Path) -> None:
    assert read_baseline(digits_bundle) is None
    with Model(digits_bundle) as model:
        content = make_baseline(model, {"x": digits.x_train})
    files: dict[str, Path | bytes] = {"model.onnx": digits_bundle.file("model.onnx"), "baseline.json": content}
    packed = write_bundle(tmp_path / "with", digits_bundle.manifest, files)
    read = read_baseline(packed)
    assert read is not None
    assert read.features == decode_baseline(content).features


@given(st.data())
def test_a_damaged_baseline_is_refused(data: st.DataObject) -> None:
    spec = TensorSpec("x", Datatype.FP32, (-1, 2))
    feature = features_of(spec, np.arange(20, dtype=np.float32).reshape(10, 2))["x[0]"]
    good = msgspec.json.encode(
        {"format": 1, "rows": 10, "features": [feature], "counts": [[[1] * 10, 0, 0, 0, 1.0, 0.0, 9.0]]}
    )
    assert decode_baseline(good).rows == 10
    at = data.draw(st.integers(0, len(good) - 1))
    with pytest.raises(InvalidBundle):
        decode_baseline(good[:at])
    with pytest.raises(InvalidBundle, match="contradicts"):
        decode_baseline(good.replace(b"[1,1,1", b"[9,9,9"))
    with pytest.raises(NewerFormat):
        decode_baseline(good.replace(b'"format":1', b'"format":2'))


@pytest.mark.parametrize("rows", [{}, {"x": np.zeros((0, 64), np.float32)}])
def test_a_baseline_needs_rows(digits_bundle: Bundle, rows: dict[str, np.ndarray]) -> None:
    with Model(digits_bundle) as model, pytest.raises(InvalidData, match="one or more reference rows"):
        make_baseline(model, rows)


def test_few_values_get_a_bin_each_and_many_get_quantiles() -> None:
    few = features_of(TensorSpec("x", Datatype.FP32, (-1,)), np.array([0, 1, 1, 5] * 5, np.float32))["x"]
    assert few.edges == (0.5, 3.0)
    many = features_of(TensorSpec("x", Datatype.FP64, (-1,)), np.random.default_rng(0).normal(size=1000))["x"]
    assert many.bins == 20
    assert (few.low, few.high) == (0.0, 5.0)


def test_whole_numbers_and_text_of_few_values_are_categories_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    flags = features_of(TensorSpec("f", Datatype.BOOL, (-1,)), rng.random(50) < 0.5)["f"]
    assert flags.codes == (0, 1)
    ids = features_of(TensorSpec("id", Datatype.INT64, (-1,)), np.arange(100))["id"]
    assert ids.codes is None
    color = np.array([b"red", b"blue"] * 10, object)
    assert features_of(TensorSpec("color", Datatype.BYTES, (-1,)), color)["color"].codes == ("blue", "red")
    prose = np.array([b"x" * n for n in range(60)], object)
    assert list(features_of(TensorSpec("text", Datatype.BYTES, (-1, 1)), prose[:, None])) == ["length(text)"]


def test_large_and_ragged_tensors_are_summarized_per_row() -> None:
    images = np.random.default_rng(0).random((10, 3, 32, 32)).astype(np.float32)
    names = ["mean(image)", "std(image)", "min(image)", "max(image)"]
    assert list(features_of(TensorSpec("image", Datatype.FP32, (-1, 3, 32, 32)), images)) == names
    ragged = TensorSpec("image", Datatype.FP32, (-1, -1))
    assert list(features_of(ragged, images.reshape(10, -1))) == names


@pytest.mark.parametrize("datatype", [Datatype.FP32, Datatype.BF16])
def test_predictions_are_watched_by_what_they_mean(datatype: Datatype) -> None:
    scores = np.array([[2, 0], [0, 2], [3, 0]], datatype.dtype)
    spec = TensorSpec("scores", datatype, (-1, 2))
    assert list(features_of(spec, scores, prediction=Prediction("scores", "logits"))) == [
        "predicted class",
        "confidence",
    ]
    label = TensorSpec("label", Datatype.INT64, (-1,))
    assert list(features_of(label, np.array([1, 2]), prediction=Prediction("label", "label"))) == ["predicted class"]
    value = TensorSpec("y", Datatype.FP32, (-1, 1))
    assert list(features_of(value, np.ones((3, 1), np.float32), prediction=Prediction("y", "value"))) == ["prediction"]


def test_columns_of_the_same_name_are_told_apart() -> None:
    a, b = (TensorSpec(name, Datatype.FP32, (-1, 1), ("age",)) for name in "ab")
    manifest = Manifest("m", "regression", (a, b), (), {})
    ones = np.ones((3, 1), np.float32)
    planned = plan(manifest, {"a": ones, "b": ones}, {}, 3, MonitorSettings())
    assert [feature.name for feature in planned] == ["input a.age", "input b.age"]


@given(st.binary(max_size=60))
def test_bytes_that_are_no_baseline_are_refused(data: bytes) -> None:
    with pytest.raises(FairwayError):
        decode_baseline(data)
