"""What the handlers of inference owe their carrier, and their callers when things go wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fairway.core.errors import FairwayError, InferenceFailed, InvalidRequest, ModelNotReady, Overloaded
from fairway.core.messages import InferRequest, InferResponse
from fairway.serving.inference import InferenceCore, Outcome
from fairway.serving.logs import _Formatter
from fairway.serving.transports.grpc import base, messages
from fairway.serving.transports.grpc.accesslog import logged
from fairway.serving.transports.grpc.infer import IN_FLIGHT, Infer

REQUEST = messages.message("inference.ModelInferRequest")
RESPONSE = messages.message("inference.ModelInferResponse")
STREAMED = messages.message("inference.ModelStreamInferResponse")


class Ticket:
    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


class Core:
    """Holds every request until the test answers it."""

    tracer = None

    def __init__(self) -> None:
        self.telemetry = SimpleNamespace(rejected=Counter())
        self.open: list[tuple[InferRequest, Callable[[Outcome], None], Ticket]] = []
        self.refuse: FairwayError | None = None

    def submit(self, request: InferRequest, done: Callable[[Outcome], None], *_: object) -> Ticket | None:
        if self.refuse is not None:
            done(self.refuse)
            return None
        ticket = Ticket()
        self.open.append((request, done, ticket))
        return ticket

    def answer(self, place: int, outcome: FairwayError | None = None) -> None:
        request, done, _ = self.open[place]
        done(outcome or InferResponse(request.model, "1", request.inputs, request.id))


class Call:
    def __init__(self, deadline_s: float | None = None, metadata: Mapping[bytes, bytes] | None = None) -> None:
        self.metadata: Mapping[bytes, bytes] = metadata or {}
        self.deadline_s = deadline_s
        self.peer = "peer"
        self.on_cancel: Callable[[], None] | None = None
        self.said: list[bytes | base.Failure] = []
        self.room = asyncio.Event()
        self.room.set()

    def reply(self, message: bytes) -> None:
        self.said.append(message)

    def fail(self, status: int, text: str, metadata: base.Metadata = ()) -> None:
        self.said.append(base.Failure(status, text, metadata))

    async def send(self, message: bytes) -> None:
        await self.room.wait()
        self.said.append(message)

    @property
    def failure(self) -> base.Failure:
        (said,) = self.said
        assert isinstance(said, base.Failure)
        return said

    def streamed(self) -> list[Any]:
        return [STREAMED.FromString(said) for said in self.said]


def message(identity: str = "", size: int = 1, **parameters: dict[str, Any]) -> bytes:
    request = REQUEST(model_name="m", id=identity, raw_input_contents=[bytes(4 * size)], parameters=parameters)
    request.inputs.add(name="x", datatype="FP32", shape=[size])
    data: bytes = request.SerializeToString()
    return data


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def infer(core: Core) -> Infer:
    return Infer(cast(InferenceCore, core))


# -- one request


def test_a_request_is_answered_when_the_core_answers(core: Core, infer: Infer) -> None:
    call = Call()
    infer.unary(message("7"), call)
    assert not call.said
    core.answer(0)
    (said,) = call.said
    assert RESPONSE.FromString(said).id == "7"


async def test_a_caller_who_leaves_frees_its_request(core: Core, infer: Infer) -> None:
    call = Call()
    infer.unary(message(), call)
    assert call.on_cancel is not None
    call.on_cancel()
    assert core.open[0][2].cancelled == 1


async def test_the_calls_deadline_is_the_requests_timeout(core: Core, infer: Infer) -> None:
    infer.unary(message(), Call(deadline_s=0.25))
    infer.unary(message(), Call())
    assert [request.parameters for request, _, _ in core.open] == [{"timeout": 250_000}, {}]


async def test_a_deadline_that_has_passed_is_answered_without_asking_the_core(core: Core, infer: Infer) -> None:
    call = Call(deadline_s=0)
    infer.unary(message(), call)
    assert call.failure.status == base.DEADLINE_EXCEEDED
    assert not core.open


async def test_the_route_key_comes_from_the_metadata(core: Core, infer: Infer) -> None:
    infer.unary(message(), Call(metadata={b"fairway-route-key": b"anna"}))
    assert core.open[0][0].route_key == "anna"


@pytest.mark.parametrize(
    ("error", "status", "metadata"),
    [
        (Overloaded("full", retry_after_s=3), base.RESOURCE_EXHAUSTED, ((b"retry-after", b"3"),)),
        (ModelNotReady("loading"), base.UNAVAILABLE, ((b"retry-after", b"1"),)),
        (InferenceFailed("the model failed"), base.INTERNAL, ()),
    ],
)
async def test_refusals_and_failures_have_their_status(
    core: Core, infer: Infer, error: FairwayError, status: int, metadata: base.Metadata
) -> None:
    refused, failed = Call(), Call()
    core.refuse = error
    infer.unary(message(), refused)
    core.refuse = None
    infer.unary(message(), failed)
    core.answer(0, error)
    assert refused.failure == failed.failure == base.Failure(status, str(error), metadata)


async def test_what_cannot_be_decoded_is_counted_as_rejected(core: Core, infer: Infer) -> None:
    infer.unary(b"\xff", Call())
    assert core.telemetry.rejected == {"invalid_request": 1}


async def test_a_fault_of_ours_is_logged_and_told_without_a_traceback(
    core: Core, infer: Infer, caplog: pytest.LogCaptureFixture
) -> None:
    call = Call()
    infer.unary(message(), call)
    with caplog.at_level(logging.ERROR):
        core.open[0][1](InferResponse("m", "1", {"y": cast(Any, "no array")}))
    assert call.failure == base.Failure(base.INTERNAL, "the server failed on this request; its log says why")
    assert "answer_not_encoded" in caplog.text


async def test_every_call_is_a_line_in_the_access_log(
    core: Core, infer: Infer, caplog: pytest.LogCaptureFixture
) -> None:
    methods = logged({b"/s/Unary": base.Unary(infer.unary), b"/s/Stream": base.Streaming(infer.stream)})
    unary, stream = methods[b"/s/Unary"], methods[b"/s/Stream"]
    assert isinstance(unary, base.Unary)
    assert isinstance(stream, base.Streaming)
    call = Call()
    with caplog.at_level(logging.INFO, "fairway.access"):
        unary.call(message(), call)
        assert call.on_cancel is not None, "leaving still frees the request"
        assert not caplog.records
        core.answer(0)
        unary.call(b"\xff", Call())
        await stream.handler(read(Sent()), Call())
    said = [(record.__dict__["url.path"], record.__dict__["rpc.grpc.status_code"]) for record in caplog.records]
    assert said == [("/s/Unary", base.OK), ("/s/Unary", base.INVALID_ARGUMENT), ("/s/Stream", base.OK)]
    line = json.loads(_Formatter(logging.Formatter()).format(caplog.records[1]))
    assert line["rpc"] == {"grpc": {"status_code": base.INVALID_ARGUMENT}}


# -- streams


class Sent:
    """A stream's messages, and how many were taken."""

    def __init__(self, *sent: bytes, ends: bool = True) -> None:
        self.sent, self.ends, self.taken = sent, ends, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for each in self.sent:
            self.taken += 1
            yield each
        if not self.ends:
            await asyncio.Event().wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


