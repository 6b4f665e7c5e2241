"""One worker process, as the process that watches it sees it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import msgspec

from fairway.serving.channel import Channel, Failed, FromWorker, Lines, Start, ToWorker

_ids = count(1)


class Process:
    """A worker process and what is known of it.

    Parameters
    ----------
    command : sequence of str
        What starts it; its last argument will be a :class:`~fairway.serving.channel.Start`.
    start : Start
        All but its ``channel``.
    relay : callable
        Is told each line that the process writes to stderr until it is ready.

    Attributes
    ----------
    id : int
        Unlike ``slot``, no other's ever.
    loaded, serving, leaving : bool
        It can answer; it accepts connections; it was told to end.
    heard_at, served_at : float
        Monotonic seconds of the last sign of life, and of when it began to serve (0: not yet).
    last_line : str
        What it said last on stderr before it was ready.
    failed : Failed or None
        Why it ended, in its own words.
    kill_at : float or None
        When it is killed unless it has ended.
    """

    def __init__(self, command: Sequence[str], start: Start, relay: Callable[[str], None]) -> None:
        self.id = next(_ids)
        self.slot = start.slot
        self.loaded = self.joined = self.serving = self.leaving = False
        self.heard_at = time.monotonic()
        self.served_at = 0.0
        self.last_line = ""
        self.failed: Failed | None = None
        self.kill_at: float | None = None
        self._relay = relay
        self._lines = Lines()
        ours, theirs = socket.socketpair()
        said, says = os.pipe()
        os.set_blocking(said, False)
        self.stderr: int | None = said
        start = msgspec.structs.replace(start, channel=theirs.fileno())
        kept = [start.channel, start.stderr, start.lock, *(fd for each in start.sockets.values() for fd in each)]
        try:
            self._popen = subprocess.Popen(
                [*command, msgspec.json.encode(start).decode()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=says,
                pass_fds=kept,
                process_group=0,  # Ctrl-C is for the process that watches
            )
        except BaseException:
            ours.close()
            os.close(said)
            raise
        finally:
            theirs.close()
            os.close(says)
        self.channel = Channel(ours)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def send(self, message: ToWorker) -> None:
        """Tell it something; it may be gone."""
        self.channel.send(message)

    def receive(self) -> list[FromWorker]:
        """What it said since the last call."""
        received = self.channel.receive()
        if received:
            self.heard_at = time.monotonic()
        return received

    def relay(self) -> None:
        """Pass on what it wrote to stderr."""
        while self.stderr is not None:
            try:
                data = os.read(self.stderr, 1 << 16)
            except BlockingIOError:
                return
            for each in self._lines.feed(data) if data else [self._lines.rest]:
                if each.strip():
                    self.last_line = each.decode(errors="replace")
                    self._relay(self.last_line)
            if not data:
                os.close(self.stderr)
                self.stderr = None

    def terminate(self) -> None:
        """SIGTERM."""
        self._popen.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self._popen.kill()

    def ended(self) -> bool:
        """Whether it has ended."""
        return self._popen.poll() is not None

    def how(self) -> str:
        """How it ended, for people."""
        code = self._popen.returncode
        if code is not None and code < 0:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        return f"exit code {code}"

    @property
    def said(self) -> str:
        """What it said last before it was ready: its log line's message, or whatever it is."""
        try:
            line = msgspec.json.decode(self.last_line, type=_LogLine)
        except msgspec.MsgspecError:
            return self.last_line
        return ": ".join(part for part in (line.message, line.reason or line.error.get("message", "")) if part)

    def reason(self) -> str:
        """Why it ended, as far as it said."""
        return self.failed.message if self.failed is not None else "" if self.serving else self.said

    def about(self, **more: Any) -> dict[str, Any]:
        """What a log line says of it."""
        return {"worker": self.slot, "worker_pid": self.pid, **more}

    def close(self) -> None:
        """Free its descriptors, once it has ended."""
        self.channel.close()
        if self.stderr is not None:
            os.close(self.stderr)
            self.stderr = None


class _LogLine(msgspec.Struct):
    message: str
    reason: str = ""
    error: dict[str, Any] = {}
