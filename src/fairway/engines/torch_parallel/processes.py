"""The engine's side: it starts the ranks, gives them calls, and notices when one of them ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import msgspec

from fairway.core.errors import KINDS, InferenceFailed, WorkerFailed, rebuilt
from fairway.core.tensors import Tensor, Tensors, TensorSpec
from fairway.engines.torch_parallel.wire import Settings, Wire, put, take

_START_S = 900.0
_GRACE_S = 2.0


class Ranks:
    """A program on several processes of this machine.

    Parameters
    ----------
    settings : Settings
        Of rank 0; ``rank``, ``file`` and ``store`` are filled in.
    inputs, outputs : sequence of TensorSpec
    micro_batches : int
        How many parts a call's rows are computed in by a pipeline.

    Raises
    ------
    WorkerFailed
        If a process ends before it is ready. What a process cannot load is raised as it says.

    Notes
    -----
    One call at a time. After a process was lost the others are ended, and the next call starts them all again, from the file
    that was first read: it is held open, since a server's own copy of a bundle is off the disk once the model is loaded.
    """

    def __init__(
        self, settings: Settings, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], micro_batches: int = 1
    ) -> None:
        self._program = _Program(Path(settings.path))
        self._settings = msgspec.structs.replace(settings, file=self._program.descriptor)
        self._inputs, self._outputs = inputs, outputs
        self._micro_batches = micro_batches
        self._lock = threading.Lock()
        self._group: _Group | None = None
        try:
            self.bytes = self._start().bytes
        except BaseException:
            self._program.close()
            raise

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the processes that run now, by rank."""
        return tuple(worker.pid for worker in self._group.workers) if self._group is not None else ()

    def infer(self, feed: Tensors) -> Tensors:
        """Run once.

        Raises
        ------
        InferenceFailed
            If an operator raises.
        WorkerFailed
            If a process was lost, or has not answered in time, or the program was altered before they were started again.
        """
        given = [feed[spec.name] for spec in self._inputs]
        rows = {len(array) if array.ndim else 0 for array in given}
        chunks = max(1, min(self._micro_batches, *rows)) if len(rows) == 1 else 1
        with self._lock:
            group = self._group or self._start()
            try:
                made = group.call(
                    [(spec.datatype, array) for spec, array in zip(self._inputs, given, strict=True)], chunks
                )
            except WorkerFailed:
                self._end()
                raise
        return {spec.name: array for spec, array in zip(self._outputs, made, strict=True)}

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            self._end()
            self._program.close()

    def _start(self) -> _Group:
        self._program.check()
        self._group = group = _Group(self._settings)
        return group

    def _end(self) -> None:
        if self._group is not None:
            self._group.end()
            self._group = None


