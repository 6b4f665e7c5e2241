"""Serve a bundle inside this process, ask it, and see what a wrong request is told."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import fairway
from fairway.core.errors import InvalidRequest
from fairway.testing.builders import linear_bundle


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundle = linear_bundle(
            Path(folder) / "sign", name="sign", weights=[[-4, 4], [-4, 4]], bias=[0, 0], labels=("minus", "plus")
        )
        with fairway.serve(bundle, port=0) as server, fairway.connect(server.url) as client:
            print(f"{server.url} serves {[entry['name'] for entry in client.index()]}")
            print(f"it takes {client.metadata('sign')['inputs']}")

            answer = client.infer("sign", {"x": np.array([[1.0, 2.0], [-3.0, 1.0]], np.float32)})
            print(f"version {answer.version}: {answer.outputs['probabilities'].round(3).tolist()}")
            assert answer.outputs["probabilities"].argmax(axis=1).tolist() == [1, 0]

            # Lists become what the model takes.
            assert client.infer("sign", {"x": [[1, 2]]}).outputs["probabilities"].shape == (1, 2)

            try:
                client.infer("sign", {"x": [[1.0, 2.0, 3.0]]})
            except InvalidRequest as refused:
                print(f"refused: {refused}")
        print("drained and stopped")


if __name__ == "__main__":
    main()
