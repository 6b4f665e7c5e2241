"""Servers of small real models, on both lanes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.manifest import EngineSpec, Manifest
from fairway.core.tensors import Datatype, TensorSpec
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings
from fairway.testing.builders import linear_bundle

FEATURES, CLASSES = 4, 3
_PROTO = {
    Datatype.FP32: TensorProto.FLOAT,
    Datatype.FP64: TensorProto.DOUBLE,
    Datatype.FP16: TensorProto.FLOAT16,
    Datatype.INT8: TensorProto.INT8,
    Datatype.UINT8: TensorProto.UINT8,
    Datatype.INT32: TensorProto.INT32,
    Datatype.INT64: TensorProto.INT64,
    Datatype.UINT64: TensorProto.UINT64,
    Datatype.BOOL: TensorProto.BOOL,
    Datatype.BYTES: TensorProto.STRING,
    Datatype.BF16: TensorProto.BFLOAT16,
    Datatype.INT16: TensorProto.INT16,
    Datatype.UINT16: TensorProto.UINT16,
    Datatype.UINT32: TensorProto.UINT32,
}
_EVERY = tuple(_PROTO)[:10]


def echo_bundle(path: Path, name: str, specs: tuple[TensorSpec, ...], engine: EngineSpec | None = None) -> Bundle:
    """Gives back each input ``n`` as output ``same_n``."""
    outputs = tuple(TensorSpec(f"same_{s.name}", s.datatype, s.shape) for s in specs)

    def info(spec: TensorSpec) -> Any:
        shape = [None if size == -1 else size for size in spec.shape]
        return helper.make_tensor_value_info(spec.name, _PROTO[spec.datatype], shape)

    nodes = [helper.make_node("Identity", [s.name], [f"same_{s.name}"]) for s in specs]
    graph = helper.make_graph(nodes, name, list(map(info, specs)), list(map(info, outputs)))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    manifest = Manifest(
        name=name, task="embedding", inputs=specs, outputs=outputs, files={}, engine=engine or EngineSpec()
    )
    return write_bundle(path, manifest, {"model.onnx": model.SerializeToString()})


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ...]:
    root = tmp_path_factory.mktemp("bundles")
    rng = np.random.default_rng(0)
    linear = linear_bundle(root / "linear", weights=rng.normal(size=(FEATURES, CLASSES)), bias=rng.normal(size=CLASSES))
    kinds = tuple(TensorSpec(kind.value.lower(), kind, (-1,), allow_nan=kind is Datatype.FP64) for kind in _EVERY)
    every = echo_bundle(root / "every", "every", kinds)
    free = echo_bundle(root / "free", "free", (TensorSpec("x", Datatype.FP32, (-1, -1)),), EngineSpec(max_batch=8))
    return linear, every, free


@pytest.fixture(scope="session", params=["fast lane", "starlette"])
def server(request: pytest.FixtureRequest, bundles: tuple[Bundle, ...]) -> Iterator[RunningServer]:
    settings = ServeSettings(
        port=0, fast_lane=request.param == "fast lane", max_body_bytes=2**20, max_header_bytes=8192
    )
    with serve(bundles, settings=settings) as running:
        yield running


@pytest.fixture(scope="session")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


@pytest.fixture
def good(http: httpx.Client) -> Callable[[], None]:
    """Asserts that the next good request, on the same connections, works."""

    def check() -> None:
        response = http.post("/v2/models/linear/infer", json=request_of())
        assert response.status_code == 200, response.text

    return check


def request_of(rows: int = 1, **changes: Any) -> dict[str, Any]:
    """A good request to the linear model, with changes to its only tensor."""
    tensor = {"name": "x", "shape": [rows, FEATURES], "datatype": "FP32", "data": [0.5] * (rows * FEATURES)}
    return {"inputs": [tensor | changes]}
