"""Pack a model, sign it, hand it on as one file, and register it only if the signature is right."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import fairway
from fairway.core.errors import InvalidBundle, InvalidSignature
from fairway.testing.builders import linear_bundle

SETTINGS = """\
[model]
name = "sign"
source = "model.onnx"

[data]
test = "test.parquet"
label = "label"

[gate]
accuracy_score = { min = 0.9 }
latency_p99_ms = { max = 1000, at_rps = 1000 }
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder)
        private, public = write_keys(folder, "ours")
        _, stranger = write_keys(folder, "theirs")
        project = fairway.Project.find(folder)

        packed = fairway.pack(out=folder / "sign.tar", sign=private, project=project)
        print(f"packed and signed: sign.tar, {packed.digest}")
        print(f"it holds: {', '.join(sorted(packed.manifest.files))}")

        try:
            fairway.register(folder / "sign.tar", verify=stranger, project=project)
        except InvalidSignature as refused:
            print(f"refused: {str(refused)[:100]} …")

        version = fairway.register(folder / "sign.tar", verify=public, project=project)
        print(f"registered: {version.ref}, {version.digest}")
        assert version.digest == packed.digest

        # A bundle is its digest: one byte more or less and nobody loads it.
        raw = bytearray((folder / "sign.tar").read_bytes())
        raw[len(raw) // 2] ^= 1
        (folder / "altered.tar").write_bytes(raw)
        try:
            fairway.load(folder / "altered.tar", project=project)
        except InvalidBundle as refused:
            print(f"refused: {str(refused)[:100]} …")


def write_project(folder: Path) -> None:
    """A model that tells whether the sum of two numbers is positive, and rows to try it on."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2)).astype(np.float32)
    pq.write_table(
        pa.table({"a": x[:, 0], "b": x[:, 1], "label": (x.sum(axis=1) > 0).astype(np.int64)}), folder / "test.parquet"
    )
    made = linear_bundle(folder / "made", weights=[[-4, 4], [-4, 4]], bias=[0, 0])
    made.file("model.onnx").rename(folder / "model.onnx")
    (folder / "fairway.toml").write_text(SETTINGS)


def write_keys(folder: Path, owner: str) -> tuple[Path, Path]:
    """As ``openssl ecparam -name prime256v1 -genkey`` makes them."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{owner}.pem", folder / f"{owner}.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


if __name__ == "__main__":
    main()
