"""A bundle made runnable answers what its graph answers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from fairway.bundle.format import Bundle, read_bundle
from fairway.core.errors import InvalidBundle, UnsupportedMachine
from fairway.core.manifest import Lineage, PassRecord, Processing, Step
from fairway.model import Model
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
