"""Fill the cache that engines load from, in a process of its own, so that whatever this takes is taken from nobody."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
from msgspec import structs

from fairway.bundle.format import Bundle, read_bundle
from fairway.core.errors import FairwayError
from fairway.core.launch import python
from fairway.core.tensors import is_float
from fairway.engines.base import Engine
from fairway.engines.cache import EngineCache
from fairway.processing.steps import load_step
from fairway.serving.niceness import LOADING, give_way
from fairway.serving.warmup import made_up_rows, sample_rows, take

_NICENESS = 15
_ROWS = 4


class Job(msgspec.Struct, frozen=True):
    """What the process is to do: the bundle's directory, ``threads`` of an engine call, and the cache."""

    bundle: str
    threads: int
    root: str
    limit_bytes: int


class Filler:
    """Fills a cache, one bundle at a time. For the event loop's thread; the work is done in other processes.

    Parameters
    ----------
    cache : EngineCache
    threads : callable
        Threads of one engine call here, given what the bundle says.
    """

    def __init__(self, cache: EngineCache, threads: Callable[[int], int]) -> None:
        self._cache = cache
        self._threads = threads
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="fairway-fill", initializer=give_way, initargs=(LOADING,)
        )
        self._process: subprocess.Popen[str] | None = None
        self._closed = threading.Event()

    async def fill(self, bundle: Bundle) -> None:
        """Make the bundle's entry, if it is worth one and has none. The bundle's files must lie there until this returns.

        What fails is logged, once, and no error.
        """
        if not self._closed.is_set():
            done = asyncio.get_running_loop().run_in_executor(self._thread, self._fill, bundle)
            await asyncio.wait((done,))  # never raises, also if it was cancelled by close()

    def close(self) -> None:
        """Fill nothing more; what is being filled is given up."""
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        if (process := self._process) is not None:
            process.kill()

    def _fill(self, bundle: Bundle) -> None:
        """In the thread."""
        spec = bundle.manifest.engine
        threads = self._threads(spec.threads)
        spec = structs.replace(spec, threads=threads)
        if self._closed.is_set() or not self._cache.wanted(spec, bundle):
            return
        job = Job(str(bundle.path.absolute()), threads, str(self._cache.root), self._cache.limit_bytes)
        try:
            with self._cache.turn(self._closed) as mine:
                if mine and self._cache.wanted(spec, bundle):  # else another worker has filled it meanwhile
                    self._run([*python(__name__), msgspec.json.encode(job).decode()])
        except Exception as error:  # noqa: BLE001 (models are loaded without it)
            self._cache.unusable(str(error))

    def _run(self, command: list[str]) -> None:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the server, which ends this
        ) as process:
            self._process = process
            if self._closed.is_set():
                process.kill()
            _, said = process.communicate()
        self._process = None
        if process.returncode and not self._closed.is_set():
            lines = said.strip().splitlines()
            self._cache.unusable(lines[-1] if lines else f"the process that fills it ended with {process.returncode}")


def fill(job: Job) -> None:
    """What the process does."""
    bundle = read_bundle(job.bundle, verify=False)
    spec = structs.replace(bundle.manifest.engine, threads=job.threads)
    EngineCache(Path(job.root), job.limit_bytes).fill(spec, bundle, asking(bundle))


def asking(bundle: Bundle) -> Callable[[Engine], bytes]:
    """Gives an engine's answers to a few of the bundle's recorded rows, or to made-up ones."""
    recorded = sample_rows(bundle)
    feed = take(recorded, _ROWS) if recorded is not None else None
    if feed is not None:
        for step in bundle.manifest.processing.pre:
            feed = dict(load_step(step, bundle.path)(feed))

    def ask(engine: Engine) -> bytes:
        rows = feed
        if rows is None:
            rng = np.random.default_rng(0)
            rows = {
                name: rng.standard_normal(array.shape).astype(array.dtype) if is_float(array) else array
                for name, array in made_up_rows(engine.inputs).items()
            }
        try:
            answer = engine.infer(rows)
        except Exception:
            if recorded is not None:
                raise
            return b""  # made-up rows may be nonsense to it
        return b"".join(
            repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes() for array in answer.values()
        )

    return ask


def main() -> int:
    """Do the job in the first argument; gives the process's exit code."""
    os.nice(_NICENESS)
    try:
        fill(msgspec.json.decode(sys.argv[1], type=Job))
    except (FairwayError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
