"""What a search has done, line by line: written before the next step is begun, and read again after any end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import msgspec

from fairway.core.gate import Outcome
from fairway.core.metrics import Measurement
from fairway.optimization.search.space import Point


class Start(msgspec.Struct, frozen=True):
    """A point that is tried before any is proposed, and where it comes from."""

    point: Point
    origin: str = "informed"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a search was begun with.

    Attributes
    ----------
    starts : tuple of Start
        In this order.
    rungs : int
        Parts of the rows that quality is examined on, each larger than the one before; the last is all of them.
    trials : int
        At most this many points beyond ``starts``.
    patience : int
        Points proposed in a row, none of which betters the best, after which the search ends.
    min_gain : float
        Relative improvement that counts as one.
    insisted : bool
        Whether each of ``starts`` is examined, even where another is faster and keeps the limits.
    original_keeps : bool
        Whether the original keeps the gate's limits on quality: else anything that does is better.
    seed : int
    """

    starts: tuple[Start, ...]
    rungs: int = 1
    trials: int = 48
    patience: int = 16
    min_gain: float = 0.03
    insisted: bool = True
    original_keeps: bool = True
    seed: int = 0


class Began(msgspec.Struct, frozen=True, tag="began"):
    """The first line."""

    plan: Plan


class Made(msgspec.Struct, frozen=True, tag="made"):
    """A point was made; ``identity`` is what it is apart from its name."""

    point: Point
    origin: str
    identity: str
    size_bytes: int


class Unmade(msgspec.Struct, frozen=True, tag="unmade"):
    """A point could not be made, or is nothing new.

    Attributes
    ----------
    failed : bool
        Whether something broke; else there was nothing to do.
    blamed : str
        The axis whose choice is the reason, where that is known.
    """

    point: Point
    origin: str
    reason: str
    failed: bool = False
    blamed: str = ""


class Probed(msgspec.Struct, frozen=True, tag="probed"):
    """A first, short measurement of the objective, as a multiple of the original's: below 1 is better."""

    point: Point
    ratio: float


class Examined(msgspec.Struct, frozen=True, tag="examined"):
    """What the gate's limits on quality say of the rows of one rung.

    Attributes
    ----------
    harm : float
        How much of the room between the original and the nearest limit was used up: 0 is none, above 1 too much.
    """

    point: Point
    rung: int
    outcome: Outcome
    harm: float = 0.0
    reason: str = ""


class Outpaced(msgspec.Struct, frozen=True, tag="outpaced"):
    """A point is surely not better than one that keeps the limits, and is not examined any further."""

    point: Point
    reason: str


class Round(msgspec.Struct, frozen=True, tag="round"):
    """One whole round of measurements of the finalists.

    Attributes
    ----------
    dropped : dict
        Why one could not be measured.
    seconds : float
        What it took; 0 is unknown.
    """

    finalists: tuple[str, ...]
    measurements: dict[str, tuple[Measurement, ...]]
    dropped: dict[str, str] = {}
    seconds: float = 0.0


Event: TypeAlias = Began | Made | Unmade | Probed | Examined | Outpaced | Round


class Journal:
    """A file of one event per line, appended to only.

    A line is there as a whole once :meth:`append` returns, whatever happens to the process afterwards. What a process
    that was killed left of a line is removed as the file is opened.

    Parameters
    ----------
    path : Path
        Made if absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.events = read_journal(path)
        with path.open("a+b") as file:
            file.seek(0)
            file.truncate(_whole(file.read()))
            os.fsync(file.fileno())

    def append(self, event: Event) -> None:
        """Write one event, and wait until it is on the disk."""
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(event) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.events.append(event)


def read_journal(path: Path) -> list[Event]:
    """The events of a journal, but a last line that was not finished; none if there is no such file.

    Raises
    ------
    msgspec.DecodeError
        If another line than the last is no event: then the file is no journal, or another version's.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    return [_DECODER.decode(line) for line in content[: _whole(content)].splitlines()]


_DECODER = msgspec.json.Decoder(Event)


def _whole(content: bytes) -> int:
    """Bytes up to the end of the last whole line."""
    return content.rfind(b"\n") + 1
