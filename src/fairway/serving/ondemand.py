"""Requests for a version that was unloaded to make room: they wait while it is loaded again, within limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fairway.core.errors import DeadlineExceeded, FairwayError, ModelNotReady, Overloaded
from fairway.serving.cold import ColdModel
from fairway.serving.models import Models
from fairway.serving.served import ServedVersion


class Late:
    """One request that waits. :meth:`cancel` it when its caller leaves; what is being loaded is loaded all the same.

    Parameters
    ----------
    models : Models
    cold : ColdModel
        What it waits for.
    timeout_s : float or None
        The request's own time limit.
    limit_s : float
        How long to wait at most, if that is longer or there is none.
    loaded : callable
        Is called with the version, and the seconds that this took.
    failed : callable
        Is called instead with the error.
    """

    def __init__(
        self,
        models: Models,
        cold: ColdModel,
        *,
        timeout_s: float | None,
        limit_s: float,
        loaded: Callable[[ServedVersion, float], None],
        failed: Callable[[FairwayError], None],
    ) -> None:
        self._models = models
        self._cold = cold
        self._timeout_s = timeout_s
        self._limit_s = limit_s
        self._loaded = loaded
        self._failed = failed
        self._left = False
        self.task = asyncio.get_running_loop().create_task(self._run())

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self._left = True
        self.task.cancel()

    async def _run(self) -> None:
        began = time.monotonic()
        name, version = self._cold.name, self._cold.version
        own = self._timeout_s is not None and self._timeout_s < self._limit_s
        try:
            async with asyncio.timeout(self._timeout_s if own else self._limit_s):
                await self._models.wake(name, version)
            served = self._models.resolve(name, version, None)
        except TimeoutError:
            waited = f"version {version} of {name!r} was unloaded to make room, and is still being loaded"
            self._failed(DeadlineExceeded(waited) if own else ModelNotReady(f"{waited}; try again soon"))
        except asyncio.CancelledError:
            if self._left:
                raise
            self._failed(ModelNotReady("the server is stopping; send the request again, elsewhere"))
        except FairwayError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 (the caller gets an answer whatever happens)
            self._failed(ModelNotReady(f"version {version} of {name!r} could not be loaded again: {error}"))
        else:
            self._loaded(served, time.monotonic() - began)


class OnDemand:
    """All requests that wait for a version to be loaded again; no more for each than its queue would hold.

    Parameters
    ----------
    models : Models
    """

    def __init__(self, models: Models) -> None:
        self._models = models
        self._waiting: dict[tuple[str, str], set[asyncio.Task[None]]] = {}

    def wait(
        self,
        cold: ColdModel,
        timeout_s: float | None,
        loaded: Callable[[ServedVersion, float], None],
        failed: Callable[[FairwayError], None],
    ) -> Late:
        """Wait for a version; see :class:`Late`.

        Raises
        ------
        Overloaded
            If as many wait already as a queue may hold.
        """
        limit_s = self._models.settings.load_timeout_s
        waiting = self._waiting.setdefault((cold.name, cold.version), set())
        if len(waiting) >= cold.description.limits.max_queue_requests:
            raise Overloaded(f"{len(waiting)} requests are waiting for {cold.name!r} to be loaded; slow down")
        late = Late(self._models, cold, timeout_s=timeout_s, limit_s=limit_s, loaded=loaded, failed=failed)
        waiting.add(late.task)
        late.task.add_done_callback(waiting.discard)
        return late
