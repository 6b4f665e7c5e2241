"""OpenVINO on CPU: ONNX graphs and OpenVINO's own files (IR)."""

from __future__ import annotations

from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Literal

import numpy as np

from fairway.core.errors import InvalidBundle, InvalidRequest, UnsupportedMachine
from fairway.core.extras import require
from fairway.core.tensors import Datatype, Tensor, Tensors, TensorSpec

_DATATYPES = {
    "boolean": Datatype.BOOL,
    "u8": Datatype.UINT8,
    "u16": Datatype.UINT16,
    "u32": Datatype.UINT32,
    "i8": Datatype.INT8,
    "i16": Datatype.INT16,
    "i32": Datatype.INT32,
    "i64": Datatype.INT64,
    "f16": Datatype.FP16,
    "f32": Datatype.FP32,
}
_PRECISIONS = {"fp32": ("f32", "FP32"), "bf16": ("bf16", "BF16"), "fp16": ("f16", "FP16")}
"""As OpenVINO calls them: as a hint, and among what a device can do."""

_COMPILED = "compiled.blob"
_WORTH_BYTES = 4 * 2**20
"""Smaller graphs compile in tens of milliseconds."""

_HALVED = (Datatype.INT64, Datatype.UINT32)
"""Integers that the device holds in 32 signed bits: it would cut off the rest without a word."""


class OpenVinoEngine:
    """A graph on OpenVINO's CPU device.

    Parameters
    ----------
    path : Path
        An ``.onnx`` file, or OpenVINO's ``.xml`` with its ``.bin`` beside it.
    threads : int, default 1
        Threads within one call; 0 lets OpenVINO take every core.
    precision : {"fp32", "bf16", "fp16"}, default "fp32"
        What products are computed in, whatever the weights are kept in. Left to itself OpenVINO would choose by CPU, and
        answer differently from one machine to the next. Quantized operators stay int8.
    cache : Path, optional
        A directory for the compiled graph: written there if it is empty, else mapped from there. It must be nobody else's,
        since what lies there is run, and must hold what was made of this graph, with these options, on this CPU.

    Raises
    ------
    InvalidBundle
        If the file cannot be read, or holds what OpenVINO's CPU device would compute otherwise than asked: strings, and
        numbers of 64 bits.
    UnsupportedMachine
        If the CPU does not compute in ``precision``. Such a graph would run here, slower and with other answers than
        those that were evaluated.

    Notes
    -----
    Calls from several threads are each given a request of their own, and computed one after another: the server's
    parallelism is over processes and ``threads``.
    """

    options: ClassVar[tuple[str, ...]] = ("precision",)
    caches: ClassVar[bool] = True
    runtime: ClassVar[str] = "openvino"

    @staticmethod
    def worth_caching(size_bytes: int, **_: object) -> bool:
        """Whether a bundle is large enough."""
        return size_bytes >= _WORTH_BYTES

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
        cache: Path | None = None,
    ) -> None:
        ov = require("openvino", extra="openvino")
        core = ov.Core()
        if path.suffix not in (".onnx", ".xml"):  # OpenVINO reads other formats, too, which nobody has looked at here
            raise InvalidBundle(f"{path.name} is neither an .onnx nor an .xml file, which is what this engine reads")
        if precision not in _PRECISIONS:
            raise InvalidBundle(f"precision {precision!r}: OpenVINO computes in {', '.join(_PRECISIONS)}")
        _check_cpu(core, path, precision)
        settings = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision][0],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "ENABLE_CPU_PINNING": False,  # every worker process would choose the same cores
            **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        }
        self._compiled: Any = None
        self._mapped: Any = None
        try:
            kept = cache / _COMPILED if cache is not None else None
            if kept is not None and kept.exists():
                self._mapped = np.memmap(
                    kept, np.uint8, "c"
                )  # it takes only what it could write to, and does not write
                graph = self._compiled = core.import_model(ov.Tensor(self._mapped, shared_memory=True), "CPU", settings)
            else:
                graph = core.read_model(path)
            self.inputs = tuple(_spec(port, path) for port in graph.inputs)
            self.outputs = tuple(_spec(port, path) for port in graph.outputs)
            if self._compiled is None:
                self._compiled = core.compile_model(graph, "CPU", settings)
                if kept is not None:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_bytes(self._compiled.export_model().getbuffer())
        except (InvalidBundle, OSError):
            raise
        except Exception as error:
            raise InvalidBundle(f"OpenVINO cannot load {path.name}: {_first_line(error)}") from error
        self._long = tuple(spec.name for spec in self.inputs if spec.datatype in _HALVED)
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def infer(self, feed: Tensors) -> Tensors:
        """Run the graph once."""
        for name in self._long:
            _check_range(name, feed[name])
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        try:
            # A request's own outputs are written over by its next call, so they are copied.
            answer = request.infer({n: np.ascontiguousarray(a) for n, a in feed.items()}, share_inputs=True)
            return {spec.name: answer[i] for i, spec in enumerate(self.outputs)}
        finally:
            self._idle.put(request)

    def close(self) -> None:
        """Free the compiled graph."""
        del self._idle, self._compiled, self._mapped


def _check_cpu(core: Any, path: Path, precision: str) -> None:
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if _PRECISIONS[precision][1] not in able:
        known = ", ".join(sorted(_PRECISIONS.keys() & {name.lower() for name in able}))
        name = core.get_property("CPU", "FULL_DEVICE_NAME")
        raise UnsupportedMachine(
            f"{path.name} is to be computed in {precision}, which this CPU ({name}) does not do; it does {known}. Serve it "
            "on a CPU that does, or optimize the model again on this one"
        )


def _spec(port: Any, path: Path) -> TensorSpec:
    kind, name = port.element_type.get_type_name(), min(port.names, default="")
    if not name:
        raise InvalidBundle(f"{path.name} has an input or output without a name")
    if kind not in _DATATYPES:
        raise InvalidBundle(
            f"{name!r} of {path.name} is {kind}, which OpenVINO's CPU device does not compute as such; serve this model with "
            "ONNX Runtime"
        )
    shape = tuple(size.get_length() if size.is_static else -1 for size in port.partial_shape)
    return TensorSpec(name, _DATATYPES[kind], shape)


def _check_range(name: str, array: Tensor) -> None:
    if array.size and not (int(array.min()) >= -(2**31) and int(array.max()) < 2**31):
        raise InvalidRequest(
            f"input {name!r} has numbers beyond 32 bits, which this model's engine, OpenVINO, cuts off"
        )


def _first_line(error: Exception) -> str:
    """OpenVINO's messages begin with where in its sources they were raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (said or lines or [type(error).__name__])[0][:300]
