"""Forms made several at a time, in processes of their own: ``python -m fairway.optimization.making`` is one of these.

It reads a :class:`Plan`, one line of JSON, and then :class:`Job` after job from stdin, and says how each ended on stdout. It
ends with its stdin, also in the middle of a form, so whoever started it leaves none behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import msgspec
import numpy as np
import psutil

from fairway.bundle.format import Bundle, read_bundle
from fairway.core.launch import python
from fairway.core.mapping import cores as available
from fairway.core.tensors import Datatype
from fairway.optimization.build import build_candidate
from fairway.optimization.passes.base import NothingToDo, Sample
from fairway.optimization.prefixes import Prefixes
from fairway.optimization.recipes import Recipe

_MOST = 8
_TIMES, _BESIDE = 6, 10**9
"""A process takes memory for so many copies of the graph, and for libraries."""


class Plan(msgspec.Struct, frozen=True):
    """What all jobs have in common; ``arrays`` has a file and a datatype for each input of the graph."""

    source: str
    arrays: dict[str, tuple[str, str]]
    rows: int
    batch: int | None
    made: tuple[str, ...]
    stages: str
    cores: tuple[int, ...]


class Job(msgspec.Struct, frozen=True):
    """One form to be made."""

    recipe: Recipe
    destination: str


class Told(msgspec.Struct, frozen=True):
    """How a job ended: ``reason`` says why nothing was made, ``failed`` whether something broke."""

    reason: str = ""
    failed: bool = False


class Makers:
    """Makes forms of one bundle, up to ``count`` at a time, and nothing between two calls. A context manager.

    What needs the whole machine, such as measuring, is to be done between calls: the processes then wait.

    Parameters
    ----------
    source : Bundle
    sample : Sample
        Its arrays are written to ``workdir``, so that processes share them.
    workdir : Path
    stages : Path
        Where the graphs on the way lie that processes share; see :class:`~fairway.optimization.prefixes.Prefixes`.
    cores : int, default 0
        That processes share; 0: all that this one may use.

    Attributes
    ----------
    count : int
        1 where a second process would have no core or no memory of its own; then nothing is made here.
    """

    def __init__(self, source: Bundle, sample: Sample, workdir: Path, stages: Path, *, cores: int = 0) -> None:
        self._source, self._sample, self._workdir, self._stages = source, sample, workdir, stages
        room = psutil.virtual_memory().available // (_TIMES * source.size_bytes + _BESIDE)
        texts = any(array.dtype.kind in "OSU" for array in sample.feed.values())
        self.count = 1 if texts else max(1, min(cores or available(), room, _MOST))
        self._folder: Path | None = None
        self._idle: SimpleQueue[_Maker] = SimpleQueue()
        self._makers: list[_Maker] = []

    def __enter__(self) -> Makers:
        """Nothing is started before it is needed."""
        for left in self._workdir.glob(f"{_FOLDER}*"):  # by a search that was killed
            shutil.rmtree(left, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        for maker in self._makers:
            maker.end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def make(self, jobs: Sequence[Job], may_begin: Callable[[], bool] = lambda: True) -> list[Told | None]:
        """Make ``jobs``, in this order, each if it ``may_begin``.

        Returns how each ended, ``None`` where it was not begun, its process ended, or the machine had no room for it.
        """
        if self._folder is None:
            try:
                self._start()
            except OSError:  # no room for the sample: whoever asked makes them, one by one
                self.count = 1
                return [None] * len(jobs)
        with ThreadPoolExecutor(self.count) as pool:
            try:
                return list(pool.map(lambda job: self._make(job) if may_begin() else None, jobs))
            except BaseException:  # Ctrl-C, say: no thread waits any longer
                for maker in self._makers:
                    maker.end()
                raise

    def _make(self, job: Job) -> Told | None:
        maker = self._idle.get()
        try:
            return maker.make(job)
        finally:
            self._idle.put(maker)

    def _start(self) -> None:
        self._folder = folder = Path(tempfile.mkdtemp(prefix=_FOLDER, dir=self._workdir))
        arrays: dict[str, tuple[str, str]] = {}
        for number, (name, array) in enumerate(self._sample.feed.items()):
            np.save(folder / f"{number}.npy", array)
            arrays[name] = str(folder / f"{number}.npy"), Datatype.of(array.dtype).value
        allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        for number in range(self.count):
            maker = _Maker(
                Plan(
                    str(self._source.path.absolute()),
                    arrays,
                    self._sample.rows,
                    self._sample.batch,
                    tuple(sorted(self._sample.made)),
                    str(self._stages.absolute()),
                    tuple(allowed[number :: self.count]),
                )
            )
            self._makers.append(maker)
            self._idle.put(maker)


_FOLDER = ".makers."


class _Maker:
    """One process, started again if it has ended."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._process: subprocess.Popen[bytes] | None = None
        self._over = False

    def make(self, job: Job) -> Told | None:
        try:
            said = self._said(job)
        except OSError:
            said = b""
        if not said:
            self._stop()
            return None
        return msgspec.json.decode(said, type=Told | None)

    def end(self) -> None:
        """For ever."""
        self._over = True
        self._stop()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _said(self, job: Job) -> bytes:
        if self._over:
            return b""
        if self._process is None:
            self._process = subprocess.Popen(
                python(__name__),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the search, which ends this
            )
            self._tell(self._process, self._plan)
        process = self._process
        self._tell(process, job)
        assert process.stdout is not None
        return process.stdout.readline()

    def _tell(self, process: subprocess.Popen[bytes], message: Plan | Job) -> None:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(message) + b"\n")
        process.stdin.flush()


def main() -> None:
    """Make what stdin says, until it ends."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # libraries print
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    jobs = SimpleQueue[bytes]()
    Thread(target=_read, args=[jobs], daemon=True).start()
    if plan.cores:
        os.sched_setaffinity(0, plan.cores)
    source, prefixes = read_bundle(Path(plan.source), verify=False), Prefixes(Path(plan.stages))
    feed = {name: np.load(file, mmap_mode="r").view(Datatype(kind).dtype) for name, (file, kind) in plan.arrays.items()}
    sample = Sample(feed, plan.rows, plan.batch, frozenset(plan.made))
    while True:
        job = msgspec.json.decode(jobs.get(), type=Job)
        out.write(msgspec.json.encode(_made(source, job, sample, prefixes)) + b"\n")


def _read(jobs: SimpleQueue[bytes]) -> None:
    """Hand over line after line; then the search is gone, and nobody waits for the form at hand."""
    for line in sys.stdin.buffer:
        jobs.put(line)
    os._exit(0)


def _made(source: Bundle, job: Job, sample: Sample, prefixes: Prefixes) -> Told | None:
    try:
        build_candidate(source, job.recipe, sample, Path(job.destination), prefixes)
    except NothingToDo as why:
        return Told(str(why))
    except (MemoryError, OSError):  # of the machine, and not of the form: whoever asked meets it, too
        return None
    except Exception as error:  # noqa: BLE001 (the libraries raise anything)
        return Told(one_line(error), failed=True)
    return Told()


def one_line(error: Exception) -> str:
    """What a library raised, as a reason."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


if __name__ == "__main__":
    main()
