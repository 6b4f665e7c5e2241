"""ONNX Runtime, on the CPU or on what its providers compute on."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fairway.core.errors import InvalidBundle, InvalidRequest, UnsupportedMachine
from fairway.core.tensors import Datatype, Tensor, Tensors, TensorSpec

_DATATYPES = {
    "tensor(bool)": Datatype.BOOL,
    "tensor(uint8)": Datatype.UINT8,
    "tensor(uint16)": Datatype.UINT16,
    "tensor(uint32)": Datatype.UINT32,
    "tensor(uint64)": Datatype.UINT64,
    "tensor(int8)": Datatype.INT8,
    "tensor(int16)": Datatype.INT16,
    "tensor(int32)": Datatype.INT32,
    "tensor(int64)": Datatype.INT64,
    "tensor(float16)": Datatype.FP16,
    "tensor(bfloat16)": Datatype.BF16,
    "tensor(float)": Datatype.FP32,
    "tensor(double)": Datatype.FP64,
    "tensor(string)": Datatype.BYTES,
}
_GRAPH, _WEIGHTS = "graph.onnx", "weights.bin"
_WORTH_BYTES = 16 * 2**20
"""Smaller graphs load in tens of milliseconds anyway."""
_ONNX_BFLOAT16 = 16  # TensorProto.BFLOAT16
_OF_GPU_PACKAGE = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
_SET = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""By provider: what keeps FP32 what it says, as on the CPU."""


class OnnxRuntimeEngine:
    """An ONNX graph on ONNX Runtime.

    Parameters
    ----------
    path : Path
        The ``.onnx`` file; external data lies beside it.
    threads : int, default 1
        Threads within one call; 0 lets ONNX Runtime take every core.
    optimize : bool, default True
        Let ONNX Runtime rewrite the graph as it loads; without, nodes run as they were exported.
    providers : sequence of str, default ()
        ONNX Runtime's providers, such as ``CUDAExecutionProvider``, in the order in which they are offered each operator; what
        none of them can run, the CPU runs.
    cache : Path, optional
        A directory for the rewritten graph and its weights, packed for this CPU's kernels: written there if it is empty, else
        mapped from there, so that processes share their pages. It must be nobody else's.

    Raises
    ------
    InvalidBundle
        If the file cannot be loaded.
    UnsupportedMachine
        If a provider is not there, or finds no device: ONNX Runtime would leave it out without a word.
    """

    options: ClassVar[tuple[str, ...]] = ("providers",)
    caches: ClassVar[bool] = True
    runtime: ClassVar[str] = "onnxruntime"

    @staticmethod
    def worth_caching(size_bytes: int, *, providers: Sequence[str] = ()) -> bool:
        """Whether a bundle is large enough, and its graph one that can be kept: providers' own parts cannot."""
        return size_bytes >= _WORTH_BYTES and not providers

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        optimize: bool = True,
        providers: Sequence[str] = (),
        cache: Path | None = None,
    ) -> None:
        import onnxruntime as ort

        _check_providers(providers, ort.get_available_providers())

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        source = path if cache is None else _cached(ort, options, path, cache)
        options.log_severity_level = 3  # its warnings are not the user's
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                source, options, providers=[*((name, _SET.get(name, {})) for name in providers), "CPUExecutionProvider"]
            )
        except Exception as error:
            raise InvalidBundle(f"ONNX Runtime cannot load {path.name}: {error}") from error
        self._session.disable_fallback()
        if left_out := [name for name in providers if name not in self._session.get_providers()]:
            raise UnsupportedMachine(
                f"ONNX Runtime found no device, or lacks a library, for {left_out[0]}; its log says which. Install what it "
                "needs, or serve this bundle on another machine"
            )
        # What InferenceSession.run calls once it has looked for missing inputs, as the server has: a quarter of a small call.
        self._run = getattr(self._session, "_sess", self._session).run
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self._strings = tuple(s.name for s in self.inputs if s.datatype is Datatype.BYTES)
        self._text_out = tuple(s.name for s in self.outputs if s.datatype is Datatype.BYTES)
        self._names = [spec.name for spec in self.outputs]
        self._bfloat16 = any(s.datatype is Datatype.BF16 for s in (*self.inputs, *self.outputs))
        if self._bfloat16 and self._strings:
            raise InvalidBundle(
                f"{path.name} has BF16 tensors and takes strings, which ONNX Runtime cannot be given together from Python; "
                "export it with FP32 in place of BF16"
            )

    def infer(self, feed: Tensors) -> Tensors:
        """Run the graph once."""
        if self._strings:
            feed = {name: _text(array) if name in self._strings else array for name, array in feed.items()}
        names = self._names
        answers = self._run_values(names, feed) if self._bfloat16 else self._run(names, feed, None)
        answer: dict[str, Tensor] = dict(zip(names, answers))  # noqa: B905 (one for each name, and this is a hot path)
        for name in self._text_out:
            answer[name] = _bytes(answer[name])
        return answer

    def close(self) -> None:
        """Free the session."""
        del self._run, self._session

    def _run_values(self, names: list[str], feed: Tensors) -> list[Tensor]:
        """Run a graph with BF16, which ONNX Runtime neither takes nor gives as NumPy arrays."""
        values = {name: _value(array) for name, array in feed.items()}
        return [_array(value) for value in self._session.run_with_ort_values(names, values)]


def _check_providers(wanted: Sequence[str], available: Sequence[str]) -> None:
    if not isinstance(wanted, list | tuple):
        raise InvalidBundle(f"the option providers is {wanted!r}; it is a list of names")
    for name in wanted:
        if name not in available:
            package = "onnxruntime-gpu" if name in _OF_GPU_PACKAGE else "a build of ONNX Runtime that has it"
            raise UnsupportedMachine(
                f"this bundle runs on ONNX Runtime's {name}, which is not installed here (there is {', '.join(available)}); "
                f"install {package} in place of onnxruntime, or serve the bundle on another machine"
            )


def _cached(ort: Any, options: Any, path: Path, cache: Path) -> Path:
    """What to load: the graph in ``cache`` as it is, or, to be written there as well, the one at ``path``."""
    kept = cache / _GRAPH
    if kept.exists():
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    options.optimized_model_filepath = str(kept)
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", _WEIGHTS),
        ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(key, value)
    return path


def _value(array: Tensor) -> Any:
    from onnxruntime import OrtValue

    if array.dtype != Datatype.BF16.dtype:
        return OrtValue.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view(np.uint16)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)


def _array(value: Any) -> Tensor:
    if value.element_type() != _ONNX_BFLOAT16:
        array: Tensor = value.numpy()
        return array
    memory = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())  # a copy: the value frees its own
    return np.frombuffer(memory, Datatype.BF16.dtype).reshape(value.shape())


def _spec(node: Any) -> TensorSpec:
    if node.type not in _DATATYPES:
        raise InvalidBundle(
            f"{node.name!r} is {node.type}, which has no V2 datatype; export the model with plain tensors"
        )
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorSpec(node.name, _DATATYPES[node.type], shape)


def _text(array: Tensor) -> Tensor:
    """ONNX Runtime's strings are ``str``; the protocol's are bytes."""
    try:
        decoded = [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel()]
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"a string holds {error.object[:32]!r}, which is not UTF-8: ONNX models take texts; encode it, as base64 say"
        ) from None
    return np.array(decoded, dtype=object).reshape(array.shape)


def _bytes(array: Tensor) -> Tensor:
    encoded = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel()]
    return np.array(encoded, dtype=object).reshape(array.shape)
