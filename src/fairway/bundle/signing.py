"""Sign a bundle with a local key, and verify it, in the OpenSSF Model Signing format (a Sigstore bundle)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from fairway.bundle.format import SIGNATURE, Bundle, read_bundle
from fairway.bundle.staging import publish_file
from fairway.core.errors import InvalidSignature
from fairway.core.extras import require


def sign_bundle(bundle: Bundle, private_key: Path, *, password: str | None = None) -> Path:
    """Sign every file of a bundle and its manifest; the signature replaces an earlier one, atomically.

    The signature does not change the bundle's digest.

    Parameters
    ----------
    bundle : Bundle
        It is verified first: what was altered is never signed.
    private_key : Path
        An elliptic-curve key (P-256, P-384 or P-521) in PEM, such as
        ``openssl ecparam -name prime256v1 -genkey -noout -out signing.key`` writes.
    password : str, optional
        For an encrypted key.

    Returns
    -------
    Path
        The signature file inside the bundle.

    Raises
    ------
    InvalidBundle
        If the bundle was altered.
    InvalidSignature
        If the key cannot be read or is of another kind.
    MissingExtra
        If the extra ``signing`` is not installed.

    References
    ----------
    OpenSSF Model Signing Specification v1.0, https://github.com/ossf/model-signing-spec.
    """
    signing = require("model_signing.signing", extra="signing")
    bundle.verify()
    signer = signing.Config().set_hashing_config(_hashing())
    try:
        signer.use_elliptic_key_signer(private_key=private_key, password=password and password.encode())
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InvalidSignature(f"{private_key} cannot sign ({_first_line(error)}); {_NEEDED} private key") from None
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / SIGNATURE
        signer.sign(bundle.path, draft)
        # Beside the bundle, not inside: a killed signer must not leave a file that the manifest does not list.
        with publish_file(bundle.path / SIGNATURE, scratch=bundle.path.absolute().parent) as out:
            out.write(draft.read_bytes())
    return bundle.path / SIGNATURE


def verify_signature(bundle: Bundle, public_key: Path) -> None:
    """Check that the owner of ``public_key`` signed exactly this bundle. Returns nothing; raises if not.

    Parameters
    ----------
    bundle : Bundle
    public_key : Path
        In PEM, as ``openssl ec -in signing.key -pubout -out signing.pub`` writes.

    Raises
    ------
    InvalidSignature
        If there is no signature, it is another key's, or any file differs from what was signed.
    InvalidBundle
        If the bundle is not what its manifest says.
    MissingExtra
        If the extra ``signing`` is not installed.
    """
    verifying = require("model_signing.verifying", extra="signing")
    if not bundle.signature():
        raise InvalidSignature(
            f"{bundle.path} is not signed; ask whoever packed it to sign it, or do not ask for a signature"
        )
    verifier = verifying.Config().set_hashing_config(_hashing())
    try:
        verifier.use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InvalidSignature(f"{public_key} cannot verify ({_first_line(error)}); {_NEEDED} public key") from None
    try:
        verifier.verify(bundle.path, bundle.path / SIGNATURE)
    except Exception as error:  # noqa: BLE001 - a hostile signature can make its parser fail in any way
        raise InvalidSignature(
            f"the signature of {bundle.path} does not verify with {public_key}: {_first_line(error)}; do not use this "
            "bundle: get it again from whoever signed it"
        ) from None
    if read_bundle(bundle.path).digest != bundle.digest:
        raise InvalidSignature(f"{bundle.path} was replaced after it was opened; open it again, then verify")


_NEEDED = "it takes a PEM file with an elliptic-curve (P-256, P-384, P-521)"


def _hashing() -> Any:
    """Everything but the signature itself; the library would skip Git's files by default."""
    hashing = require("model_signing.hashing", extra="signing")
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _first_line(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0].strip()[:300]
