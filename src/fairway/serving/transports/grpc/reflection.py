"""gRPC's server reflection: ``grpcurl`` and its like learn from it what can be called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf import descriptor_pb2

from fairway.serving.transports.grpc import messages
from fairway.serving.transports.grpc.base import INVALID_ARGUMENT, NOT_FOUND, Call
from fairway.serving.transports.grpc.infer import stopping

_SERVICES = (messages.INFERENCE, messages.HEALTH, *messages.REFLECTIONS)


class Reflection:
    """The handler of one version of the reflection service.

    Parameters
    ----------
    service : str
        Its full name: the versions differ in nothing else.
    """

    def __init__(self, service: str) -> None:
        (_, (self._asked, self._answered)), *_ = messages.service_methods(service).items()
        self._open: set[asyncio.Task[Any]] = set()
        self._finished = False

    async def stream(self, incoming: AsyncIterator[bytes], call: Call) -> None:
        """``ServerReflectionInfo``: one answer per question."""
        if self._finished:
            raise stopping()
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            async for message in incoming:
                await call.send(self._answer(messages.parse(self._asked, message)).SerializeToString())
        except asyncio.CancelledError:
            if self._finished:
                raise stopping() from None
            raise
        finally:
            self._open.discard(task)

    def finish(self) -> None:
        """End all streams: a tool keeps its own for as long as it is open."""
        self._finished = True
        for task in self._open:
            task.cancel()

    def _answer(self, asked: Any) -> Any:
        answer = self._answered(valid_host=asked.host, original_request=asked)
        kind = asked.WhichOneof("message_request")
        try:
            if kind == "list_services":
                for service in _SERVICES:
                    answer.list_services_response.service.add(name=service)
            elif kind == "file_by_filename":
                self._give(answer, messages.pool().FindFileByName(asked.file_by_filename))
            elif kind == "file_containing_symbol":
                self._give(answer, messages.pool().FindFileContainingSymbol(asked.file_containing_symbol))
            elif kind == "all_extension_numbers_of_type":
                found = messages.pool().FindMessageTypeByName(asked.all_extension_numbers_of_type)
                answer.all_extension_numbers_response.base_type_name = found.full_name
            else:  # there are no extensions
                self._refuse(answer, NOT_FOUND if kind else INVALID_ARGUMENT, "nothing of that kind is defined here")
        except KeyError:
            self._refuse(answer, NOT_FOUND, "nothing of that name is defined here")
        return answer

    def _give(self, answer: Any, file: Any) -> None:
        """A file and all that it imports, each once."""
        waiting, given = [file], set()
        while waiting:
            found = waiting.pop(0)
            if found.name in given:
                continue
            given.add(found.name)
            content = descriptor_pb2.FileDescriptorProto()
            found.CopyToProto(content)
            answer.file_descriptor_response.file_descriptor_proto.append(content.SerializeToString())
            waiting.extend(found.dependencies)

    def _refuse(self, answer: Any, code: int, text: str) -> None:
        answer.error_response.error_code = code
        answer.error_response.error_message = text
