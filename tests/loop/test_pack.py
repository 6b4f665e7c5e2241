"""``pack`` and ``register``: a bundle with its evidence, whole or not at all, signed or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import fairway
from fairway.bundle.format import read_bundle
from fairway.bundle.signing import verify_signature
from fairway.core.errors import (
    FairwayError,
    InvalidBundle,
    InvalidConfig,
    InvalidData,
    InvalidSignature,
    UnsupportedMachine,
)
from fairway.core.manifest import ModelRef
from fairway.evaluation.scaling import apply_temperature
from fairway.loop.pack import pack, report_of
from fairway.loop.register import register
from fairway.model import Model
from fairway.sources.tables import make_table
from tests.conftest import Digits
from tests.projects import edit


@pytest.fixture
def keys(released: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = released / "ours.pem", released / "ours.pub"
    pem = serialization.Encoding.PEM
    traditional, plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(pem, traditional, plain))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_it_carries_its_evaluation_and_what_the_next_needs(released: Path) -> None:
    packed = pack("digits:2")
    assert packed.path.resolve() == released / "digits.fairway"
    report = report_of(packed)
    assert report is not None
    assert report.verdict.passed
    assert report.champion is not None
    assert {"baseline.json", "model.onnx"} <= set(packed.manifest.files)


def test_a_signed_bundle_is_registered_by_its_key_alone(released: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    packed = pack("digits:2", sign=private)
    verify_signature(read_bundle("digits.fairway"), public)
    (released / "stranger.pub").write_bytes(other_public_key())
    with pytest.raises(InvalidSignature):
        register("digits.fairway", verify=released / "stranger.pub")
    version = register("digits.fairway", verify=public)
    assert (version.digest, version.signed) == (packed.digest, True)
    with pytest.raises(InvalidSignature, match="not signed"):
        register("digits:2", verify=public)


def other_public_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_a_key_that_cannot_sign_leaves_no_unsigned_bundle(released: Path) -> None:
    (released / "no.pem").write_text("not a key")
    with pytest.raises(InvalidSignature, match=r"no\.pem"):
        pack("digits:2", sign=released / "no.pem")
    assert not (released / "digits.fairway").exists()


def test_a_bundle_gives_way_only_when_asked(released: Path) -> None:
    first = pack("digits:1", out="it.fairway")
    with pytest.raises(InvalidBundle, match="--replace"):
        pack("digits:2", out="it.fairway")
    assert read_bundle("it.fairway").digest == first.digest
    second = pack("digits:2", out="it.fairway", replace=True)
    assert read_bundle("it.fairway").digest == second.digest != first.digest
    assert not list(released.glob(".it.fairway*"))


@pytest.mark.parametrize("target", [".", "notes", "train.py"])
def test_nothing_but_a_bundle_is_ever_replaced(released: Path, target: str) -> None:
    (released / "notes").mkdir()
    (released / "notes" / "thesis.txt").write_text("years of work")
    before = sorted(path.name for path in released.iterdir())
    with pytest.raises(InvalidBundle, match="is not a bundle"):
        pack("digits:2", out=target, replace=True)
    assert (released / "notes" / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in released.iterdir()) == before


def test_an_archive_is_the_same_bundle(released: Path) -> None:
    packed = pack("digits:2", out="it.tar")
    with fairway.load("it.tar") as model:
        assert model.manifest.digest == packed.digest
    assert register("it.tar").digest == packed.digest
    with pytest.raises(InvalidBundle, match="--replace"):
        pack("digits:2", out="it.tar")
    again = pack("digits:1", out="it.tar", replace=True)
    assert register("it.tar").digest == again.digest


@pytest.mark.parametrize(
    ("given", "error"),
    [("it.tar.gz", InvalidConfig), ("good.onnx/it.fairway", InvalidConfig)],
)
def test_where_it_cannot_be_written_is_told_before_the_work(
    released: Path, given: str, error: type[FairwayError]
) -> None:
    steps: list[str] = []

    class Watching:
        def step(self, text: str) -> None:
            steps.append(text)

        def __call__(self, text: str, done: int, total: int) -> None:
            steps.append(text)

    with pytest.raises(error, match=r"good\.onnx|it\.tar\.gz"):
        pack("digits:2", out=given, progress=Watching())
    assert steps == []


def test_a_temperature_is_fitted_on_other_rows_and_built_in(released: Path, digits: Digits) -> None:
    rng = np.random.default_rng(0)
    columns = {name: digits.x_train[:, place] for place, name in enumerate(digits.columns)}
    drawn = rng.choice(10, size=len(digits.y_train))
    wrong = rng.random(len(digits.y_train)) < 0.2  # a fifth of the labels is chance: the model is too certain
    labels = np.where(wrong, drawn, digits.y_train)
    arrow = make_table({**columns, "digit": labels}).arrow
    pyarrow.parquet.write_table(arrow, released / "held_out.parquet")
    plain = fairway.Project.find().registry(create=False)
    with plain as registry:
        before = registry.fetch(registry.version(ModelRef.parse("digits:2")), released / "cache")
    packed = pack("digits:2", calibrate="held_out.parquet")
    fitted = packed.manifest.lineage.hyperparameters["temperature"]
    assert fitted > 1.2
    assert packed.manifest.lineage.parent == before.digest
    assert "calibration" in packed.manifest.lineage.data_digests
    feed = {"x": digits.x_test}
    with Model(before) as old, Model(packed) as new:
        name = old.outputs[0].name
        given = {old.inputs[0].name: feed["x"]}
        was, now = old.infer(given)[name], new.infer(given)[name]
    assert now == pytest.approx(apply_temperature(was.astype(np.float64), fitted), abs=1e-4)
    assert (now.argmax(axis=1) == was.argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [(40, "needs 100 rows"), (400, "needs 5 rows that are wrong and as many that are right; 0 of 400 are wrong")],
)
def test_no_temperature_is_fitted_where_nothing_bounds_it(
    released: Path, digits: Digits, rows: int, message: str
) -> None:
    """Of rows that are all right, the most certain model would look best."""
    columns = {name: digits.x_train[:rows, place] for place, name in enumerate(digits.columns)}
    labels = digits.model.predict(digits.x_train[:rows])
    pyarrow.parquet.write_table(make_table({**columns, "digit": labels}).arrow, released / "easy.parquet")
    with pytest.raises(InvalidData, match=message):
        pack("digits:2", calibrate="easy.parquet")


def test_nothing_is_fitted_on_the_test_set(released: Path) -> None:
    with pytest.raises(InvalidConfig, match="is the test set"):
        pack("digits:2", calibrate="test.parquet")


def test_a_bundle_is_evaluated_and_served_on_the_providers_that_it_names(folder: Path) -> None:
    edit(folder, 'source = "good.onnx"', 'source = "good.onnx"\noptions = { providers = ["AzureExecutionProvider"] }')
    packed = read_bundle(pack(out="digits.fairway").path)
    assert packed.manifest.engine.options == {"providers": ["AzureExecutionProvider"]}
    with Model(packed) as model:
        assert model.inputs


def test_a_bundle_for_a_device_is_not_packed_without_it_for_nobody_could_evaluate_it(folder: Path) -> None:
    edit(folder, 'source = "good.onnx"', 'source = "good.onnx"\noptions = { providers = ["CUDAExecutionProvider"] }')
    with pytest.raises(UnsupportedMachine, match="install onnxruntime-gpu"):
        pack(out="digits.fairway")
    assert not (folder / "digits.fairway").exists()


def test_providers_are_a_list(folder: Path) -> None:
    edit(folder, 'source = "good.onnx"', 'source = "good.onnx"\noptions = { providers = "CUDAExecutionProvider" }')
    with pytest.raises(InvalidConfig, match="providers is a list of names"):
        pack(out="digits.fairway")
