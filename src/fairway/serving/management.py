"""All of the Open Inference Protocol but inference, whatever the wire: metadata, statistics, models, settings, memory.

Answers are plain dicts with the protocol's field names, which are those of its gRPC messages too.
"""

from __future__ import annotations

import base64
import binascii
import copy
import importlib.metadata
from typing import TYPE_CHECKING, Any

import msgspec

from fairway.core.errors import InvalidBundle, InvalidRequest, NotEnabled
from fairway.serving.control import Agreed, Change, Everywhere, alone
from fairway.serving.log_settings import LogSettings
from fairway.serving.model_config import PLATFORMS, config_of, metadata_of
from fairway.serving.models import Models
from fairway.serving.served import Description, State
from fairway.serving.settings import ServeSettings
from fairway.serving.shared_statistics import joined
from fairway.serving.statistics import statistics_of
from fairway.serving.telemetry import Telemetry, VersionStats
from fairway.serving.tracing import TraceSettings

if TYPE_CHECKING:
    from fairway.serving.shared_memory import SharedMemory

__all__ = ["PLATFORMS", "Management"]

EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)
_FILE = "file:"
_MAX_FILES = 10_000


class Management:
    """Answers what is not inference. For the event loop's thread only.

    Parameters
    ----------
    models : Models
    telemetry : Telemetry
    settings : ServeSettings
    memory : SharedMemory or None
        ``None``: shared memory is off.

    Attributes
    ----------
    traces : TraceSettings
        Asked, for each request, whether it is traced.
    everywhere : callable or None
        Makes a change on all workers, where there are several; ``None``: there is only this process.
    """

    def __init__(
        self, models: Models, telemetry: Telemetry, settings: ServeSettings, memory: SharedMemory | None = None
    ) -> None:
        self._models = models
        self._telemetry = telemetry
        self._settings = settings
        self._memory = memory
        self._logs = LogSettings()
        self.everywhere: Everywhere | None = None
        self.traces = TraceSettings("TIMESTAMPS" if settings.tracing else "OFF", settings.trace_rate)
        self._version = importlib.metadata.version("fairway")

    # -- server and models

    def server_ready(self) -> bool:
        """Whether the server may be sent requests."""
        return self._telemetry.ready()

    def server_metadata(self) -> dict[str, Any]:
        """Name, version and extensions."""
        off = () if self._memory is not None else ("system_shared_memory",)
        extensions = [extension for extension in EXTENSIONS if extension not in off]
        return {"name": "fairway", "version": self._version, "extensions": extensions}

    def model_ready(self, name: str, version: str | None) -> bool:
        """Whether a model can answer, be it after loading it again. Raises :class:`ModelNotFound` or :class:`ModelNotReady`."""
        self._described(name, version)
        return True

    def model_metadata(self, name: str, version: str | None) -> dict[str, Any]:
        """What a model takes and gives. Raises :class:`ModelNotFound` or :class:`ModelNotReady`."""
        return metadata_of(self._described(name, version), self._models.versions(name))

    def model_config(self, name: str, version: str | None) -> dict[str, Any]:
        """How a model is run, as the ``ModelConfig`` of Triton. Raises :class:`ModelNotFound` or :class:`ModelNotReady`."""
        return config_of(self._described(name, version), self._models.versions(name), self._settings)

    async def joined_statistics(self, name: str = "", version: str | None = None) -> dict[str, Any]:
        """:meth:`statistics`, of all workers where there are several."""
        own = self.statistics(name, version)
        gather = self._telemetry.gather
        return own if gather is None else joined(own, await gather())

    def statistics(self, name: str = "", version: str | None = None) -> dict[str, Any]:
        """``model_stats``: of one version, of a model's, or (``""``) of all. Raises :class:`ModelNotFound` if it is unknown."""
        if name and (version or name not in self._models.names()):
            self._described(name, version)
        cold = [
            VersionStats(known.name, known.version) for known in self._models.cold()
        ]  # counts begin as it is loaded
        every = sorted([served.stats for served in self._models.live()] + cold, key=lambda stats: stats.model)
        found = [stats for stats in every if name in ("", stats.model) and version in (None, "", stats.version)]
        return {"model_stats": [statistics_of(stats) for stats in found]}

    # -- the repository

    def index(self, ready: bool = False) -> list[dict[str, Any]]:
        """Name, version, state and reason of every version; only of those that can answer if ``ready``."""
        entries = [entry for entry in self._models.index() if not ready or entry.state is State.READY]
        return [msgspec.to_builtins(entry) for entry in entries]

    async def load(self, name: str, parameters: dict[str, Any]) -> None:
        """Load a model, or load it anew.

        Parameters
        ----------
        name : str
        parameters : dict
            ``config``: a model configuration as a JSON string. ``file:PATH``: a file of it, as bytes or in base64; needs
            ``config``.

        Raises
        ------
        NotEnabled
            If ``model_control`` is off.
        InvalidRequest
            If a parameter is wrong.
        FairwayError
            If the model cannot be loaded, be it on one of several workers; what was live stays so.
        """
        self._need_control("loading models")
        _, files = _load_parameters(parameters)
        if files and self.everywhere is not None:
            raise InvalidRequest(
                "this server has several workers, and files come to one of them only; serve the bundle by its path or from a "
                "registry, or set workers = 1 in [serve]"
            )
        await self._change(Change("load", name, parameters))

    async def unload(self, name: str, unload_dependents: bool = False) -> None:  # noqa: ARG002 (no model has any)
        """Unload a model's versions; they answer what they have accepted. An unknown model is no error.

        Raises
        ------
        NotEnabled
            If ``model_control`` is off.
        """
        self._need_control("unloading models")
        if self._models.knows(name):
            await self._change(Change("unload", name))

    # -- settings

    async def trace_setting(self, model: str | None = None, update: dict[str, Any] | None = None) -> dict[str, Any]:
        """The trace settings of a model or of the server, after ``update``; its ``None`` go back to the default.

        Raises
        ------
        NotEnabled
            If there is an update and ``model_control`` is off.
        InvalidRequest
            If an update is wrong.
        ModelNotFound
            If the model is unknown.
        """
        if model:
            self._described(model, None)
        if update:
            self._need_control("changing trace settings")
            await self._change(Change("trace", model or "", update))
        return self.traces.get(model or None)

    async def log_settings(self, update: dict[str, Any] | None = None) -> dict[str, Any]:
        """The log settings, after ``update``.

        Raises
        ------
        NotEnabled
            If there is an update and ``model_control`` is off.
        InvalidRequest
            If an update is wrong.
        """
        if update:
            self._need_control("changing log settings")
            await self._change(Change("log", values=update))
        return self._logs.get()

    # -- shared memory

    def shared_memory_status(self, name: str | None = None) -> list[dict[str, Any]]:
        """Name, key, offset and byte_size of a region or of all.

        Raises
        ------
        NotEnabled
            If ``shared_memory`` is off.
        RegionNotFound
            If there is no such region.
        """
        return self._need_memory().status(name or None)

    async def register_shared_memory(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Make part of a POSIX shared memory object usable as region ``name``.

        Raises
        ------
        NotEnabled
            If ``shared_memory`` is off.
        InvalidRequest
            If a value is wrong, or the object is absent or too small.
        """
        self._need_memory()
        await self._change(Change("register", name, {"key": key, "offset": offset, "byte_size": byte_size}))

    async def unregister_shared_memory(self, name: str | None = None) -> None:
        """Forget a region, or all. An unknown one is no error.

        Raises
        ------
        NotEnabled
            If ``shared_memory`` is off.
        """
        self._need_memory()
        await self._change(Change("unregister", name or ""))

    # -- changes

    async def perform(self, change: Change, agreed: Agreed = alone) -> None:
        """Make a change in this process, once ``agreed``; what cannot be made changes nothing.

        Raises
        ------
        FairwayError
            Saying why it cannot be made.
        """
        match change.does:
            case "load":
                await self._load(change.name, change.values, agreed)
            case "unload":
                await agreed()
                await self._models.unload_model(change.name)
                self.traces.forget(change.name)
            case "trace":
                await self._set_traces(change.name or None, change.values, agreed)
            case "log":
                await self._set_logs(change.values, agreed)
            case "register":
                await self._register(change, agreed)
            case "unregister":
                await agreed()
                self._need_memory().unregister(change.name or None)

    async def _change(self, change: Change) -> None:
        await (self.perform(change) if self.everywhere is None else self.everywhere(change))

    async def _load(self, name: str, parameters: dict[str, Any], agreed: Agreed) -> None:
        config, files = _load_parameters(parameters)
        try:
            await self._models.load_model(name, config, files, agreed)
        except InvalidBundle as error:
            if files:  # what is wrong came with the request
                raise InvalidRequest(str(error)) from error
            raise

    async def _set_traces(self, model: str | None, update: dict[str, Any], agreed: Agreed) -> None:
        if model:
            self._described(model, None)
        copy.deepcopy(self.traces).update(model, update)  # raises if it is wrong
        await agreed()
        self.traces.update(model, update)

    async def _set_logs(self, update: dict[str, Any], agreed: Agreed) -> None:
        before = self._logs.get()
        self._logs.update(update)
        try:
            await agreed()
        except BaseException:
            self._logs.update(before)
            raise

    async def _register(self, change: Change, agreed: Agreed) -> None:
        memory = self._need_memory()
        memory.register(change.name, **change.values)
        try:
            await agreed()
        except BaseException:
            memory.unregister(change.name)
            raise

    def close(self) -> None:
        """Forget every region, and put the process's logging back as it was."""
        if self._memory is not None:
            self._memory.close()
        self._logs.close()

    def _described(self, name: str, version: str | None) -> Description:
        """A version that can answer, be it after loading it again. Raises :class:`ModelNotFound` or :class:`ModelNotReady`."""
        return self._models.describe(name, version or None, None)

    def _need_control(self, what: str) -> None:
        if not self._settings.model_control:
            raise NotEnabled(f"{what} is off on this server; whoever runs it can set model_control = true in [serve]")

    def _need_memory(self) -> SharedMemory:
        if self._memory is None:
            raise NotEnabled(
                "shared memory is off on this server; whoever runs it can set shared_memory = true in [serve]"
            )
        return self._memory


def _load_parameters(parameters: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
    """The configuration, and files by path, that a load brings with it."""
    config: dict[str, Any] | None = None
    files: dict[str, bytes] = {}
    for key, value in parameters.items():
        if key == "config":
            config = _config(value)
        elif key.startswith(_FILE):
            files[_path(key)] = _content(key, value)
        else:
            raise InvalidRequest(f"load takes no parameter {key!r}; it takes 'config' and 'file:PATH'")
    if files and config is None:
        raise InvalidRequest("files need a configuration beside them: send the parameter 'config' too")
    if len(files) > _MAX_FILES:
        raise InvalidRequest(f"{len(files)} files are too many; send {_MAX_FILES} at most")
    return config, files


def _config(value: Any) -> dict[str, Any]:
    try:
        config = msgspec.json.decode(value if isinstance(value, str) else "")
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"parameter 'config' must be a model configuration as a JSON string: {error}") from None
    if not isinstance(config, dict):
        raise InvalidRequest("parameter 'config' must hold a JSON object, as a string")
    return config


def _path(key: str) -> str:
    path = key.removeprefix(_FILE)
    parts = path.split("/")
    if len(path) > 1024 or "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise InvalidRequest(f"{key!r} names no file inside of a model; write file:1/model.onnx")
    return path


def _content(key: str, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(value if isinstance(value, str) else "!", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"parameter {key!r} must be the file's content in base64") from None
