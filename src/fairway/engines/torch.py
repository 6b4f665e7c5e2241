"""PyTorch, on CPU or CUDA: exported programs (``.pt2``) run eagerly, compiled, or compiled ahead of time."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from fairway.core.errors import InvalidBundle, UnsupportedMachine
from fairway.core.extras import require
from fairway.core.tensors import Datatype, Tensor, Tensors, TensorSpec
from fairway.engines.programs import read_program
from fairway.engines.torch_parallel.plan import check_program
from fairway.engines.torch_parallel.processes import Ranks
from fairway.engines.torch_parallel.wire import Settings

_MODES = ("eager", "compiled", "aot")
_DEVICES = ("cpu", "cuda")
_PARALLEL = ("none", "pipeline", "tensor")
PRECISIONS = {"fp32": None, "bf16": "bfloat16", "fp16": "float16"}
_DATATYPES = {
    "bool": Datatype.BOOL,
    "uint8": Datatype.UINT8,
    "int8": Datatype.INT8,
    "int16": Datatype.INT16,
    "int32": Datatype.INT32,
    "int64": Datatype.INT64,
    "float16": Datatype.FP16,
    "bfloat16": Datatype.BF16,
    "float32": Datatype.FP32,
    "float64": Datatype.FP64,
}
_NAMES = {datatype: name for name, datatype in _DATATYPES.items()}


class TorchEngine:
    """An exported program on PyTorch.

    Parameters
    ----------
    path : Path
        A ``.pt2`` file of ATen operators. It is read without unpickling or evaluating anything in it; compiled code
        is never read from a bundle, but made here.
    threads : int, default 1
        Threads within one call on CPU; 0 is as many as there are cores for this process.
    mode : {"eager", "compiled", "aot"}, default "eager"
        Operator by operator; by ``torch.compile``, which compiles as it is loaded, and again for a single row; or by
        AOTInductor, once and for all. The latter two need a C++ compiler on this machine.
    device : {"cpu", "cuda"}, default "cpu"
    precision : {"fp32", "bf16", "fp16"}, default "fp32"
        What products are computed in: autocast, and their weights are kept so. FP32 is FP32 on CUDA, too, for which TF32 is
        switched off in this process.
    inputs, outputs : sequence of str
        Their names: as many as the program has. By default the parameters of ``forward``, and ``output_0`` and so on.
    cache : Path, optional
        A directory for what AOTInductor compiled: the next load of the same program on the same machine reads it from there.
        It must be nobody else's, since what lies there is run. Without, each load compiles.
    parallel : {"none", "pipeline", "tensor"}, default "none"
        How processes share the program: each holds consecutive operators, or a share of every large linear layer.
    ranks : int, default 1
        How many processes; with CUDA as many GPUs of this machine. With 1 it is computed in this process.
    micro_batches : int, default 1
        In how many parts a pipeline computes a call's rows, so that its processes work at the same time. More than one is for
        programs whose answer for a row does not depend on the other rows.
    timeout_s : float, default 60
        For how long a call may wait for the processes.

    Raises
    ------
    InvalidBundle
        If the file is no such program, or an option has no such value.
    UnsupportedMachine
        If there is no CUDA device, too few of them, or no compiler.
    WorkerFailed
        If one of several processes ends as it loads.

    Attributes
    ----------
    rank_bytes : tuple of int
        Bytes of weights that each process holds.

    Notes
    -----
    Calls from several threads are computed one after another: the server's parallelism is over processes and ``threads``.
    An answer is copied out once the device has finished. CUDA's libraries keep their plans of each shape by thread, so one
    thread makes all calls.
    """

    options: ClassVar[tuple[str, ...]] = (
        "mode", "device", "precision", "inputs", "outputs", "parallel", "ranks", "micro_batches", "timeout_s",
    )  # fmt: skip
    caches: ClassVar[bool] = True
    runtime: ClassVar[str] = "torch"

    @staticmethod
    def worth_caching(_: int, mode: str = "eager", **__: object) -> bool:
        """Whether something is compiled that can be kept."""
        return mode == "aot"

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        mode: Literal["eager", "compiled", "aot"] = "eager",
        device: Literal["cpu", "cuda"] = "cpu",
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        cache: Path | None = None,
        parallel: Literal["none", "pipeline", "tensor"] = "none",
        ranks: int = 1,
        micro_batches: int = 1,
        timeout_s: float = 60.0,
    ) -> None:
        for name, value, known in (
            ("mode", mode, _MODES),
            ("device", device, _DEVICES),
            ("precision", precision, PRECISIONS),
            ("parallel", parallel, _PARALLEL),
        ):
            if value not in known:
                raise InvalidBundle(f"{name} {value!r}: the torch engine knows {', '.join(known)}")
        _check_ranks(parallel, ranks, micro_batches, timeout_s, mode)
        torch: Any = require("torch", extra="torch")
        self._torch, self._device = torch, device
        self._threads = threads or len(os.sched_getaffinity(0))
        self._lock = threading.Lock()
        self._ranks: Ranks | None = None
        self._caller = ThreadPoolExecutor(1, "torch") if device == "cuda" and ranks == 1 else None
        _check_machine(torch, path, mode, device, ranks)
        program = read_program(path)
        self.inputs, self.outputs = inputs_of(program, path, inputs), outputs_of(program, path, outputs)
        if ranks > 1:
            _check_rows(path, self.inputs, self.outputs, micro_batches)
            check_program(torch, program, parallel, ranks, path.name)
            del program  # this process holds no weights
            each = threads or max(1, self._threads // ranks)
            told = Settings(str(path.absolute()), parallel, ranks, 0, device, precision, each, float(timeout_s))
            self._ranks = Ranks(told, self.inputs, self.outputs, micro_batches)
            self.rank_bytes = self._ranks.bytes
            return
        self.rank_bytes = (sum(held.nbytes for held in program.state_dict.values()),)
        if device == "cuda":
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        kind = PRECISIONS[precision]
        self._dtype = getattr(torch, kind) if kind else None
        if mode == "aot":
            self._run = self._ahead_of_time(program, path, precision, cache)
            return
        self._run = program.module(check_guards=False)
        if self._dtype is not None:
            halve(self._run, self._dtype)
        if mode == "compiled":
            with _compiling(path), torch.inference_mode(), self._precision():
                self._run = torch.compile(self._run, dynamic=any(-1 in spec.shape for spec in self.inputs))
                self._run(*map(self._example, self.inputs))

    def infer(self, feed: Tensors) -> Tensors:
        """Run the program once."""
        if self._ranks is not None:
            return self._ranks.infer(feed)
        return self._infer(feed) if self._caller is None else self._caller.submit(self._infer, feed).result()

    def _infer(self, feed: Tensors) -> Tensors:
        torch = self._torch
        given = [to_torch(torch, feed[spec.name]).to(self._device) for spec in self.inputs]
        with self._lock, torch.inference_mode(), self._precision():
            if self._device == "cpu" and torch.get_num_threads() != self._threads:
                torch.set_num_threads(self._threads)  # of the calling thread
            made = self._run(*given)
            if self._device == "cuda":
                torch.cuda.synchronize()
            flat = torch.utils._pytree.tree_leaves(made)
            return {spec.name: to_numpy(torch, value, spec) for spec, value in zip(self.outputs, flat, strict=True)}

    def close(self) -> None:
        """Free the program, and end its processes."""
        if self._ranks is not None:
            self._ranks.close()
            return
        if self._caller is not None:
            self._caller.shutdown()
        del self._run
        if self._device == "cuda":
            self._torch.cuda.empty_cache()

    def _precision(self) -> Any:
        return self._torch.autocast(self._device, self._dtype) if self._dtype is not None else nullcontext()

    def _ahead_of_time(self, program: Any, path: Path, precision: str, cache: Path | None) -> Callable[..., Any]:
        """Compile to a shared library, and load that; or load the one that lies in ``cache``."""
        from torch._inductor import aoti_compile_and_package, aoti_load_package

        with tempfile.TemporaryDirectory(prefix="fairway-torch-") as scratch:
            made = Path(scratch) / "compiled.pt2"
            kept = cache / f"torch-{self._key(path, precision)}.pt2" if cache is not None else None
            if kept is None or not kept.is_file():
                examples = tuple(map(self._example, self.inputs))
                with _compiling(path):
                    if self._dtype is not None:
                        program = self._in_precision(program, examples)
                    program._example_inputs = (examples, {})
                    aoti_compile_and_package(program, package_path=str(made))
                if kept is not None:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    aside = kept.with_name(f".{kept.name}.{os.getpid()}")
                    shutil.copyfile(made, aside)
                    aside.replace(kept)
            return aoti_load_package(str(kept or made))

    def _in_precision(self, program: Any, examples: tuple[Any, ...]) -> Any:
        """The program with its casts in it."""
        torch: Any = self._torch
        module, precision = program.module(check_guards=False), self._precision
        halve(module, self._dtype)

        class InPrecision(torch.nn.Module):  # type: ignore[misc] # torch is untyped here
            def __init__(self) -> None:
                super().__init__()
                self.module = module

            def forward(self, *given: Any) -> Any:
                with precision():
                    return self.module(*given)

        free = torch.export.Dim.AUTO
        shapes = tuple({i: free for i, size in enumerate(spec.shape) if size == -1} for spec in self.inputs)
        with torch.no_grad():
            return torch.export.export(InPrecision(), examples, dynamic_shapes=(shapes,), strict=False)

    def _example(self, spec: TensorSpec) -> Any:
        shape = tuple(
            axis + 2 if size == -1 else size for axis, size in enumerate(spec.shape)
        )  # no two free sizes alike
        return to_torch(self._torch, np.ones(shape, spec.datatype.dtype)).to(self._device)

    def _key(self, path: Path, precision: str) -> str:
        """Of all that the compiled code depends on."""
        torch = self._torch
        cuda = torch.cuda.get_device_name() if self._device == "cuda" else ""
        parts = (
            torch.__version__,
            self._device,
            cuda,
            torch.backends.cpu.get_cpu_capability(),
            _processor(),
            precision,
        )
        with path.open("rb") as program:
            digest = hashlib.file_digest(program, "sha256")
        digest.update(repr((parts, self._threads)).encode())
        return digest.hexdigest()[:32]


def _check_ranks(parallel: str, ranks: Any, micro_batches: Any, timeout_s: Any, mode: str) -> None:
    for name, value in (("ranks", ranks), ("micro_batches", micro_batches)):
        if type(value) is not int or value < 1:
            raise InvalidBundle(f"{name} {value!r}: the torch engine needs a whole number from 1 on")
    if type(timeout_s) not in (int, float) or not 0 < timeout_s < math.inf:
        raise InvalidBundle(f"timeout_s {timeout_s!r}: the torch engine needs a number of seconds above 0")
    if parallel == "none" and ranks > 1:
        raise InvalidBundle(f'ranks = {ranks} needs parallel = "pipeline" or "tensor" in the engine\'s options')
    if ranks > 1 and mode != "eager":
        raise InvalidBundle(
            f'mode {mode!r}: several ranks run operator by operator; set mode = "eager", or ranks = 1, in the engine\'s options'
        )
    if micro_batches > 1 and (parallel != "pipeline" or ranks == 1):
        raise InvalidBundle(
            f'micro_batches = {micro_batches} is for parallel = "pipeline" with two ranks or more; leave it out of the '
            "engine's options"
        )


def _check_rows(path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], micro_batches: int) -> None:
    for spec in (*inputs, *outputs) if micro_batches > 1 else ():
        if not spec.shape or spec.shape[0] != -1:
            raise InvalidBundle(
                f"micro_batches = {micro_batches} needs inputs and outputs whose first axis is rows, of any number; "
                f"{spec.name!r} of {path.name} is {list(spec.shape)}. Set micro_batches = 1 in the engine's options"
            )


def _check_machine(torch: Any, path: Path, mode: str, device: str, ranks: int) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise UnsupportedMachine(
            f"{path.name} is to run on CUDA, and torch {torch.__version__} ({built}) finds no such device; serve it where "
            'there is one, or set device = "cpu" in the engine\'s options'
        )
    if device == "cuda" and torch.cuda.device_count() < ranks:
        raise UnsupportedMachine(
            f"{path.name} is to run on {ranks} CUDA devices, and there are {torch.cuda.device_count()}; serve it where there "
            "are as many, or set ranks in the engine's options"
        )
    if mode != "eager" and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise UnsupportedMachine(
            f"{path.name} is to be compiled as it is loaded, and there is no C++ compiler here (CXX, c++, g++, clang++); "
            'install one, or set mode = "eager" in the engine\'s options'
        )


@contextmanager
def _compiling(path: Path) -> Iterator[None]:
    """Torch warns about its own insides as it compiles, and raises anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:
            raise InvalidBundle(
                f'torch cannot compile {path.name} here ({first_line(error)}); set mode = "eager" in the engine\'s options'
            ) from error


