"""One rank's process: ``python -m fairway.engines.torch_parallel.worker``. It reads the program that it inherits.

It is a fresh interpreter rather than a fork, since CUDA survives none, and is given nothing but :class:`Settings`. Its
standard input is a pipe that nobody writes to: once that ends, the engine's process is gone, and so is this one. (A signal
by ``PR_SET_PDEATHSIG`` would come as soon as the *thread* that loaded the model ends.)
"""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from fairway.core.errors import FairwayError
from fairway.core.extras import require
from fairway.engines.programs import load_program
from fairway.engines.torch import PRECISIONS, first_line, halve, outputs_of, to_numpy, to_torch
from fairway.engines.torch_parallel.graphs import held_bytes, plain_module
from fairway.engines.torch_parallel.pipeline import Stage, cut
from fairway.engines.torch_parallel.tensor import shard
from fairway.engines.torch_parallel.wire import Settings, Wire, put, take

_RENDEZVOUS_S = 900.0
_Compute = Callable[[Sequence[Any], int], tuple[list[Any], Exception | None]]


def main() -> None:
    """Serve calls until the engine closes its end."""
    settings = msgspec.json.decode(sys.argv[2], type=Settings)
    threading.Thread(target=_watch, args=[Path(settings.store).parent], daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine's process, which then ends this one
    wire: Wire = Connection(int(sys.argv[1]))
    with suppress(EOFError, OSError):
        try:
            serve(wire, settings)
        except FairwayError as error:
            put(wire, {"kind": error.code, "error": str(error), "fatal": True})
        except (EOFError, BrokenPipeError):
            pass
        except Exception as error:  # noqa: BLE001 (whatever torch raises is told to the engine)
            put(wire, {"error": first_line(error), "fatal": True})
    os._exit(0)  # no destructor may wait for a rank that is gone


def _watch(folder: Path) -> None:
    """End with the engine's process, and put away what it cannot any more."""
    while os.read(0, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def serve(wire: Wire, settings: Settings) -> None:
    """Load this rank's part, say how large it is, and answer."""
    torch: Any = require("torch", extra="torch")
    device = f"cuda:{settings.rank}" if settings.device == "cuda" else "cpu"
    if settings.device == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    else:
        torch.set_num_threads(settings.threads)
    kind = PRECISIONS[settings.precision]
    dtype = getattr(torch, kind) if kind else None
    module, specs, compute = _load(torch, settings, device)
    if dtype is not None:
        halve(module, dtype)
    _give_back()
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if settings.device == "cuda" else "gloo",
        store=torch.distributed.FileStore(settings.store, settings.ranks),
        rank=settings.rank,
        world_size=settings.ranks,
        timeout=timedelta(seconds=max(_RENDEZVOUS_S, settings.timeout_s)),  # of a call the engine keeps the time
    )
    put(wire, {"bytes": held_bytes([*module.parameters(), *module.buffers()])})
    while True:
        head, arrays = take(wire)
        with torch.inference_mode(), torch.autocast(settings.device, dtype) if dtype is not None else nullcontext():
            given = [to_torch(torch, array).to(device) for array in arrays]
            values, failed = compute(given, head["chunks"])
            if settings.device == "cuda":
                torch.cuda.synchronize()
            made = [(s.datatype, to_numpy(torch, v, s)) for s, v in zip(specs, values, strict=True)] if values else []
        put(wire, {"error": first_line(failed)} if failed is not None else {}, made)


def _load(torch: Any, settings: Settings, device: str) -> tuple[Any, Any, _Compute]:
    """The rank's module, the outputs that it answers with, and how it computes."""
    path = Path(settings.path)
    program = load_program(Path(f"/proc/self/fd/{settings.file}").read_bytes(), path.name)
    os.close(settings.file)
    source = plain_module(program, path.name)
    specs = outputs_of(program, path, ())
    rank, ranks = settings.rank, settings.ranks
    if settings.parallel == "pipeline":
        part = cut(torch, source, ranks, path.name)[rank]
        part.move(torch, device)
        module = part.module(torch, source, device)
        return module, specs if rank == ranks - 1 else (), Stage(torch, module, part, rank, ranks, device)
    (part,) = cut(torch, source, 1, path.name)
    part.move(torch, device)
    module = shard(torch, part, source, rank, ranks, device, path.name)

    def compute(given: Sequence[Any], _: int) -> tuple[list[Any], Exception | None]:
        try:
            values = list(module(*given))
        except Exception as error:  # noqa: BLE001 (every rank computes alike, and tells it alike)
            return [], error
        return values if rank == 0 else [], None

    return module, specs if rank == 0 else (), compute


def _give_back() -> None:
    """What was read and belongs to other ranks is freed, to the system as well."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    main()
