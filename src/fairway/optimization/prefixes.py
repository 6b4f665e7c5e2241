"""Graphs on the way to a form: forms that begin alike are made from where they part."""

from __future__ import annotations

import hashlib
import shutil
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from fairway.core.manifest import PassRecord
from fairway.optimization.graphs import copy_graph
from fairway.optimization.recipes import Stage


class Kept(msgspec.Struct, frozen=True):
    """What the first ``stages`` of a recipe made of one graph, and the passes among them that had something to do."""

    stages: int
    graph: Path
    records: tuple[PassRecord, ...]


class Prefixes:
    """The last few graphs that stages made of one and the same source, on one and the same sample.

    Parameters
    ----------
    directory : Path
        Where they lie; made when there is something to keep. Nobody else writes there.
    most : int
        Of those used least recently, more than this many go.
    """

    def __init__(self, directory: Path, *, most: int = 8) -> None:
        self._directory, self._most = directory, most
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    def longest(self, stages: Sequence[Stage]) -> Kept | None:
        """The longest true beginning of ``stages`` that is known."""
        for count in range(len(stages) - 1, 0, -1):
            key = _key(stages[:count])
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        return None

    def keep(self, stages: Sequence[Stage], graph: Path, records: Sequence[PassRecord]) -> None:
        """Remember what ``stages`` made; where there is no room on the disk, forget it."""
        key = _key(stages)
        place = self._directory / hashlib.sha256(key).hexdigest()[:16]
        try:
            place.mkdir(parents=True)
            copy_graph(graph, place / graph.name)
        except OSError:
            shutil.rmtree(place, ignore_errors=True)
            return
        self._kept[key] = Kept(len(stages), place / graph.name, tuple(records))
        while len(self._kept) > self._most:
            _, oldest = self._kept.popitem(last=False)
            shutil.rmtree(oldest.graph.parent, ignore_errors=True)


def _key(stages: Sequence[Stage]) -> bytes:
    return msgspec.json.encode(stages, order="sorted")