def read(sent: Sent) -> AsyncIterator[bytes]:
    return sent.__aiter__()


async def test_answers_of_a_stream_come_in_the_order_of_its_requests(core: Core, infer: Infer) -> None:
    call = Call()
    running = asyncio.create_task(infer.stream(read(Sent(*(message(str(n)) for n in range(3)))), call))
    await until(lambda: len(core.open) == 3)
    for place in (2, 0, 1):
        core.answer(place)
    await running
    answers = [answer.infer_response for answer in call.streamed()]
    assert [answer.id for answer in answers] == ["0", "1", "2"]
    assert all(answer.parameters["triton_final_response"].bool_param for answer in answers)


async def test_an_error_is_told_with_its_id_and_the_stream_goes_on(core: Core, infer: Infer) -> None:
    call = Call()
    wrong = REQUEST(model_name="m", id="wrong").SerializeToString()
    running = asyncio.create_task(infer.stream(read(Sent(message("a"), wrong, message("b"), message("c"))), call))
    await until(lambda: len(core.open) == 3)
    core.answer(0)
    core.answer(1, InferenceFailed("the model failed"))
    core.answer(2)
    await running
    told = [(answer.infer_response.id, answer.error_message) for answer in call.streamed()]
    assert [identity for identity, _ in told] == ["a", "wrong", "b", "c"]
    assert [bool(error) for _, error in told] == [False, True, True, False]
    assert "'inputs' is empty" in told[1][1]
    assert told[2][1] == "the model failed"


