"""The conformance suite of engines: what everything behind the entry-point group ``fairway.engines`` must do.

For plug-in authors and for us: :func:`check_engine` runs every rule on a factory and returns what was broken.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.core.errors import InvalidBundle
from fairway.core.extras import require
from fairway.core.tensors import Datatype, TensorSpec
from fairway.engines.base import Engine, EngineFactory

_ONNX = {
    Datatype.BOOL: "BOOL", Datatype.UINT8: "UINT8", Datatype.UINT16: "UINT16", Datatype.UINT32: "UINT32",
    Datatype.UINT64: "UINT64", Datatype.INT8: "INT8", Datatype.INT16: "INT16", Datatype.INT32: "INT32",
    Datatype.INT64: "INT64", Datatype.FP16: "FLOAT16", Datatype.BF16: "BFLOAT16", Datatype.FP32: "FLOAT",
    Datatype.FP64: "DOUBLE", Datatype.BYTES: "STRING",
}  # fmt: skip
_FEATURES, _CLASSES = 5, 3


def check_engine(factory: EngineFactory, *, refused: frozenset[Datatype] = frozenset()) -> list[str]:
    """Run every rule on engines that ``factory`` makes of small ONNX graphs.

    Parameters
    ----------
    factory : EngineFactory
    refused : frozenset of Datatype
        What this engine does not take. It must then say so as it loads, with :class:`InvalidBundle`.

    Returns
    -------
    list of str
        One line per broken rule; empty if the engine conforms.
    """
    broken = []
    with tempfile.TemporaryDirectory() as folder:
        for rule in _RULES:
            path = Path(folder) / f"{rule.__name__.strip('_')}.onnx"
            try:
                rule(factory, path)
            except Exception as error:  # noqa: BLE001 (whatever an engine raises is an answer here)
                broken.append(f"{(rule.__doc__ or '').rstrip('.')}: {type(error).__name__}: {error}")
        for datatype in Datatype:
            try:
                _check_datatype(factory, Path(folder) / f"{datatype}.onnx", datatype, datatype in refused)
            except Exception as error:  # noqa: BLE001
                broken.append(f"{datatype} comes back as it went in: {type(error).__name__}: {error}")
    return broken


def _linear(path: Path) -> NDArray[np.float32]:
    """Write ``y = x W``, ``x`` FP32 ``[-1, 5]``; returns ``W``."""
    onnx = require("onnx", extra="optimize")
    weights = np.random.default_rng(0).normal(size=(_FEATURES, _CLASSES)).astype(np.float32)
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])]
    _write(path, nodes, ("x", "FLOAT", _FEATURES), ("y", "FLOAT", _CLASSES), {"w": weights})
    return weights


def _write(
    path: Path, nodes: Any, given: tuple[str, str, int], made: tuple[str, str, int], weights: Mapping[str, Any]
) -> None:
    onnx = require("onnx", extra="optimize")
    values = [
        onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, kind), [None, size])
        for name, kind, size in (given, made)
    ]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = onnx.helper.make_graph(nodes, "graph", values[:1], values[1:], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def _rows(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).normal(size=(count, _FEATURES)).astype(np.float32)


def _tells_its_shapes(factory: EngineFactory, path: Path) -> None:
    """Names, datatypes and shapes are the graph's, and free axes are -1."""
    _linear(path)
    engine = factory(path, threads=1)
    wanted = (TensorSpec("x", Datatype.FP32, (-1, _FEATURES)),), (TensorSpec("y", Datatype.FP32, (-1, _CLASSES)),)
    _same((tuple(engine.inputs), tuple(engine.outputs)), wanted)
    engine.close()


def _any_batch(factory: EngineFactory, path: Path) -> None:
    """Any number of rows, in any order of numbers, and threads from 0 (all cores) on."""
    weights = _linear(path)
    for threads in (0, 1, 2):
        engine = factory(path, threads=threads)
        for count in (3, 1, 64, 2):
            _close(engine.infer({"x": _rows(count)})["y"], _rows(count) @ weights)
        engine.close()


