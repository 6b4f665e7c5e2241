"""What every conversion promises, whatever the source."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

from fairway.bundle.format import Bundle, write_bundle
from fairway.bundle.samples import SAMPLES, encode_samples, read_samples
from fairway.core.errors import ConversionMismatch, InvalidBundle, InvalidConfig
from fairway.core.manifest import Manifest
from fairway.core.tensors import Datatype, TensorSpec
from fairway.model import Model
from fairway.sources.labels import as_label
from fairway.sources.tables import Table, make_table
from tests.conftest import Digits

Converter = Callable[..., Bundle]


def test_a_bundle_that_would_answer_otherwise_is_not_written(
    digits_table: Table, digits: Digits, converter: Converter, tmp_path: Path
) -> None:
    model = LogisticRegression(max_iter=1000).fit(digits.x_train, digits.y_train)
    faithful = model.predict_proba
    model.predict_proba = lambda x: np.roll(faithful(x), 1, axis=1)
    with pytest.raises(
        ConversionMismatch, match=r"does not survive conversion: on digits, output 'probabilities' diff"
    ):
        converter(model, reference=digits_table, label="digit")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_answers_nan_is_refused(converter: Converter) -> None:
    x = np.random.default_rng(0).normal(size=(20, 2))
    model = LinearRegression().fit(x, x[:, 0])
    model.coef_[:] = np.nan
    with pytest.raises(ConversionMismatch, match=r"answers nan at output 'prediction', row 0"):
        converter(model, reference=make_table({"a": x[:, 0], "b": x[:, 1]}), task="regression")


def test_missing_numbers_are_taken_only_where_the_bundle_treats_them_as_the_original_does(converter: Converter) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    model = HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(x, x[:, 0] > 0)
    table = make_table({name: x[:, i] for i, name in enumerate("abc")})
    bundle = converter(model, reference=table)
    holed = x.astype(np.float32)
    holed[::2, 1] = np.nan
    with Model(bundle) as loaded:
        same = np.allclose(loaded.infer({"x": holed})["probabilities"], model.predict_proba(holed), atol=1e-4)
    assert bundle.manifest.inputs[0].allow_nan == same


def test_features_are_chosen_by_pattern(converter: Converter) -> None:
    rng = np.random.default_rng(0)
    table = make_table({"row": np.arange(50), "f_a": rng.normal(size=50), "f_b": rng.normal(size=50)})
    model = LogisticRegression().fit(np.c_[table.column("f_a"), table.column("f_b")], np.arange(50) % 2)
    assert converter(model, reference=table, features=["f_*"]).manifest.inputs[0].columns == ("f_a", "f_b")
    with pytest.raises(InvalidConfig, match=r"'g_\*' matches no column"):
        converter(model, reference=table, features=["g_*"], destination="other")


def test_writing_again_to_the_same_place_is_fine_and_another_model_is_not(converter: Converter) -> None:
    x, y = np.eye(4), [0, 1, 0, 1]
    first = converter(LogisticRegression().fit(x, y))
    assert converter(LogisticRegression().fit(x, y)).digest == first.digest
    with pytest.raises(InvalidBundle, match="holds something else"):
        converter(LogisticRegression(C=3.0).fit(x, y))


@given(
    st.lists(st.binary(max_size=8), min_size=1, max_size=6),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=6),
)
def test_samples_survive_their_file(texts: list[bytes], numbers: list[float]) -> None:
    import tempfile

    text = np.empty(len(texts), dtype=object)
    text[:] = texts
    bf16 = Datatype.BF16.dtype
    feed: dict[str, Any] = {"file": text, "x": np.array(numbers, np.float32), "half": np.array(numbers).astype(bf16)}
    assert encode_samples(feed) == encode_samples(feed)
    kinds = {"file": Datatype.BYTES, "x": Datatype.FP32, "half": Datatype.BF16}
    inputs = tuple(TensorSpec(name, kind, (-1,)) for name, kind in kinds.items())
    manifest = Manifest(name="m", task="regression", inputs=inputs, outputs=(), files={})
    with tempfile.TemporaryDirectory() as folder:
        back = read_samples(write_bundle(Path(folder) / "b", manifest, {SAMPLES: encode_samples(feed)}))
    assert back["file"].tolist() == texts
    np.testing.assert_array_equal(back["x"], feed["x"])
    assert (back["half"].dtype, back["half"].tobytes()) == (bf16, feed["half"].tobytes())


@given(st.integers(-(2**53), 2**53))
def test_a_whole_number_is_one_label_however_it_is_typed(number: int) -> None:
    assert as_label(number) == as_label(float(number)) == as_label(np.int64(number)) == str(number)


def test_nothing_heavy_is_imported_until_it_is_needed() -> None:
    modules = "convert inspect tables settings agreement checkpoints torch keras huggingface sklearn onnx"
    code = "; ".join(f"import fairway.sources.{name}" for name in modules.split())
    heavy = "'torch', 'sklearn', 'pyarrow', 'duckdb', 'onnx', 'onnxruntime', 'transformers', 'keras', 'pandas'"
    check = f"{code}; import sys; print(sorted({{{heavy}}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