def inputs_of(program: Any, path: Path, names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """What the program takes, under these names or its own."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    positional, named = program.call_spec.in_spec.children()
    if named.num_leaves or positional.num_leaves != positional.num_children:
        raise InvalidBundle(f"{path.name} takes more than plain tensors in order; export a module whose forward does")
    nodes = program.graph_signature.user_inputs
    _check_names(names, len(nodes), "inputs", path)
    return tuple(_spec(name, values.get(node), path) for name, node in zip(names or nodes, nodes, strict=True))


def outputs_of(program: Any, path: Path, names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """What the program gives."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    made = program.graph_signature.user_outputs
    if names and len(names) != len(made):
        raise InvalidBundle(
            f"{path.name} has {len(made)} outputs, and the bundle names {len(names)}: {', '.join(names)}"
        )
    called = names or [f"output_{number}" for number in range(len(made))]
    return tuple(_spec(name, values.get(node), path) for name, node in zip(called, made, strict=True))


def _check_names(names: Sequence[str], wanted: int, what: str, path: Path) -> None:
    if names and len(names) != wanted:
        raise InvalidBundle(f"{path.name} has {wanted} {what}, and the bundle names {len(names)}: {', '.join(names)}")


def _spec(name: str, value: Any, path: Path) -> TensorSpec:
    kind = str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
    if kind not in _DATATYPES:
        raise InvalidBundle(f"{name!r} of {path.name} is {kind}, which has no V2 datatype; export plain tensors")
    return TensorSpec(name, _DATATYPES[kind], tuple(size if type(size) is int else -1 for size in value.shape))


def halve(module: Any, dtype: Any) -> None:
    """Weights of products, so that autocast need not cast them at every call."""
    for parameter in module.parameters():
        if parameter.ndim > 1 and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def to_torch(torch: Any, array: Tensor) -> Any:
    """The array's memory as a tensor, if torch can take it as it is."""
    own = np.require(array, requirements=("C", "A", "W"))  # torch takes no array that cannot be written to
    if own.dtype == Datatype.BF16.dtype:
        return torch.from_numpy(own.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(own)


def to_numpy(torch: Any, value: Any, spec: TensorSpec) -> Tensor:
    """A copy: what a program gives may be its input, or a weight. Computed in half precision, it is given in the program's."""
    held = value.detach().cpu().to(getattr(torch, _NAMES[spec.datatype]))
    if held.dtype == torch.bfloat16:
        return np.array(held.contiguous().view(torch.int16).numpy()).view(Datatype.BF16.dtype)
    return np.array(held.numpy(), order="C")


def _processor() -> str:
    """The model of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def first_line(error: Exception) -> str:
    """Of what torch raises at length."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
