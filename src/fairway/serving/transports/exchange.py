"""One infer request of a connection, and its answer."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from fairway.core.errors import FairwayError
from fairway.serving.inference import Outcome
from fairway.serving.queues import Cancellable
from fairway.serving.tracer import Trace
from fairway.serving.transports.heads import Head
from fairway.serving.transports.v2 import Reply


class Answers(Protocol):
    """Whoever writes answers."""

    def answer(self, exchange: Exchange, outcome: Outcome) -> None:
        """Encode and write."""
        ...


class _NoEvent:
    """Uvicorn wakes its cycles by an event; an exchange needs none."""

    def set(self) -> None:
        """Do nothing."""


_NO_EVENT = _NoEvent()


class Exchange(msgspec.Struct, eq=False):
    """One infer request and its answer; has the attributes that uvicorn's protocol reads of a cycle."""

    protocol: Answers
    head: Head
    keep_alive: bool
    body: bytes | bytearray = b""
    more_body: bool = True
    current: bool = False
    expect_continue: bool = False
    refused: FairwayError | None = None
    status: int = 0  # of the refusal, where it is not the one of its error
    response_complete: bool = False
    disconnected: bool = False
    message_event: _NoEvent = _NO_EVENT
    ticket: Cancellable | asyncio.Future[bytes] | None = None
    inflated: bool = False
    reply: Reply | None = None  # how the answer is wanted, if not as plain JSON
    parent: bytes | None = None  # its traceparent, if the head was found without
    trace: Trace | None = None
    arrived: int = 0  # on the counter of nanoseconds, where somebody wants to know

    def answered(self, outcome: Outcome) -> None:
        """The core answers."""
        self.protocol.answer(self, outcome)


class BadHead(Exception):
    """A request whose head is refused."""

    def __init__(self, error: FairwayError, status: int = 0) -> None:
        super().__init__(str(error))
        self.error = error
        self.status = status
