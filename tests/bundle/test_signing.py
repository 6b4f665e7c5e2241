"""A signature says who packed exactly these bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fairway.bundle.archive import read_archive, write_archive
from fairway.bundle.format import MANIFEST, SIGNATURE, Bundle, read_bundle
from fairway.bundle.signing import sign_bundle, verify_signature
from fairway.core.errors import InvalidBundle, InvalidSignature
from tests.bundle.conftest import MakeBundle

if os.environ.get("CI") != "true":
    pytest.importorskip("model_signing", reason="needs the extra 'signing'")


class Keys(NamedTuple):
    private: Path
    public: Path


def make_keys(folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> Keys:
    key = key or ec.generate_private_key(ec.SECP256R1())
    keys = Keys(folder / f"{name}.key", folder / f"{name}.pub")
    pem = serialization.Encoding.PEM
    keys.private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    keys.public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return keys


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path, "signing")


@pytest.fixture
def signed(bundle: Bundle, keys: Keys) -> Bundle:
    sign_bundle(bundle, keys.private)
    return bundle


def test_a_signed_bundle_verifies_with_its_key_and_keeps_its_digest(signed: Bundle, keys: Keys) -> None:
    again = read_bundle(signed.path)
    assert again.digest == signed.digest
    verify_signature(again, keys.public)


def test_another_key_does_not_verify(signed: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InvalidSignature, match="does not verify"):
        verify_signature(signed, make_keys(tmp_path, "other").public)


def test_a_bundle_without_a_signature_is_said_to_have_none(bundle: Bundle, keys: Keys) -> None:
    with pytest.raises(InvalidSignature, match="is not signed"):
        verify_signature(bundle, keys.public)


@pytest.mark.parametrize("name", ["model.onnx", "tables/labels.json", "empty", MANIFEST])
def test_any_change_to_any_file_breaks_the_signature(signed: Bundle, keys: Keys, name: str) -> None:
    (signed.path / name).write_bytes(b"changed")
    with pytest.raises((InvalidSignature, InvalidBundle)):
        verify_signature(signed, keys.public)


@pytest.mark.parametrize("name", ["extra", ".gitignore", ".git/config", "tables/extra"])
def test_an_added_file_breaks_the_signature(signed: Bundle, keys: Keys, name: str) -> None:
    path = signed.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises((InvalidSignature, InvalidBundle), match=r"extra|git"):
        verify_signature(signed, keys.public)


def test_a_signature_of_another_bundle_does_not_verify(
    signed: Bundle, make_bundle: MakeBundle, keys: Keys, tmp_path: Path
) -> None:
    other = make_bundle(tmp_path / "other", {"model.onnx": b"other"})
    (other.path / SIGNATURE).write_bytes(signed.signature())
    with pytest.raises(InvalidSignature):
        verify_signature(other, keys.public)


def test_a_bundle_replaced_by_another_good_one_after_opening_is_noticed(
    bundle: Bundle, make_bundle: MakeBundle, keys: Keys, tmp_path: Path
) -> None:
    bundle.path.rename(tmp_path / "away")
    sign_bundle(make_bundle(bundle.path, {"model.onnx": b"other"}), keys.private)
    with pytest.raises(InvalidSignature, match="replaced"):
        verify_signature(bundle, keys.public)


@pytest.mark.parametrize("content", [b"{", b"{}", b"\xff\xfe", b"[]", b"null", b'{"mediaType": 1}'])
def test_a_signature_of_garbage_is_an_error_not_a_crash(signed: Bundle, keys: Keys, content: bytes) -> None:
    (signed.path / SIGNATURE).write_bytes(content)
    with pytest.raises(InvalidSignature):
        verify_signature(signed, keys.public)


def test_an_altered_bundle_is_never_signed(bundle: Bundle, keys: Keys) -> None:
    bundle.file("model.onnx").write_bytes(b"altered")
    with pytest.raises(InvalidBundle):
        sign_bundle(bundle, keys.private)
    assert bundle.signature() == b""


def test_signing_again_replaces_the_signature(signed: Bundle, tmp_path: Path) -> None:
    newer = make_keys(tmp_path, "newer", ec.generate_private_key(ec.SECP384R1()))
    sign_bundle(signed, newer.private)
    verify_signature(signed, newer.public)
    signed.verify()


def test_a_signature_survives_the_archive(signed: Bundle, keys: Keys, tmp_path: Path) -> None:
    read = read_archive(write_archive(signed, tmp_path / "b.tar"), tmp_path / "read")
    verify_signature(read, keys.public)


@pytest.mark.parametrize("kind", ["missing", "garbage", "rsa", "folder", "public"])
def test_a_key_that_cannot_be_used_is_named_with_what_is_needed(signed: Bundle, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.key"
    if kind == "garbage":
        path.write_bytes(b"-----BEGIN nonsense")
    elif kind == "rsa":
        path = make_keys(tmp_path, "rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048)).private
    elif kind == "folder":
        path.mkdir()
    elif kind == "public":
        path = make_keys(tmp_path, "other").public
    with pytest.raises(InvalidSignature, match="PEM file with an elliptic-curve"):
        sign_bundle(signed, path)
    if kind != "public":
        with pytest.raises(InvalidSignature, match="PEM file with an elliptic-curve"):
            verify_signature(signed, path)


def test_an_encrypted_key_takes_its_password(bundle: Bundle, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    keys = make_keys(tmp_path, "locked", key)
    keys.private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    for wrong in (None, "guess"):
        with pytest.raises(InvalidSignature, match="cannot sign"):
            sign_bundle(bundle, keys.private, password=wrong)
    sign_bundle(bundle, keys.private, password="open sesame")
    verify_signature(bundle, keys.public)