def _owns_its_answer(factory: EngineFactory, path: Path) -> None:
    """An answer stays what it was when the engine is called again, and the input is not changed."""
    weights = _linear(path)
    engine = factory(path, threads=1)
    x = _rows(4)
    first = engine.infer({"x": x})["y"]
    engine.infer({"x": -x})
    _close(first, _rows(4) @ weights)
    _close(x, _rows(4))
    engine.close()


def _any_memory(factory: EngineFactory, path: Path) -> None:
    """Arrays that cannot be written to, that are not contiguous or not aligned are read right."""
    weights = _linear(path)
    engine = factory(path, threads=1)
    locked, turned = _rows(4), np.asfortranarray(_rows(4))
    locked.flags.writeable = False
    raw = np.frombuffer(b"\0" + _rows(4).tobytes(), np.uint8)[1:].view(np.float32).reshape(4, _FEATURES)
    strided = np.repeat(_rows(4), 2, axis=0)[::2]
    for x in (locked, turned, strided, raw):
        _close(engine.infer({"x": x})["y"], _rows(4) @ weights)
    engine.close()


def _many_threads(factory: EngineFactory, path: Path) -> None:
    """Calls from several threads at once get each their own answer."""
    weights = _linear(path)
    engine = factory(path, threads=1)
    wrong: list[str] = []

    def ask(seed: int) -> None:
        for count in range(1, 40):
            x = _rows(count) * seed
            try:
                _close(engine.infer({"x": x})["y"], x @ weights)
            except Exception as error:  # noqa: BLE001 (told by the thread that asked for it)
                wrong.append(str(error))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()
    _same(wrong, [])


def _broken_file(factory: EngineFactory, path: Path) -> None:
    """A file that is no graph, is cut off or is not there is refused with InvalidBundle, which names it."""
    _linear(path)
    whole = path.read_bytes()
    for content in (b"no graph", whole[: len(whole) // 2], None):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        _refuses(lambda: factory(path, threads=1), path.name)


def _unknown_operator(factory: EngineFactory, path: Path) -> None:
    """A graph with an operator that the engine does not know is refused with InvalidBundle."""
    onnx = require("onnx", extra="optimize")
    node = onnx.helper.make_node("NoSuchOperator", ["x"], ["y"])
    _write(path, [node], ("x", "FLOAT", _FEATURES), ("y", "FLOAT", _FEATURES), {})
    _refuses(lambda: factory(path, threads=1), path.name)


def _check_datatype(factory: EngineFactory, path: Path, datatype: Datatype, refused: bool) -> None:
    onnx = require("onnx", extra="optimize")
    kind = _ONNX[datatype]
    _write(path, [onnx.helper.make_node("Identity", ["x"], ["y"])], ("x", kind, 2), ("y", kind, 2), {})
    if refused:
        _refuses(lambda: factory(path, threads=1), path.name)
        return
    x = _values(datatype)
    engine = factory(path, threads=1)
    y = engine.infer({"x": x})["y"]
    _same((y.dtype, y.tolist()), (x.dtype, x.tolist()))
    engine.close()


def _values(datatype: Datatype) -> NDArray[Any]:
    if datatype is Datatype.BYTES:
        return np.array([[b"a", "bé".encode()]], object)
    if datatype is Datatype.BOOL:
        return np.array([[True, False]])
    if datatype.is_float:
        return np.array([[-1.5, 0.25]]).astype(datatype.dtype)
    return np.array([[1, 100]]).astype(datatype.dtype)


def _refuses(load: Callable[[], Engine], name: str) -> None:
    try:
        load()
    except InvalidBundle as error:
        if name not in str(error):
            raise AssertionError(f"the error does not name {name}: {error}") from None
        return
    raise AssertionError("it was loaded")


def _same(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{found} in place of {wanted}")


def _close(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


_RULES = (
    _tells_its_shapes, _any_batch, _owns_its_answer, _any_memory, _many_threads, _broken_file, _unknown_operator,
)  # fmt: skip
