"""A manifest's digest is its identity: equal content, equal digest; references read back as written."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bundle.format import decode_manifest
from fairway.core.errors import InvalidBundle, InvalidConfig, NewerFormat
from fairway.core.manifest import FORMAT, EngineSpec, FileEntry, Lineage, Manifest, ModelRef, Prediction
from fairway.core.tensors import Datatype, TensorSpec

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
SPECS = st.builds(
    TensorSpec,
    name=st.text(min_size=1),
    datatype=st.sampled_from(Datatype),
    shape=st.lists(st.integers(-1, 100), max_size=4).map(tuple),
    columns=st.lists(st.text(), max_size=3).map(tuple),
    allow_nan=st.booleans(),
)
MANIFESTS = st.builds(
    Manifest,
    name=NAMES,
    task=st.sampled_from(["classification", "regression"]),
    inputs=st.lists(SPECS, max_size=2).map(tuple),
    outputs=st.lists(SPECS, max_size=2).map(tuple),
    files=st.dictionaries(
        st.from_regex(r"[a-z]{1,8}\.[a-z]{1,4}", fullmatch=True).filter(
            lambda n: n not in ("manifest.json", "signature.json")
        ),
        st.builds(FileEntry, sha256=st.from_regex("[0-9a-f]{64}", fullmatch=True), size=st.integers(0, 2**50)),
        max_size=3,
    ),
    engine=st.builds(EngineSpec, threads=st.integers(0, 8), max_batch=st.integers(1, 512)),
    prediction=st.none() | st.just(Prediction("probabilities", "probabilities")),
    labels=st.lists(st.text(), max_size=4).map(tuple),
    lineage=st.builds(
        Lineage, hyperparameters=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False))
    ),
)


@given(MANIFESTS)
def test_a_manifest_reads_back_as_written_and_keeps_its_digest(manifest: Manifest) -> None:
    again = decode_manifest(manifest.encode(), "here")
    assert again == manifest
    assert again.digest == manifest.digest


@given(MANIFESTS, MANIFESTS)
def test_digests_are_equal_only_for_equal_manifests(one: Manifest, two: Manifest) -> None:
    assert (one == two) == (one.digest == two.digest)


def test_the_order_of_files_does_not_matter() -> None:
    a, b = FileEntry("0" * 64, 1), FileEntry("1" * 64, 2)
    one, two = ({"a": a, "b": b}, {"b": b, "a": a})
    digests = {Manifest("m", "classification", (), (), files).digest for files in (one, two)}
    assert len(digests) == 1


def test_a_newer_format_is_named_as_such() -> None:
    newer = msgspec.structs.replace(Manifest("m", "classification", (), (), {}), format=FORMAT + 1)
    with pytest.raises(NewerFormat, match="upgrade"):
        decode_manifest(newer.encode(), "here")


@given(st.binary(max_size=200))
def test_noise_is_no_manifest(raw: bytes) -> None:
    with pytest.raises(InvalidBundle):
        decode_manifest(raw, "here")


REFS = (
    st.builds(ModelRef, name=NAMES)
    | st.builds(ModelRef, name=NAMES, version=st.integers(0, 10**9 - 1))
    | st.builds(ModelRef, name=NAMES, alias=NAMES)
)


@given(REFS)
def test_a_reference_reads_back_as_written(ref: ModelRef) -> None:
    assert ModelRef.parse(str(ref)) == ref


@pytest.mark.parametrize("text", ["", ":1", "a:", "a@", "a:x", "a:1@b", "../a", "a b", "a:1\n", "-a", "a:9999999999"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="not a model reference"):
        ModelRef.parse(text)
