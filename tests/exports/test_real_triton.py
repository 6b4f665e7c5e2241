"""An exported model in NVIDIA's Triton, asked with NVIDIA's client: the same answers as the bundle's own.

The wheel that Triton comes in has its Python backend alone, so the ONNX Runtime backend's export is checked by Triton's
schema only (``test_triton.py``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fairway
from fairway.bundle.format import Bundle
from fairway.model import Model
from tests.exports.conftest import rows
from tests.exports.real_triton import installed, serving

pytestmark = pytest.mark.xdist_group("triton")  # whose environment is made once


def test_triton_answers_what_the_bundle_does(numbers: Bundle, tmp_path: Path) -> None:
    installed()
    import tritonclient.http as client

    repository = tmp_path / "repository"
    fairway.export(numbers, repository, backend="python", instances=2)
    with serving(repository, tmp_path) as address, client.InferenceServerClient(address, concurrency=8) as triton:
        config = triton.get_model_config("numbers")
        assert (config["max_batch_size"], config["dynamic_batching"]["preferred_batch_size"]) == (32, [32])
        feeds = [rows(count, seed=count) for count in (1, 7, 32, 2, 3)]
        requests = []
        for feed in feeds:
            given = client.InferInput("x", list(feed["x"].shape), "FP32")
            requests.append(triton.async_infer("numbers", [given.set_data_from_numpy(feed["x"])]))
        with Model(numbers) as model:
            for request, feed in zip(requests, feeds, strict=True):
                got = request.get_result().as_numpy("probabilities")
                assert np.allclose(got, model.infer(feed)["probabilities"], atol=1e-6)
        best = client.InferRequestedOutput("probabilities", class_count=1)
        told = triton.infer("numbers", [given], outputs=[best]).as_numpy("probabilities")
        labels = {row[0].decode().split(":")[2] for row in told}
        assert labels <= set(numbers.manifest.labels)


def test_triton_tokenizes_as_the_bundle_does(texts: Bundle, tmp_path: Path) -> None:
    installed()
    import tritonclient.http as client

    fairway.export(texts, tmp_path / "repository", backend="python")
    words = np.array([b"good good bad", b"bad", "böse bad".encode()], object)
    with serving(tmp_path / "repository", tmp_path) as address, client.InferenceServerClient(address) as triton:
        given = client.InferInput("text", [3, 1], "BYTES").set_data_from_numpy(words.reshape(3, 1))
        got = triton.infer("mood", [given]).as_numpy("probabilities")
    with Model(texts) as model:
        assert np.allclose(got, model.infer({"text": words})["probabilities"], atol=1e-6)
