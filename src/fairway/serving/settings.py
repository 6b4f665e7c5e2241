"""What can be set about a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

if TYPE_CHECKING:
    from fairway.core.manifest import EngineSpec  # needs NumPy, which the process that watches workers does without


class ModelServeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table ``[serve.models.NAME]``: limits of one model, for each of its versions. Absent keys are as in ``[serve]``.

    Attributes
    ----------
    max_batch : int or None
        Rows per engine call, where the bundle's own ``max_batch`` should not be taken.
    max_queue_requests, max_queue_rows, concurrent_batches, cache_bytes, max_wait_us, max_queue_wait_s
        As in ``[serve]``, for this model only.
    memory_mb : float or None
        What one loaded version takes of the memory budget, where its measured size should not be taken.
    priority : int or None
        Level of requests that name none; needs ``priority_levels``.
    """

    max_batch: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_queue_requests: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_queue_rows: Annotated[int, msgspec.Meta(ge=1)] | None = None
    concurrent_batches: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    cache_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    max_wait_us: Annotated[float, msgspec.Meta(ge=0, le=10_000_000)] | None = None
    max_queue_wait_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    memory_mb: Annotated[float, msgspec.Meta(gt=0)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None


class Limits(msgspec.Struct, frozen=True):
    """What is in force for one version, whoever set it: see :class:`ModelServeSettings`. ``priority`` 0 is the middle level."""

    max_batch: int
    max_queue_requests: int
    max_queue_rows: int
    concurrent_batches: int
    cache_bytes: int
    max_wait_us: float
    max_queue_wait_s: float
    priority: int


class ServeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table ``[serve]``.

    Attributes
    ----------
    host, port
        Where to listen; port 0 lets the kernel pick one.
    grpc_port : int, optional
        Where to answer over gRPC as well, on the same host: 8001 is what clients expect, and port 0 lets the kernel pick one.
        Not set, gRPC is off.
    max_body_bytes : int
        Larger request bodies are refused (413), before and after decompression.
    max_header_bytes : int
        Longer request heads are refused (431).
    max_queue_requests, max_queue_rows : int
        Per version; what arrives above is refused at once (429).
    max_queue_wait_s : float
        A request that would wait longer than this for the engine, going by the learned cost, is refused at once (429).
    max_wait_us : float, optional
        How long a batch may wait for more requests, in microseconds; 0 never waits. By default as the bundle says. It only
        waits where the learned cost says that this pays and requests come densely, as on accelerators, and never on the
        event loop.
    priority_levels : int
        How many levels the request parameter ``priority`` has, 1 being the highest; 0 ignores it, and says so once in the log.
    default_priority : int
        Level of requests that name none, or one that does not exist; 0 is the middle one.
    cache_bytes : int, optional
        Memory for answers of one version, so that an equal request is not run again; 0 is no cache. By default as the bundle
        says.
    inline_us : float
        A batch expected to take at most this many microseconds runs on the event loop: a hop to a thread costs more.
    concurrent_batches : int
        Batches of one version that may run at the same time on threads.
    memory_mb : float
        Budget of memory for all loaded versions together, in 10^6 bytes; 0 is none. When a version needs room, those longest
        unused are unloaded, and loaded again when a request asks for them.
    engine_cache_mb : float
        What may be kept on disk (10^6 bytes) of what engines made of graphs for this machine: packed weights that processes
        share, compiled code. 0 keeps and uses nothing.
    prefetch : bool
        Fetch and verify a version that the registry announces, and fill the engines' cache, before it is released.
    load_timeout_s : float
        How long a request waits while a version that was unloaded to make room is loaded again (then 503).
    poll_s : float
        How often the registry is asked whether anything changed.
    stop_delay_s : float
        After SIGTERM: how long to serve on, not ready, while load balancers take notice.
    grace_s : float
        After SIGTERM: when to end at the latest. Below what the platform waits before SIGKILL (Kubernetes: 30 s).
    keep_alive_s : float
        How long an idle connection is kept. Longer than a load balancer keeps it, so that it never meets a closed one.
    read_timeout_s : float
        How long a client may take to send one request, from its first byte to its last (408), and to take each 64 KiB of
        an answer. Raise it where large requests come over slow lines.
    access_log : bool
        One line per request, on the logger ``fairway.access``.
    tracing : str
        Where spans go, as OTLP over HTTP: a collector's URL (``http://127.0.0.1:4318``), or ``otlp`` for what the
        ``OTEL_EXPORTER_OTLP_*`` variables of the environment say. Empty, nothing is traced. Needs ``fairway[tracing]``.
    trace_rate : int
        One request in so many is traced, of those that come without a ``traceparent``; with one, its caller decides.
    trace_limit : int
        Requests traced per second at most, by each process, whoever decides.
    fast_lane : bool
        Answer infer routes without an ASGI call. Off, everything is one Starlette application.
    workers : int or "auto"
        Processes that answer, on one port, under one that watches them. 1: this process answers by itself. ``auto`` (or 0): as
        many as there are cores for the threads of one engine call.
    threads : int, optional
        Threads within one engine call. By default as the bundle says; with several workers no more than leaves each its share
        of the cores.
    worker_timeout_s : float
        A worker that gives no sign of life for so long is killed and started anew.
    model_control : bool
        Whether callers may load and unload models, and change trace and log settings. Turn it on only where every caller
        may be trusted with that.
    shared_memory : bool
        Whether callers on this machine may hand tensors over in POSIX shared memory, each of up to ``max_body_bytes``. They
        can name any object that the server may read and write, so turn it on only where every caller may be trusted.
    models : table of tables
        Limits of single models, by name: ``[serve.models.NAME]``.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8000
    grpc_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1)] = 64 * 2**20
    max_header_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 64 * 2**10
    max_queue_requests: Annotated[int, msgspec.Meta(ge=1)] = 2048
    max_queue_rows: Annotated[int, msgspec.Meta(ge=1)] = 65536
    max_queue_wait_s: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    max_wait_us: Annotated[float, msgspec.Meta(ge=0, le=10_000_000)] | None = None
    priority_levels: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    default_priority: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    cache_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    inline_us: Annotated[float, msgspec.Meta(ge=0)] = 250.0
    concurrent_batches: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    memory_mb: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    engine_cache_mb: Annotated[float, msgspec.Meta(ge=0)] = 8000.0
    prefetch: bool = True
    load_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0
    poll_s: Annotated[float, msgspec.Meta(ge=0.05, le=3600)] = 0.5
    stop_delay_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    grace_s: Annotated[float, msgspec.Meta(ge=0)] = 25.0
    keep_alive_s: Annotated[float, msgspec.Meta(ge=1)] = 75.0
    read_timeout_s: Annotated[float, msgspec.Meta(ge=0.05)] = 60.0
    access_log: bool = True
    tracing: str = ""
    trace_rate: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 1000
    trace_limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 100
    fast_lane: bool = True
    workers: Annotated[int, msgspec.Meta(ge=0, le=1024)] | Literal["auto"] = 1
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    worker_timeout_s: Annotated[float, msgspec.Meta(ge=1)] = 30.0
    model_control: bool = False
    shared_memory: bool = False
    models: dict[str, ModelServeSettings] = {}

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a priority that would do nothing."""
        said = {"default_priority": self.default_priority}
        said |= {f"models.{name}.priority": own.priority or 0 for name, own in self.models.items()}
        for key, level in said.items():
            if level > self.priority_levels:
                raise ValueError(
                    f"{key} is {level}, but there are {self.priority_levels} levels; raise priority_levels, or leave it out"
                )

    def of(self, name: str, engine: EngineSpec) -> Limits:
        """What is in force for a version of the model ``name``: the model's own, else the server's, else the bundle's.

        Examples
        --------
        >>> from fairway.core.manifest import EngineSpec
        >>> settings = ServeSettings(max_queue_rows=9, models={"digits": ModelServeSettings(max_batch=2)})
        >>> settings.of("digits", EngineSpec()).max_batch, settings.of("digits", EngineSpec()).max_queue_rows
        (2, 9)
        >>> settings.of("other", EngineSpec(max_batch=8)).max_batch
        8
        """
        found: dict[str, Any] = dict.fromkeys(Limits.__struct_fields__)
        for source in (self.own(name), self, engine):
            found = {key: getattr(source, key, None) if value is None else value for key, value in found.items()}
        found["priority"] = found["priority"] or self.default_priority
        return Limits(**found)

    def own(self, name: str) -> ModelServeSettings:
        """What is set for the model ``name`` alone."""
        return self.models.get(name, _NO_LIMITS)


_NO_LIMITS = ModelServeSettings()
