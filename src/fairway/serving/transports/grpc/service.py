"""Every gRPC method of the server by its path, for whatever carries them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.json_format import ParseDict

from fairway.core.errors import DeadlineExceeded, FairwayError, ModelNotFound, ModelNotReady
from fairway.serving.inference import InferenceCore
from fairway.serving.management import Management
from fairway.serving.routing import normal_version
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.transports.grpc import messages
from fairway.serving.transports.grpc.base import UNIMPLEMENTED, Call, Method, Streaming, Unary
from fairway.serving.transports.grpc.health import Health
from fairway.serving.transports.grpc.infer import Infer, bug, fail
from fairway.serving.transports.grpc.reflection import Reflection

log = logging.getLogger(__name__)

_NO_CUDA = "this server registers no CUDA shared memory; send the data itself, or register system shared memory"


class GrpcService:
    """The handlers of every method.

    Parameters
    ----------
    core : InferenceCore
    management : Management
    shared_memory : SharedMemory or None
        ``None``: requests that use it are refused.

    Attributes
    ----------
    methods : dict of bytes to Unary or Streaming
        By path, such as ``b"/inference.GRPCInferenceService/ModelInfer"``.
    """

    def __init__(self, core: InferenceCore, management: Management, shared_memory: SharedMemory | None = None) -> None:
        self._infer = infer = Infer(core, shared_memory)
        self._health = health = Health(management.server_ready)
        made: dict[bytes, Method] = {
            _path(messages.INFERENCE, "ModelInfer"): Unary(infer.unary),
            _path(messages.INFERENCE, "ModelStreamInfer"): Streaming(infer.stream),
            _path(messages.INFERENCE, "CudaSharedMemoryRegister"): Unary(_no_cuda),
            _path(messages.HEALTH, "Check"): Unary(health.check),
            _path(messages.HEALTH, "Watch"): Streaming(health.watch),
        }
        known = messages.service_methods(messages.INFERENCE)
        for name, handler in _Managed(management).handlers().items():
            made[_path(messages.INFERENCE, name)] = Unary(_Answering(*known[name], handler).unary)
        for name in ("Status", "Unregister"):  # clients' programs begin by unregistering all there is
            made[_path(messages.INFERENCE, f"CudaSharedMemory{name}")] = Unary(_nothing)
        self._reflections = [(service, Reflection(service)) for service in messages.REFLECTIONS]
        for service, reflection in self._reflections:
            made[_path(service, "ServerReflectionInfo")] = Streaming(reflection.stream)
        self.methods = made

    def finish(self) -> None:
        """The server stops: end streams, which would otherwise go on for ever, when what they have taken is answered."""
        self._infer.finish()
        self._health.finish()
        for _, reflection in self._reflections:
            reflection.finish()


def _path(service: str, method: str) -> bytes:
    return f"/{service}/{method}".encode()


class _Managed:
    """What is not inference: requests as messages in, answers as dicts out."""

    def __init__(self, management: Management) -> None:
        self._management = management

    def handlers(self) -> Mapping[str, Callable[[Any], Any]]:
        """By method; those that return an awaitable take their time."""
        manage = self._management
        return {
            "ServerLive": lambda _: {"live": True},
            "ServerReady": lambda _: {"ready": manage.server_ready()},
            "ModelReady": lambda asked: {"ready": self._model_ready(asked)},
            "ServerMetadata": lambda _: manage.server_metadata(),
            "ModelMetadata": lambda asked: manage.model_metadata(asked.name, _version(asked)),
            "ModelConfig": lambda asked: {"config": manage.model_config(asked.name, _version(asked))},
            "ModelStatistics": lambda asked: manage.joined_statistics(asked.name, _version(asked)),
            "RepositoryIndex": lambda asked: {"models": manage.index(asked.ready)},
            "RepositoryModelLoad": lambda asked: manage.load(asked.model_name, _chosen(asked.parameters)),
            "RepositoryModelUnload": lambda asked: manage.unload(
                asked.model_name, bool(_chosen(asked.parameters).get("unload_dependents", False))
            ),
            "SystemSharedMemoryStatus": self._memory,
            "SystemSharedMemoryRegister": lambda asked: manage.register_shared_memory(
                asked.name, asked.key, asked.offset, asked.byte_size
            ),
            "SystemSharedMemoryUnregister": lambda asked: manage.unregister_shared_memory(asked.name or None),
            "TraceSetting": self._trace,
            "LogSettings": self._log,
        }

    def _model_ready(self, asked: Any) -> bool:
        """Not ready is an answer here, and so is unknown."""
        try:
            return self._management.model_ready(asked.name, _version(asked))
        except (ModelNotFound, ModelNotReady):
            return False

    def _memory(self, asked: Any) -> dict[str, Any]:
        return {
            "regions": {region["name"]: region for region in self._management.shared_memory_status(asked.name or None)}
        }

    async def _trace(self, asked: Any) -> dict[str, Any]:
        """A setting without values goes back to its default."""
        update = {name: list(setting.value) or None for name, setting in asked.settings.items()}
        settings = await self._management.trace_setting(asked.model_name or None, update or None)
        return {
            "settings": {
                name: {"value": value if isinstance(value, list) else [str(value)]} for name, value in settings.items()
            }
        }

    async def _log(self, asked: Any) -> dict[str, Any]:
        settings = await self._management.log_settings(_chosen(asked.settings) or None)
        return {"settings": {name: {_LOG_KINDS[type(value)]: value} for name, value in settings.items()}}


_LOG_KINDS: Mapping[type, str] = {bool: "bool_param", int: "uint32_param", str: "string_param"}


def _version(asked: Any) -> str | None:
    return normal_version(asked.version) or None


def _chosen(parameters: Any) -> dict[str, Any]:
    """Each parameter's value, whichever kind it is; one without is left out."""
    kinds = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], kind) for name, kind in kinds.items() if kind is not None}


