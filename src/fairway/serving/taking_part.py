"""A worker's part in the changes that callers ask for: it passes on its own callers' wishes, and makes everybody's."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fairway.core.errors import FairwayError, ServerUnavailable
from fairway.serving import channel
from fairway.serving.control import Change, Undone, error_of

if TYPE_CHECKING:
    from fairway.serving.management import Management

log = logging.getLogger(__name__)


class TakingPart:
    """For the event loop's thread only.

    Parameters
    ----------
    management : Management
    say : callable
        Tells the watching process something.
    keep : callable
        Runs a task.
    end : callable
        Ends the worker.
    """

    def __init__(
        self,
        management: Management,
        say: Callable[[channel.FromWorker], None],
        keep: Callable[[Coroutine[Any, Any, None]], None],
        end: Callable[[], None],
    ) -> None:
        self._management = management
        self._say = say
        self._keep = keep
        self._end = end
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[channel.Outcome]] = {}
        self._settling: dict[int, asyncio.Future[bool]] = {}

    async def everywhere(self, change: Change) -> None:
        """Make a change on all workers; returns when all have made it.

        Raises
        ------
        FairwayError
            What kept one of them from it; then none has made it.
        ServerUnavailable
            If the process that sees to that ends.
        """
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._say(channel.Ask(number, change))
        try:
            outcome = await answer
        finally:
            del self._asked[number]
        if outcome.code:
            raise error_of(outcome.code, outcome.message)

    def heard(self, message: channel.Make | channel.Settle | channel.CatchUp | channel.Outcome) -> None:
        """The watching process has said something."""
        match message:
            case channel.Make():
                self._settling[message.id] = asyncio.get_running_loop().create_future()
                self._keep(self._make(message))
            case channel.Settle():
                _tell(self._settling.get(message.id), message.go)
            case channel.CatchUp():
                self._keep(self._catch_up(message.changes))
            case channel.Outcome():
                _tell(self._asked.get(message.number), message)

    def lost(self) -> None:
        """The watching process is gone."""
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(ServerUnavailable("this server ends; ask another, or try again soon"))
        for settling in self._settling.values():
            _tell(settling, False)

    async def _make(self, message: channel.Make) -> None:
        """Make a change when all can."""
        settling = self._settling[message.id]

        async def agreed() -> None:
            self._say(channel.MadeReady(message.id))
            if not await settling:
                raise Undone

        made = channel.Made(message.id)
        try:
            await self._management.perform(message.change, agreed)
        except Undone:
            pass
        except FairwayError as error:
            made = channel.Made(message.id, error.code, str(error))
        except Exception as error:
            log.exception("change_failed")
            made = channel.Made(message.id, FairwayError.code, str(error) or type(error).__name__)
        finally:
            del self._settling[message.id]
        self._say(made)

    async def _catch_up(self, changes: tuple[Change, ...]) -> None:
        """Make all changes that were made before this worker started. Without one of a model, it must not serve."""
        lost = []
        for change in changes:
            try:
                await self._management.perform(change)
            except Exception as error:  # noqa: BLE001 (told, whatever it is)
                if change.does in ("load", "unload"):
                    self._say(channel.Failed(getattr(error, "code", FairwayError.code), str(error)))
                    self._end()
                    return
                if change.does == "register":
                    lost.append(change.name)
                else:
                    log.warning("setting_not_kept", extra={"setting": change.does, "reason": str(error)})
        self._say(channel.CaughtUp(tuple(lost)))


def _tell(waiting: asyncio.Future[Any] | None, what: Any) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(what)
