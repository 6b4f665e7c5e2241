"""Start the servers to be measured, each pinned to one core, and know what CPU time and memory they use."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil

PATIENCE_S = 60
_QUIET = {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1"}


class Ports(msgspec.Struct, frozen=True):
    """Where a server answers."""

    port: int
    grpc_port: int
    metrics_port: int


class Running:
    """A started server: all of its processes."""

    def __init__(self, process: psutil.Process, ports: Ports) -> None:
        self._process = process
        self.ports = ports

    def cpu_s(self) -> float:
        """CPU time used so far, user and system, by those of its processes that live."""
        times = [process.cpu_times() for process in self._alive()]
        return float(sum(t.user + t.system for t in times))

    def rss_mb(self) -> float:
        """Resident memory, in 10^6 bytes; pages that processes share are counted for each."""
        return float(sum(process.memory_info().rss for process in self._alive())) / 1e6

    def _alive(self) -> Iterator[psutil.Process]:
        for process in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.cpu_times()
                yield process


class NotStarted(Exception):
    """Why a server could not be measured."""


@contextlib.contextmanager
def started(
    command: Callable[[Ports], list[str]], folder: Path, core: int, ready: Callable[[Ports], str]
) -> Iterator[Running]:
    """The server on ``core``; ``ready`` says what is still wrong with its answers. Its whole process group ends on exit."""
    folder.mkdir(exist_ok=True)
    ports = Ports(*_free_ports(3))
    log = folder / "log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            ["taskset", "-c", str(core), *command(ports)],
            cwd=folder, stdout=output, stderr=output, env=os.environ | _QUIET, start_new_session=True,
        )  # fmt: skip
    try:
        _await(child, log, lambda: ready(ports))
        yield Running(psutil.Process(child.pid), ports)
    finally:
        _end(child)


def _await(child: subprocess.Popen[bytes], log: Path, wrong: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    reason = "no answer"
    while child.poll() is None:
        reason = wrong()
        if not reason:
            return
        if time.monotonic() > deadline:
            raise NotStarted(f"not ready after {PATIENCE_S} s: {reason}{_end_of(log)}")
        time.sleep(0.05)
    raise NotStarted(f"it ended with exit code {child.returncode}{_end_of(log)}")


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"; its last words: {lines[-1][:200]}" if lines else ""


def _end(child: subprocess.Popen[bytes]) -> None:
    """Twice SIGTERM: Fairway then does not wait for load balancers to take notice. Then whatever is left of its processes."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(child.pid).children(recursive=True)  # some are in sessions of their own
    for number, patience_s in ((signal.SIGTERM, 0.2), (signal.SIGTERM, 5), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience_s)
            break
    _, alive = psutil.wait_procs(family, 0.5)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