class _Answering:
    """A handler of messages as one of bytes."""

    def __init__(self, asked: Any, answered: Any, handler: Callable[[Any], Any]) -> None:
        self._asked = asked
        self._answered = answered
        self._handler = handler
        self._running: set[asyncio.Task[None]] = set()

    def unary(self, message: bytes, call: Call) -> None:
        """Answer, now or in a task. A task goes on if its caller leaves: what it changes is changed as a whole."""
        try:
            answer = self._handler(messages.parse(self._asked, message))
        except FairwayError as error:
            fail(call, error)
            return
        if not isinstance(answer, Awaitable):
            self._reply(call, answer)
            return
        task = asyncio.get_running_loop().create_task(self._later(answer, call))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _later(self, answer: Awaitable[Any], call: Call) -> None:
        """Answer when it is done, or when the caller's time is up; it is brought to its end all the same."""
        working = asyncio.ensure_future(answer)
        try:
            async with asyncio.timeout(call.deadline_s):
                self._reply(call, await asyncio.shield(working))
        except TimeoutError:
            fail(
                call,
                DeadlineExceeded("the call's deadline passed; what it asked for goes on, and its result will show"),
            )
            await asyncio.wait([working])
        except FairwayError as error:
            fail(call, error)
        except Exception:
            log.exception("call_failed")
            fail(call, bug())

    def _reply(self, call: Call, answer: dict[str, Any] | None) -> None:
        filled = ParseDict(answer or {}, self._answered(), ignore_unknown_fields=True)
        call.reply(filled.SerializeToString())


def _nothing(message: bytes, call: Call) -> None:  # noqa: ARG001 (every message asks the same)
    call.reply(b"")


def _no_cuda(message: bytes, call: Call) -> None:  # noqa: ARG001
    call.fail(UNIMPLEMENTED, _NO_CUDA)