class _Program:
    """The file that ranks read, open for as long as they may be started again."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.close = weakref.finalize(self, os.close, self.descriptor)
        self._as_read = self._state()

    def check(self) -> None:
        """Raise :class:`WorkerFailed` if somebody wrote into the file."""
        if self._state() != self._as_read:
            raise WorkerFailed(
                f"{self._name} was altered while it was served, so its processes cannot be started again; load the model again"
            )

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self.descriptor)
        return found.st_size, found.st_mtime_ns


class _Group:
    """The processes of one start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.workers: list[subprocess.Popen[bytes]] = []
        self._wires: list[Wire] = []
        self._folder = tempfile.mkdtemp(prefix="fairway-ranks-")
        self.end = weakref.finalize(self, _end, self.workers, self._wires, self._folder)
        try:
            for rank in range(settings.ranks):
                self._spawn(rank)
            heads = [head for head, _ in self._answers(_START_S, "is not ready")]
        except BaseException:
            self.end()
            raise
        self.bytes = tuple(int(head["bytes"]) for head in heads)

    def _spawn(self, rank: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            limit = struct.pack(
                "ll", int(self._settings.timeout_s) + 1, 0
            )  # of one write: a stopped process reads nothing
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                ours.setsockopt(socket.SOL_SOCKET, option, limit)
            self._wires.append(Connection(ours.detach()))
            store = str(Path(self._folder) / "store")
            told = msgspec.json.encode(msgspec.structs.replace(self._settings, rank=rank, store=store)).decode()
            worker = subprocess.Popen(
                [sys.executable, "-P", "-m", "fairway.engines.torch_parallel.worker", str(theirs.fileno()), told],
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno(), self._settings.file],
                env=_environment(),
            )
        self.workers.append(worker)

    def call(self, given: Sequence[tuple[Any, Tensor]], chunks: int) -> list[Tensor]:
        """The outputs, of the one rank that answers with any."""
        try:
            for rank, wire in enumerate(self._wires):
                put(wire, {"chunks": chunks}, given if rank == 0 or self._settings.parallel == "tensor" else ())
        except OSError:
            raise self._lost(f"takes no call within {self._settings.timeout_s:g} s") from None
        answers = self._answers(self._settings.timeout_s, "has not answered")
        if errors := [head["error"] for head, _ in answers if "error" in head]:
            raise InferenceFailed(errors[0])
        return next(arrays for _, arrays in answers if arrays)

    def _answers(self, timeout_s: float, late: str) -> list[tuple[dict[str, Any], list[Tensor]]]:
        """One message of every rank."""
        until = time.monotonic() + timeout_s
        answers: dict[int, tuple[dict[str, Any], list[Tensor]]] = {}
        while len(answers) < len(self._wires):
            waiting = {wire: rank for rank, wire in enumerate(self._wires) if rank not in answers}
            ready = wait(list(waiting), max(0.0, until - time.monotonic()))
            if not ready:
                raise self._lost(f"{late} within {timeout_s:g} s", *waiting.values())
            for wire in ready:
                rank = waiting[wire]  # type: ignore[index] # wait gives back what it was given
                try:
                    head, arrays = take(wire)  # type: ignore[arg-type]
                except (EOFError, OSError):
                    raise self._lost("is gone", rank) from None
                if head.get("fatal"):
                    raise self._fatal(rank, head)
                answers[rank] = head, arrays
                if "error" in head:  # the others may wait for this rank
                    until = min(until, time.monotonic() + max(_GRACE_S, timeout_s / 10))
        return [answers[rank] for rank in sorted(answers)]

    def _fatal(self, rank: int, head: dict[str, Any]) -> Exception:
        """What a rank said as it ended: its own fault, or that another one is gone."""
        if "kind" in head:
            return rebuilt(KINDS[head["kind"]], head["error"])
        return self._lost(f"ended: {head['error']}", rank)

    def _lost(self, what: str, *ranks: int) -> WorkerFailed:
        """The error that names who was killed, if anybody was, rather than who noticed."""
        until = time.monotonic() + 0.5
        while time.monotonic() < until and not any(worker.poll() for worker in self.workers):
            time.sleep(0.01)
        for rank, worker in enumerate(self.workers):
            if code := worker.poll():
                ranks, what = (
                    (rank,),
                    f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}",
                )
                break
        who = " and ".join(f"rank {rank} (process {self.workers[rank].pid})" for rank in ranks) or "a rank"
        return WorkerFailed(
            f"{Path(self._settings.path).name} runs on {self._settings.ranks} processes, and {who} {what}; the next call "
            "starts them again. If it happens again, look into the log and at the machine's memory, or raise timeout_s "
            "in the engine's options"
        )


def _environment() -> dict[str, str]:
    """The variables of this process, with its module path; ranks listen on the loopback interface alone."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    loopback = {"GLOO_SOCKET_IFNAME": names[0], "NCCL_SOCKET_IFNAME": names[0]} if names else {}
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
    return {"TORCH_CPP_LOG_LEVEL": "ERROR"} | os.environ | loopback | {"PYTHONPATH": paths}


def _end(workers: list[subprocess.Popen[bytes]], wires: list[Wire], folder: str) -> None:
    for wire in wires:
        wire.close()
    for worker in workers:
        worker.kill()  # it holds nothing that has to be put away
    for worker in workers:
        worker.wait()
        if worker.stdin is not None:
            with suppress(OSError):
                worker.stdin.close()
    shutil.rmtree(folder, ignore_errors=True)
