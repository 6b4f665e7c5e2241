"""Graphs on the way to a form: forms that begin alike are made from where they part."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from os import utime
from pathlib import Path

import msgspec

from fairway.core.manifest import PassRecord
from fairway.optimization.graphs import copy_graph
from fairway.optimization.recipes import Stage


class Kept(msgspec.Struct, frozen=True):
    """What the first ``stages`` of a recipe made of one graph, and the passes among them that had something to do."""

    stages: int
    records: tuple[PassRecord, ...]


class Prefixes:
    """The last few graphs that stages made of one and the same source, on one and the same sample.

    They are found by whoever has the same directory: processes that make forms at the same time share them.

    Parameters
    ----------
    directory : Path
        Where they lie; made when there is something to keep.
    most : int
        Of those used least recently, more than this many go.
    """

    def __init__(self, directory: Path, *, most: int = 8) -> None:
        self._directory, self._most = directory, most

    def take(self, stages: Sequence[Stage], destination: Path) -> Kept | None:
        """Copy what the longest true beginning of ``stages`` that is known made to ``destination``."""
        for count in range(len(stages) - 1, 0, -1):
            place = self._place(stages[:count])
            with suppress(OSError):  # it is not known, or another process removes it
                kept = msgspec.json.decode((place / _KEPT).read_bytes(), type=Kept)
                copy_graph(place / _GRAPHS / destination.name, destination)
                utime(place, ns=(now := time.time_ns(), now))
                return kept
        return None

    def keep(self, stages: Sequence[Stage], graph: Path, records: Sequence[PassRecord]) -> None:
        """Remember what ``stages`` made; where there is no room on the disk, forget it."""
        with suppress(OSError):  # or another process was first
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                prefix=_UNFINISHED, dir=self._directory, ignore_cleanup_errors=True
            ) as name:
                unfinished = Path(name) / "kept"
                (unfinished / _GRAPHS).mkdir(parents=True)
                copy_graph(graph, unfinished / _GRAPHS / graph.name)
                (unfinished / _KEPT).write_bytes(msgspec.json.encode(Kept(len(stages), tuple(records))))
                utime(unfinished, ns=(now := time.time_ns(), now))
                unfinished.rename(self._place(stages))
        self._forget()

    def _forget(self) -> None:
        """Keep to the number that is allowed."""
        with suppress(OSError):
            found = [place for place in self._directory.iterdir() if not place.name.startswith(_UNFINISHED)]
            found.sort(key=lambda place: place.stat().st_mtime_ns, reverse=True)
            for place in found[self._most :]:
                shutil.rmtree(place, ignore_errors=True)

    def _place(self, stages: Sequence[Stage]) -> Path:
        return self._directory / hashlib.sha256(msgspec.json.encode(stages, order="sorted")).hexdigest()[:16]


_KEPT, _GRAPHS, _UNFINISHED = "kept.json", "graphs", ".unfinished."