async def test_a_stream_may_ask_for_errors_to_end_it(core: Core, infer: Infer) -> None:
    call = Call(metadata={b"triton_grpc_error": b"true"})
    sent = Sent(message("a"), message("b"), ends=False)
    running = asyncio.create_task(infer.stream(read(sent), call))
    await until(lambda: len(core.open) == 2)
    core.answer(0, Overloaded("full"))
    with pytest.raises(Overloaded):
        await running
    assert core.open[1][2].cancelled == 1


async def test_a_stream_takes_no_more_requests_than_it_has_room_for(core: Core, infer: Infer) -> None:
    call = Call()
    sent = Sent(*[message()] * (3 * IN_FLIGHT))
    running = asyncio.create_task(infer.stream(read(sent), call))
    for _ in range(20 * IN_FLIGHT):
        await asyncio.sleep(0)
    assert len(core.open) <= IN_FLIGHT + 2
    answered = 0
    while answered < 3 * IN_FLIGHT:
        await until(lambda: len(core.open) > answered)  # noqa: B023 (asked at once)
        core.answer(answered)
        answered += 1
    await running
    assert len(call.said) == 3 * IN_FLIGHT


async def test_a_caller_who_leaves_its_stream_frees_what_is_in_flight(core: Core, infer: Infer) -> None:
    running = asyncio.create_task(infer.stream(read(Sent(*[message()] * 5, ends=False)), Call()))
    await until(lambda: len(core.open) == 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [ticket.cancelled for _, _, ticket in core.open] == [1] * 5


async def test_a_slow_reader_slows_its_stream(core: Core, infer: Infer) -> None:
    call = Call()
    call.room.clear()
    running = asyncio.create_task(infer.stream(read(Sent(*[message()] * (3 * IN_FLIGHT))), call))
    for turn in range(20 * IN_FLIGHT):
        if turn < len(core.open):
            core.answer(turn)
        await asyncio.sleep(0)
    assert len(core.open) <= IN_FLIGHT + 2
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_what_breaks_off_the_messages_ends_the_stream(core: Core, infer: Infer) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield message("a")
        raise InvalidRequest("too long a message")

    call = Call()
    running = asyncio.create_task(infer.stream(broken(), call))
    await until(lambda: len(core.open) == 1)
    core.answer(0)
    with pytest.raises(InvalidRequest, match="too long"):
        await running
    assert [answer.infer_response.id for answer in call.streamed()] == ["a"]


def test_every_tensor_of_an_answer_is_raw(core: Core, infer: Infer) -> None:
    call = Call()
    infer.unary(message(size=3), call)
    core.answer(0)
    (said,) = call.said
    assert np.frombuffer(RESPONSE.FromString(said).raw_output_contents[0], np.float32).tolist() == [0, 0, 0]
