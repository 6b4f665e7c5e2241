"""What a server's workers and the process that watches them say to each other: JSON lines over a socket pair."""

from __future__ import annotations

import socket
from typing import TypeAlias

import msgspec

from fairway.serving.control import Change
from fairway.serving.shared_metrics import Counts


class Start(msgspec.Struct, frozen=True):
    """A worker's first message, as its argument.

    Attributes
    ----------
    slot : int
        Which of the listening sockets is its own.
    workers : int
        How many there are.
    channel, stderr : int
        File descriptors: to the watching process, and where logs go once the worker is ready.
    lock : int
        File descriptor to lock while a block of log lines is written, so that lines stay whole.
    sockets : dict
        By what is spoken (``rest``): the listening sockets' file descriptors, one per slot.
    early : bool
        Listen before anything is loaded, as the whole server starts; a later worker listens once it can answer.
    spec : msgspec.Raw
        What to serve.
    """

    slot: int
    workers: int
    channel: int
    stderr: int
    lock: int
    sockets: dict[str, list[int]]
    early: bool
    spec: msgspec.Raw


class _Message(msgspec.Struct, frozen=True, tag=True, tag_field="is"):
    pass


class Loaded(_Message, frozen=True):
    """A worker can answer. ``threads``: of its most demanding model's engine call (0: every core)."""

    threads: int


class Serving(_Message, frozen=True):
    """A worker accepts connections on its socket, and says that it is ready."""


class Failed(_Message, frozen=True):
    """A worker ends because of an error."""

    code: str
    message: str


class Asked(_Message, frozen=True):
    """Somebody sent this worker SIGTERM."""


class Beat(_Message, frozen=True):
    """A sign of life, with all counts so far."""

    counts: Counts


class Scrape(_Message, frozen=True):
    """A worker wants everybody's counts; here are its own."""

    number: int
    counts: Counts


class Counted(_Message, frozen=True):
    """The answer to :class:`Count`."""

    counts: Counts


class Ask(_Message, frozen=True):
    """A caller of this worker wants a change on all of them."""

    number: int
    change: Change


class MadeReady(_Message, frozen=True):
    """A :class:`Make` can go live here."""

    id: int


class Made(_Message, frozen=True):
    """A :class:`Make` is done, or (with a ``code``) could not be."""

    id: int
    code: str = ""
    message: str = ""


class CaughtUp(_Message, frozen=True):
    """A new worker is like the others, but for regions of shared memory that are gone."""

    lost: tuple[str, ...] = ()


class Go(_Message, frozen=True):
    """Be ready: whoever must be able to answer now can."""


class Cover(_Message, frozen=True):
    """Accept connections of another slot too: its worker died."""

    slot: int


class Uncover(_Message, frozen=True):
    """Leave that slot to its new worker."""

    slot: int


class Stop(_Message, frozen=True):
    """Drain and end, not ready at once but serving for ``delay_s`` more. Again: stop waiting."""

    delay_s: float


class Retire(_Message, frozen=True):
    """Another worker has taken over: accept nothing more, answer what is connected for ``delay_s`` at most, and end."""

    delay_s: float


class Count(_Message, frozen=True):
    """Tell your counts."""


class Sum(_Message, frozen=True):
    """Everybody's counts, for a :class:`Scrape`."""

    number: int
    counts: Counts


class Make(_Message, frozen=True):
    """Make a change ready, say so, and wait for :class:`Settle`."""

    id: int
    change: Change


class Settle(_Message, frozen=True):
    """All have made it ready: go live with it. Not ``go``: one could not, so undo it."""

    id: int
    go: bool


class CatchUp(_Message, frozen=True):
    """What was changed before this worker started."""

    changes: tuple[Change, ...]


class Outcome(_Message, frozen=True):
    """Of an :class:`Ask`: all have made it, or (with a ``code``) none has."""

    number: int
    code: str = ""
    message: str = ""


FromWorker: TypeAlias = Loaded | Serving | Failed | Asked | Beat | Scrape | Counted | Ask | MadeReady | Made | CaughtUp
ToWorker: TypeAlias = Go | Cover | Uncover | Stop | Retire | Count | Sum | Make | Settle | CatchUp | Outcome

from_worker = msgspec.json.Decoder(FromWorker)
to_worker = msgspec.json.Decoder(ToWorker)
_encoder = msgspec.json.Encoder()


def line(message: FromWorker | ToWorker) -> bytes:
    """A message as it is sent."""
    return _encoder.encode(message) + b"\n"


class Lines:
    """Cuts what arrives into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their ends. What came before is not read again: a line may be a model."""
        first, *more = data.split(b"\n")
        self._rest += first
        if not more:
            return []
        whole = [bytes(self._rest), *more[:-1]]
        self._rest = bytearray(more[-1])
        return whole

    @property
    def rest(self) -> bytes:
        """A line without its end."""
        return bytes(self._rest)


class Channel:
    """The watching process's end of a pair: it never waits for a worker that does not read.

    Parameters
    ----------
    end : socket.socket

    Attributes
    ----------
    closed : bool
        The worker closed its end, and everything that it said was received.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.end = end
        self.closed = False
        self._unsent = bytearray()
        self._lines = Lines()

    def send(self, message: ToWorker) -> None:
        """Send now, or as soon as there is room; to somebody who left, nothing."""
        self._unsent += line(message)
        self.flush()

    def flush(self) -> None:
        """Send what is left."""
        try:
            while self._unsent:
                del self._unsent[: self.end.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()

    def receive(self) -> list[FromWorker]:
        """What has arrived."""
        received: list[FromWorker] = []
        while not self.closed:
            try:
                data = self.end.recv(1 << 18)
            except BlockingIOError:
                return received
            except OSError:
                data = b""
            if not data:
                self.closed = True
                return received
            received += [from_worker.decode(each) for each in self._lines.feed(data)]
        return received

    def close(self) -> None:
        """Close this end."""
        self.end.close()
