"""A bundle made runnable answers what its graph answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairway.bundle.format import Bundle, read_bundle, write_bundle
from fairway.bundle.samples import SAMPLES, encode_samples
from fairway.core.errors import InvalidBundle, UnsupportedMachine
from fairway.core.manifest import EngineSpec, Lineage, Manifest, PassRecord, Processing, Step
from fairway.core.tensors import Datatype, Tensors, TensorSpec
from fairway.model import Model
from fairway.serving.warmup import warm_up
from tests.conftest import Digits


def test_a_bundle_answers_what_the_original_answers(digits: Digits, digits_bundle: Bundle) -> None:
    with Model(read_bundle(digits_bundle.path)) as model:
        answer = model.infer({"x": digits.x_test})
    np.testing.assert_allclose(answer["probabilities"], digits.model.predict_proba(digits.x_test), atol=1e-5)


@pytest.mark.parametrize("place", ["absolute", "beside"])
def test_an_engine_file_outside_the_bundle_is_never_loaded(digits_bundle: Bundle, place: str) -> None:
    graph = str(digits_bundle.file("model.onnx")) if place == "absolute" else f"../{digits_bundle.path.name}/model.onnx"
    manifest = digits_bundle.manifest
    elsewhere = msgspec.structs.replace(manifest, engine=msgspec.structs.replace(manifest.engine, file=graph))
    with pytest.raises(InvalidBundle, match="has no file"):
        Model(Bundle(digits_bundle.path, elsewhere))


def test_a_steps_file_outside_the_bundle_is_never_read(digits_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    step = Step("tokenize", {"file": str(tmp_path / "tokenizer.json"), "input": "x", "outputs": [], "max_length": 8})
    manifest = msgspec.structs.replace(digits_bundle.manifest, processing=Processing(pre=(step,)))
    with pytest.raises(InvalidBundle, match="has no file"):
        Model(Bundle(digits_bundle.path, manifest))


@pytest.mark.parametrize(
    ("made_on", "reduce_range", "loads"),
    [
        ("exact", False, False),  # weights of 8 bits, made where sums are exact: here they would saturate
        ("saturating", False, True),
        ("", False, True),  # nobody knows
        ("exact", True, True),  # weights of 7 bits answer the same everywhere
    ],
)
def test_weights_of_8_bits_need_a_processor_that_adds_as_theirs_did(
    digits_bundle: Bundle, made_on: str, reduce_range: bool, loads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.model.int8_sums", lambda: "saturating")
    lineage = Lineage(environment={"cpu": "Abacus 2", "int8_sums": made_on})
    recipe = (PassRecord("int8-static", {"reduce_range": reduce_range}),)
    bundle = Bundle(digits_bundle.path, msgspec.structs.replace(digits_bundle.manifest, lineage=lineage, recipe=recipe))
    if loads:
        Model(bundle).close()
    else:
        with pytest.raises(UnsupportedMachine, match=r"Abacus 2.*lacks VNNI.*reduce_range = true"):
            Model(bundle)


# --- what an accelerator is given ---------------------------------------------------------------------------------


class Device:
    """Doubles its rows, in steps as coarse as half precision's that depend on how many there are; knows what it was given."""

    inputs = (TensorSpec("x", Datatype.FP32, (-1, 2)),)
    outputs = (TensorSpec("y", Datatype.FP32, (-1, 2)),)

    def __init__(self) -> None:
        self.given: list[int] = []

    def infer(self, feed: Tensors) -> Tensors:
        rows = len(feed["x"])
        self.given.append(rows)
        return {"y": feed["x"] * np.float32(2 + (0.01 if rows > 1 else 0))}

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr("fairway.model.load_engine", lambda *_, **__: made)
    return made


def on_device(tmp_path: Path, *, batching: bool = True, **options: Any) -> Bundle:
    engine = EngineSpec("torch", "model.pt2", max_batch=16, batching=batching, options={"device": "cuda", **options})
    manifest = Manifest("double", "regression", Device.inputs, Device.outputs, {}, engine)
    samples = encode_samples({"x": np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)})
    return write_bundle(tmp_path / "double.fairway", manifest, {"model.pt2": b"program", SAMPLES: samples})


@pytest.mark.parametrize(("rows", "given"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8), (9, 16), (33, 64)])
def test_an_accelerator_meets_powers_of_two_and_callers_their_own_rows(
    rows: int, given: int, device: Device, tmp_path: Path
) -> None:
    with Model(on_device(tmp_path)) as model:
        x = np.random.default_rng(rows).normal(size=(rows, 2)).astype(np.float32)
        for raw in (False, True):
            answer = model.infer({"x": x}, raw=raw)["y"]
            assert answer.shape == (rows, 2)
            assert np.allclose(answer, 2 * x, rtol=0.01)
    assert device.given == [given, given]


def test_rows_that_depend_on_each_other_are_not_filled_up(device: Device, tmp_path: Path) -> None:
    with Model(on_device(tmp_path, batching=False)) as model:
        model.infer({"x": np.ones((3, 2), np.float32)})
    assert device.given == [3]


@pytest.mark.usefixtures("device")
def test_rounding_of_half_precision_is_no_reason_not_to_batch(tmp_path: Path) -> None:
    for precision, batching in (("bf16", True), ("fp32", False)):
        bundle = on_device(tmp_path / precision, precision=precision)
        with Model(bundle) as model:
            assert warm_up(model, bundle).batching is batching


class Halves:
    """Takes and gives BF16; its answers are by the largest number of a call, or a rounding step off beside other rows."""

    inputs = (TensorSpec("x", Datatype.BF16, (-1, 2)),)
    outputs = (TensorSpec("y", Datatype.BF16, (-1, 2)),)

    def __init__(self, *, scales: bool) -> None:
        self.scales = scales

    def infer(self, feed: Tensors) -> Tensors:
        x = feed["x"].astype(np.float64)
        made = x / np.abs(x).max() if self.scales else x * (1 + 2**-8 * (len(x) > 1))
        return {"y": made.astype(Datatype.BF16.dtype)}

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize("scales", [True, False])
def test_rows_of_bf16_that_depend_on_each_other_do_not_share_a_call(
    scales: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.model.load_engine", lambda *_, **__: Halves(scales=scales))
    manifest = Manifest("halves", "regression", Halves.inputs, Halves.outputs, {})
    rows = np.random.default_rng(0).normal(size=(8, 2)).astype(Datatype.BF16.dtype)
    bundle = write_bundle(tmp_path / "b", manifest, {"model.onnx": b"graph", SAMPLES: encode_samples({"x": rows})})
    with Model(bundle) as model:
        assert warm_up(model, bundle).batching is not scales


def test_each_size_that_an_accelerator_will_meet_is_met_before_ready(device: Device, tmp_path: Path) -> None:
    bundle = on_device(tmp_path, precision="bf16")
    with Model(bundle) as model:
        warm_up(model, bundle)
    assert {1, 2, 4, 8, 16} <= set(device.given)
