"""Tensors in system shared memory over REST, by the field's own client; on both lanes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.core.tensors import Datatype, TensorSpec
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings
from tests.serving.conftest import echo_bundle

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system shows no shared memory as files")


@pytest.fixture(scope="module", params=["fast lane", "starlette"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    specs = (TensorSpec("x", Datatype.FP32, (-1, 2)), TensorSpec("s", Datatype.BYTES, (-1,)))
    bundle = echo_bundle(tmp_path_factory.mktemp("shared") / "echo", "echo", specs)
    settings = ServeSettings(port=0, fast_lane=request.param == "fast lane", shared_memory=True)
    with serve(bundle, settings=settings) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Any]:
    made = triton.InferenceServerClient(server.url.removeprefix("http://"))
    yield made
    made.unregister_system_shared_memory()
    made.close()


@pytest.fixture
def region(client: Any) -> Iterator[Any]:
    """A registered region of 64 bytes called ``r``."""
    from tritonclient.utils import shared_memory

    key = f"/fairway-{uuid.uuid4().hex}"
    made = shared_memory.create_shared_memory_region("r", key, 64)
    client.register_system_shared_memory("r", key, 64)
    yield made
    shared_memory.destroy_shared_memory_region(made)


def inputs(offset: int = 0, size: int = 16) -> list[Any]:
    x = triton.InferInput("x", [2, 2], "FP32")
    x.set_shared_memory("r", size, offset)
    s = triton.InferInput("s", [2], "BYTES")
    s.set_data_from_numpy(np.array([b"a", b"bc"], dtype=object))
    return [s, x]


def test_an_input_and_an_output_in_shared_memory(client: Any, region: Any) -> None:
    from tritonclient.utils import shared_memory

    rows = np.array([[1, 2], [3, 4]], np.float32)
    shared_memory.set_shared_memory_region(region, [rows], offset=16)
    there = triton.InferRequestedOutput("same_x")
    there.set_shared_memory("r", 32, offset=32)
    result = client.infer("echo", inputs(16), outputs=[there, triton.InferRequestedOutput("same_s")])
    said = result.get_output("same_x")
    assert said["parameters"] == {
        "shared_memory_region": "r",
        "shared_memory_byte_size": 16,
        "shared_memory_offset": 32,
    }
    found = shared_memory.get_contents_as_numpy(region, np.float32, [2, 2], offset=32)
    np.testing.assert_array_equal(found, rows)
    assert result.as_numpy("same_s").tolist() == [b"a", b"bc"]


def test_what_lies_outside_of_the_region_is_refused(client: Any, region: Any) -> None:
    for made, size in ((inputs(64), 16), (inputs(0, 1000), 16), (inputs(), 8)):
        there = triton.InferRequestedOutput("same_x")
        there.set_shared_memory("r", size)
        with pytest.raises(triton.InferenceServerException, match=r"region 'r'"):
            client.infer("echo", made, outputs=[there])


def test_a_region_that_is_not_registered_is_refused(client: Any) -> None:
    with pytest.raises(triton.InferenceServerException, match="no region 'r'"):
        client.infer("echo", inputs())


def test_classes_are_not_put_in_shared_memory(client: Any, region: Any) -> None:
    there = triton.InferRequestedOutput("same_x", class_count=1)
    there._parameters |= {"shared_memory_region": "r", "shared_memory_byte_size": 16}
    with pytest.raises(triton.InferenceServerException, match="classes"):
        client.infer("echo", inputs(), outputs=[there])
