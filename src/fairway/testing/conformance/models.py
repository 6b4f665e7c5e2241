"""The suite's own models: small ONNX graphs of which every answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fairway.core.extras import require
from fairway.core.manifest import EngineSpec, Manifest
from fairway.core.tensors import Datatype, TensorSpec

Layout = Literal["triton", "triton-python", "bundle"]
IDENTITIES = tuple(datatype.value for datatype in Datatype)
LABELS = ("zero", "one", "two")
VERSIONS = 10
_ELEM = {
    "BOOL": "BOOL", "UINT8": "UINT8", "UINT16": "UINT16", "UINT32": "UINT32", "UINT64": "UINT64", "INT8": "INT8",
    "INT16": "INT16", "INT32": "INT32", "INT64": "INT64", "FP16": "FLOAT16", "BF16": "BFLOAT16", "FP32": "FLOAT",
    "FP64": "DOUBLE", "BYTES": "STRING",
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """One of the suite's models. ``kind`` names what it computes; ``inputs`` and ``outputs`` are (name, datatype, shape)."""

    name: str
    kind: str
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    labels: tuple[str, ...] = ()
    max_batch: int = 64
    version: int = 1


def standard_models() -> list[Model]:
    """Every model of the suite.

    ``identity_*`` (one for each datatype) answer ``y = x`` of any ``[rows, columns]``; ``add_sub`` has two inputs and two
    outputs; ``row_sum`` adds up each row; ``scores`` is an identity with class labels; ``picky`` fails for an index above 3;
    ``small_batches`` is an identity whose largest batch is 4; ``slow`` takes about as many milliseconds as it is told;
    ``versions`` has versions 1 to 10 that add their own number.
    """
    free, four = (-1, -1), (-1, 4)
    models = [Model(f"identity_{d.lower()}", "identity", (("x", d, free),), (("y", d, free),)) for d in IDENTITIES]
    models += [
        Model("add_sub", "add_sub", (("a", "INT32", four), ("b", "INT32", four)),
              (("sum", "INT32", four), ("difference", "INT32", four))),
        Model("row_sum", "row_sum", (("x", "FP32", free),), (("y", "FP32", (-1, 1)),)),
        Model("scores", "identity", (("x", "FP32", (-1, 3)),), (("y", "FP32", (-1, 3)),), labels=LABELS),
        Model("picky", "gather", (("x", "INT64", (-1, 1)),), (("y", "FP32", (-1, 1)),)),
        Model("small_batches", "identity", (("x", "FP32", four),), (("y", "FP32", four),), max_batch=4),
        Model("slow", "slow", (("x", "INT64", (-1, 1)),), (("y", "INT64", (-1, 1)),), max_batch=1),
    ]  # fmt: skip
    models += [
        Model("versions", "add_version", (("x", "INT32", (-1, 1)),), (("y", "INT32", (-1, 1)),), version=number)
        for number in range(1, VERSIONS + 1)
    ]
    return models


def write_models(directory: Path, layout: Layout = "triton") -> list[Path]:
    """Write the suite's models for a server to load.

    Parameters
    ----------
    directory : Path
        Made if absent.
    layout : {"triton", "triton-python", "bundle"}
        A Triton model repository for its ONNX Runtime backend, or for its Python backend; or Fairway bundles, one folder
        each (the versions of a model as ``NAME.VERSION``).

    Returns
    -------
    list of Path
        One folder per model (and version, for bundles), in the order in which to serve them.
    """
    write: Callable[[Path, Model], Path] = {"triton": _onnx, "triton-python": _python, "bundle": _bundle}[layout]
    folders = [write(directory, model) for model in standard_models()]
    return list(dict.fromkeys(folders))


def graph_of(model: Model) -> bytes:
    """The model as ONNX."""
    onnx = require("onnx", extra="optimize")
    helper, proto = onnx.helper, onnx.TensorProto

    def info(spec: tuple[str, str, tuple[int, ...]]) -> Any:
        name, datatype, shape = spec
        return helper.make_tensor_value_info(
            name, getattr(proto, _ELEM[datatype]), [None if s < 0 else s for s in shape]
        )

    nodes, constants = _nodes(model, onnx)
    graph = helper.make_graph(nodes, model.name, [*map(info, model.inputs)], [*map(info, model.outputs)], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def _nodes(model: Model, onnx: Any) -> tuple[list[Any], list[Any]]:
    import numpy as np

    node, const = onnx.helper.make_node, onnx.numpy_helper.from_array
    if model.kind == "add_sub":
        return [node("Add", ["a", "b"], ["sum"]), node("Sub", ["a", "b"], ["difference"])], []
    if model.kind == "row_sum":
        return [node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)], [const(np.array([1], np.int64), "axes")]
    if model.kind == "gather":
        return [node("Gather", ["table", "x"], ["y"])], [const(np.arange(4, dtype=np.float32) * 10, "table")]
    if model.kind == "add_version":
        return [node("Add", ["x", "v"], ["y"])], [const(np.array(model.version, np.int32), "v")]
    if model.kind == "slow":
        return _slow(onnx)
    return [node("Identity", ["x"], ["y"])], []


