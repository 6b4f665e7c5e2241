"""One loaded version of a model, and what is known of a version whatever its state."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable
from enum import StrEnum
from functools import partial

import msgspec

from fairway.core.errors import InferenceFailed
from fairway.core.events import EventSink
from fairway.core.manifest import EngineSpec
from fairway.core.tensors import Tensors, TensorSpec
from fairway.model import Model
from fairway.serving.batches import BatchingSettings
from fairway.serving.batching import Scheduler
from fairway.serving.cache import ResponseCache
from fairway.serving.cost import CostCurve
from fairway.serving.lengths import length_of
from fairway.serving.niceness import RUNNING, give_way
from fairway.serving.queues import TakesJobs
from fairway.serving.repository import Opener
from fairway.serving.settings import Limits, ServeSettings
from fairway.serving.sharing import SharingScheduler, identity
from fairway.serving.telemetry import VersionStats
from fairway.serving.threads import Threads
from fairway.serving.validation import Signature
from fairway.serving.warmup import Warmed

log = logging.getLogger(__name__)


class State(StrEnum):
    """Of a version, in the repository index's words."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


class IndexEntry(msgspec.Struct, frozen=True):
    """One line of the repository index."""

    name: str
    version: str
    state: State
    reason: str = ""


class Description(msgspec.Struct, frozen=True):
    """What is known of a version whether it is loaded or not: what it takes and gives, and how it is run.

    ``batching``: whether the first axis is rows. ``limits`` are in force, whoever set them. ``caches``: its answers are kept.
    """

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    raw_outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    batching: bool
    engine: EngineSpec
    limits: Limits
    caches: bool


class ServedVersion:
    """One loaded version that can answer.

    Attributes
    ----------
    name, version : str
    model : Model
    scheduler : Scheduler
    front : TakesJobs
        What takes requests: the scheduler, or the cache before it.
    signature, raw_signature : Signature
        Of processed and of raw requests.
    description : Description
    stats : VersionStats
    opened : callable or None
        How to load it again.
    brought : bool
        Whether a caller brought its files, so that it could not be loaded again.
    size_bytes : int
        What it takes of the memory budget.
    used_at : float
        When it last ran, on the monotonic clock.
    """

    def __init__(
        self,
        name: str,
        version: str,
        model: Model,
        warmed: Warmed,
        *,
        settings: ServeSettings,
        sink: EventSink | None,
    ) -> None:
        processing = model.manifest.processing
        self.name = name
        self.version = version
        self.model = model
        self.processed = bool(processing.pre or processing.post)
        self.signature = Signature(model.inputs, batching=warmed.batching)
        self.raw_signature = Signature(model.raw_inputs, batching=warmed.batching) if self.processed else self.signature
        engine = model.manifest.engine
        limits = settings.of(name, engine)
        caches = bool(limits.cache_bytes) and model.manifest.repeatable
        self.description = Description(
            name,
            version,
            model.inputs,
            model.outputs,
            model.raw_outputs,
            model.manifest.labels,
            warmed.batching,
            engine,
            limits,
            caches,
        )
        self.stats = VersionStats(name, version, sink, raw_differs=self.processed)
        self._batching = warmed.batching
        self._outputs, self._raw_outputs = len(model.outputs), len(model.raw_outputs)
        slots = limits.concurrent_batches
        length = length_of(model.manifest) if warmed.batching else None
        self._threads = Threads(slots, f"{name}:{version}", partial(give_way, RUNNING))
        self.scheduler = Scheduler(
            self._infer,
            BatchingSettings(
                max_batch=limits.max_batch,
                batching=warmed.batching,
                slots=slots,
                max_requests=limits.max_queue_requests,
                max_rows=limits.max_queue_rows,
                inline_us=settings.inline_us,
                max_queue_wait_s=limits.max_queue_wait_s,
                max_wait_us=limits.max_wait_us,
                priority_levels=settings.priority_levels,
                default_priority=limits.priority,
            ),
            loop=asyncio.get_running_loop(),
            executor=self._threads,
            listener=self.stats,
            curves=None if length else _by_kind(warmed),
            length=length,
        )
        self.front: TakesJobs = self.scheduler
        if caches:
            self.front = SharingScheduler(
                self.scheduler,
                ResponseCache(limits.cache_bytes),
                partial(identity, model.manifest.digest.encode()),
                loop=asyncio.get_running_loop(),
                listener=self.stats,
                used=self._use,
            )
        self.stats.queue = lambda: (self.scheduler.queued_requests, self.scheduler.queued_rows)
        self.opened: Opener | None = None
        self.brought = False
        self.size_bytes = 0
        self.used_at = time.monotonic()

    async def retire(self) -> None:
        """Answer what is queued, then free the model, as far as its engine can."""
        await self.scheduler.drain()
        self._threads.close()
        try:
            self.model.close()
        except Exception:
            log.exception("engine_not_closed", extra={"model": self.name, "version": self.version})

    def _use(self) -> None:
        self.used_at = time.monotonic()

    def _infer(self, feed: Tensors, raw: bool) -> Tensors:
        self.used_at = time.monotonic()
        answer = self.model.infer(feed, raw=raw)
        if self._batching:  # an engine that breaks its word fails; nobody gets another's rows, or none
            rows = (len(next(iter(feed.values()))),)
            for array in answer.values():
                if array.shape[:1] != rows:
                    raise InferenceFailed(f"the engine gave an output of shape {list(array.shape)} for {rows[0]} rows")
        if len(answer) != (self._raw_outputs if raw else self._outputs):
            raise InferenceFailed(f"the engine gave {len(answer)} outputs, not all that the manifest declares")
        return answer


def _by_kind(warmed: Warmed) -> dict[Hashable, CostCurve]:
    """The scheduler's signatures also tell raw requests from others; warm-up was not raw."""
    return {None if key is None else (False, key): curve for key, curve in warmed.curves.items()}
