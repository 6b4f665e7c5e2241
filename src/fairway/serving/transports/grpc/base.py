"""What the gRPC handlers and the HTTP/2 server that carries them owe each other.

Everything here happens on the event loop's thread. The server (the *carrier*) owns frames, headers, flow control, message
framing, compression, the limit on a message's size, and the answer to an unknown path (UNIMPLEMENTED). The handlers own
what the bytes of a message mean. One ``dict`` joins them: path, such as ``b"/inference.GRPCInferenceService/ModelInfer"``,
to a :class:`Unary` or a :class:`Streaming`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

from fairway.core.errors import FairwayError, ModelNotReady, Overloaded
from fairway.serving.status import wire

Metadata: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Trailing metadata: lower-case names (those of binary values end in ``-bin``, the value already in base64) and values."""

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
OUT_OF_RANGE = 11
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
DATA_LOSS = 15
UNAUTHENTICATED = 16
STATUS_NAMES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""By number."""


class Call(Protocol):
    """One call of one method. The carrier makes it, and hands it to the method's handler.

    Attributes
    ----------
    metadata : mapping of bytes to bytes
        The caller's headers without pseudo-headers, names in lower case. Lines of one name are joined by ``b","``.
    deadline_s : float or None
        Seconds from the call's arrival until its caller gives up (``grpc-timeout``); ``None`` is never, and 0 is now. For
        unary calls the *handler* keeps it: it answers DEADLINE_EXCEEDED on time, and the carrier has no timer. For streams
        the *carrier* keeps it: it cancels the handler's task and ends the stream with DEADLINE_EXCEEDED.
    peer : str
        The caller's address, for logs.
    on_cancel : callable or None
        ``None`` at first. A unary handler that leaves work behind sets it before it returns. The carrier calls it without
        arguments, at most once, if the caller resets the stream or its connection ends before the answer; never after
        :meth:`reply` or :meth:`fail`. It must not raise. Streams do not use it: the carrier cancels their task.
    """

    metadata: Mapping[bytes, bytes]
    deadline_s: float | None
    peer: str
    on_cancel: Callable[[], None] | None

    def reply(self, message: bytes) -> None:
        """Answer a unary call with ``message`` and status OK. Only the handler of a :class:`Unary` calls it, once.

        May be called while the handler still runs (before it returns), or at any later turn of the loop. After the caller has
        left it does nothing.
        """
        ...

    def fail(self, status: int, text: str, metadata: Metadata = ()) -> None:
        """Answer a unary call with a status other than OK, instead of :meth:`reply`, and under the same rules.

        ``text`` is for people and may hold any character: the carrier percent-encodes and shortens it. ``metadata`` goes into
        the trailers.
        """
        ...

    async def send(self, message: bytes) -> None:
        """Send one message of a stream's answer. Only the handler of a :class:`Streaming` calls it, one call at a time.

        Returns when the carrier has room for another message, so that a slow reader slows the handler. Raises
        ``asyncio.CancelledError`` if the caller has left.
        """
        ...


class Unary(msgspec.Struct, frozen=True):
    """A method with one message each way.

    Attributes
    ----------
    call : callable
        ``call(message, call)``: the carrier calls it once per call, with the whole uncompressed message, directly from the
        bytes' arrival: no task, no await. It returns soon and answers through ``call.reply`` or ``call.fail``, before or after
        it returns. It must not raise; if it does all the same, the carrier logs it and answers INTERNAL.
    """

    call: Callable[[bytes, Call], None]


class Streaming(msgspec.Struct, frozen=True):
    """A method with any number of messages each way (for server streams: one message in).

    Attributes
    ----------
    handler : async callable
        ``handler(messages, call)``: the carrier runs it in a task of its own. ``messages`` yields whole uncompressed messages
        and ends when the caller half-closes; the carrier takes no more from the socket (flow control) than a bounded number
        ahead of the handler. Returning ends the stream with OK; raising a :class:`~fairway.core.errors.FairwayError` ends it
        with :func:`failure`'s status; anything else raised is logged and ends it with INTERNAL, without a traceback. When the
        caller leaves, or its deadline passes, the carrier cancels the task.
    """

    handler: Callable[[AsyncIterator[bytes], Call], Awaitable[None]]


Method: TypeAlias = Unary | Streaming


class Failure(msgspec.Struct, frozen=True):
    """How an error ends a call: the arguments of :meth:`Call.fail`."""

    status: int
    text: str
    metadata: Metadata = ()


def failure(error: FairwayError) -> Failure:
    """The status, text and trailing metadata of an error.

    Examples
    --------
    >>> failure(Overloaded("too many", retry_after_s=2.0))
    Failure(status=8, text='too many', metadata=((b'retry-after', b'2'),))
    """
    status: int = globals()[wire(error).grpc]
    if isinstance(error, Overloaded):
        return Failure(status, str(error), ((b"retry-after", b"%d" % max(1, round(error.retry_after_s))),))
    if isinstance(error, ModelNotReady):
        return Failure(status, str(error), ((b"retry-after", b"1"),))
    return Failure(status, str(error))