def _slow(onnx: Any) -> tuple[list[Any], list[Any]]:
    """A loop of ``x`` turns; one multiplies two matrices, which takes about a millisecond."""
    import numpy as np

    helper, proto = onnx.helper, onnx.TensorProto
    node, const = helper.make_node, onnx.numpy_helper.from_array
    square = [320, 320]
    body = helper.make_graph(
        [
            node("MatMul", ["state_in", "state_in"], ["product"]),
            node("Softmax", ["product"], ["state_out"], axis=1),
            node("Identity", ["go_on"], ["still"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", proto.INT64, []),
            helper.make_tensor_value_info("go_on", proto.BOOL, []),
            helper.make_tensor_value_info("state_in", proto.FLOAT, square),
        ],
        [
            helper.make_tensor_value_info("still", proto.BOOL, []),
            helper.make_tensor_value_info("state_out", proto.FLOAT, square),
        ],
    )
    nodes = [
        node("ReduceMax", ["x"], ["turns"], keepdims=0),
        node("Loop", ["turns", "", "start"], ["end"], body=body),
        node("ReduceMax", ["end"], ["most"], keepdims=0),
        node("Cast", ["most"], ["whole"], to=proto.INT64),
        node("Mul", ["whole", "none"], ["zero"]),
        node("Add", ["x", "zero"], ["y"]),  # so that the loop is not optimized away
    ]
    start = np.full(square, 1 / 320, np.float32)
    return nodes, [const(start, "start"), const(np.array(0, np.int64), "none")]


def _bundle(directory: Path, model: Model) -> Path:
    from fairway.bundle.format import write_bundle

    def spec(given: tuple[str, str, tuple[int, ...]]) -> TensorSpec:
        name, datatype, shape = given
        return TensorSpec(name, Datatype(datatype), shape, allow_nan=True)

    manifest = Manifest(
        name=model.name,
        task="embedding",
        inputs=tuple(map(spec, model.inputs)),
        outputs=tuple(map(spec, model.outputs)),
        files={},
        labels=model.labels,
        engine=EngineSpec(max_batch=model.max_batch),
    )
    name = model.name if model.kind != "add_version" else f"{model.name}.{model.version:02d}"
    path = directory / name
    directory.mkdir(parents=True, exist_ok=True)
    write_bundle(path, manifest, {"model.onnx": graph_of(model)})
    return path


def _onnx(directory: Path, model: Model) -> Path:
    return _triton(directory, model, 'platform: "onnxruntime_onnx"', "model.onnx", graph_of(model))


def _python(directory: Path, model: Model) -> Path:
    code = (Path(__file__).parent / "triton_python.py.txt").read_bytes()
    return _triton(directory, model, 'backend: "python"', "model.py", code)


def _triton(directory: Path, model: Model, backend: str, file: str, content: bytes) -> Path:
    folder = directory / model.name
    version = folder / str(model.version)
    version.mkdir(parents=True, exist_ok=True)
    (version / file).write_bytes(content)
    if model.labels:
        (folder / "labels.txt").write_text("\n".join(model.labels) + "\n")
    (folder / "config.pbtxt").write_text(_config(model, backend))
    return folder


def _config(model: Model, backend: str) -> str:
    def side(word: str, specs: tuple[tuple[str, str, tuple[int, ...]], ...]) -> str:
        labels = ' label_filename: "labels.txt"' if model.labels and word == "output" else ""
        tensors = ", ".join(
            f'{{ name: "{name}" data_type: TYPE_{"STRING" if kind == "BYTES" else kind} dims: {list(shape[1:])}{labels} }}'
            for name, kind, shape in specs
        )
        return f"{word} [ {tensors} ]\n"

    return (
        f'name: "{model.name}"\n{backend}\nmax_batch_size: {model.max_batch}\n'
        + side("input", model.inputs)
        + side("output", model.outputs)
        + "dynamic_batching { default_queue_policy { allow_timeout_override: true } }\n"
        "version_policy: { all { } }\ninstance_group [ { kind: KIND_CPU count: 1 } ]\n"
        + f'parameters {{ key: "kind" value: {{ string_value: "{model.kind}" }} }}\n'
    )
