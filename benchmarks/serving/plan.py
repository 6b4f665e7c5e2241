"""Which heats there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.serving.contestants import (
    GRPC_BARE,
    GRPC_CONSTANT,
    PEER_LIST,
    PROBE,
    QUIET,
    WITHOUT_LANE,
    Contestant,
    Peer,
    fairway_variants,
    nginx,
    of_fairway,
)
from benchmarks.serving.figures import FAIRWAY, LIMITS
from benchmarks.serving.heats import Effort, Heat
from benchmarks.serving.workloads import Workload

PARTS = ("limits", "grpc", "peers", "tail", "memory")

Planned = tuple[Heat, Effort]


class Plan(msgspec.Struct, frozen=True):
    """What is measured of one workload. ``only``: parts of names of servers besides Fairway; ``None`` is all."""

    workload: Workload
    quick: bool
    parts: Sequence[str]
    only: Sequence[str] | None
    collector: str

    def heats(self, folder: Path, left_out: list[str]) -> Iterator[Planned]:
        """Each with how much it is measured."""
        if "limits" in self.parts:
            if self._tiny:
                yield self._limits(left_out)
                yield self._observing(folder)
            else:
                yield self._large()
        if "grpc" in self.parts and self._tiny:
            bare = self._wanted([GRPC_BARE, GRPC_CONSTANT])
            yield Heat("gRPC", [of_fairway(FAIRWAY, QUIET, ("grpc",)), *bare]), self._effort(5)
        if "peers" in self.parts:
            for peer in PEER_LIST:
                yield from self._peer(peer, left_out)

    @property
    def _tiny(self) -> bool:
        return self.workload.name == "tiny"

    def _effort(self, rounds: int) -> Effort:
        return Effort(max(1, rounds // 2) if self.quick else rounds, 1.0)

    def _limits(self, left_out: list[str]) -> Planned:
        named = [PROBE, WITHOUT_LANE]
        constant = nginx()
        if isinstance(constant, str):
            left_out.append(f"nginx answering a constant: {constant}")
        else:
            named.insert(1, constant)
        plain = of_fairway(FAIRWAY, QUIET, ("json", "binary"))
        return Heat(LIMITS, [plain, *self._wanted(named)], in_process=True), self._effort(5)

    def _observing(self, folder: Path) -> Planned:
        """What watching costs. It is less than what one start of a server differs from the next by, so there are many."""
        variants = self._wanted(fairway_variants(_registry(self.workload, folder), self.collector))
        plain = of_fairway(FAIRWAY, QUIET, ("json",))
        starts, effort = (3 if self.quick else 15), Effort(1, 2 / self.workload.seconds)
        return Heat("observing", [plain, *variants], connections=self.workload.connections[-1:], starts=starts), effort

    def _large(self) -> Planned:
        """Models that take all the time: there, the limit is the engine."""
        everything = of_fairway(FAIRWAY, QUIET, ("json", "binary", "grpc"))
        return Heat(LIMITS, [everything], in_process=True), self._effort(3)

    def _peer(self, peer: Peer, left_out: list[str]) -> Iterator[Planned]:
        """With a Fairway of the same minute. For the larger models it is told apart by fewer measurements."""
        if not (self._tiny or peer.batches) or (self.only and not any(part in peer.name for part in self.only)):
            return
        contestant = peer.contestant()
        if isinstance(contestant, str):
            left_out.append(f"{peer.name}: {contestant}")
            return
        wires = tuple(wire for wire in contestant.wires if self._tiny or wire != "grpc")
        own = tuple(dict.fromkeys(("json", *(wire for wire in wires if wire != "arrays"))))
        contestants = [of_fairway(FAIRWAY, QUIET, own), msgspec.structs.replace(contestant, wires=wires)]
        most = None if self._tiny else self.workload.connections[-1:]
        yield Heat(peer.name, contestants, connections=most), self._effort(2)

    def _wanted(self, contestants: Sequence[Contestant]) -> list[Contestant]:
        return [c for c in contestants if not self.only or any(part in c.name for part in self.only)]


def _registry(workload: Workload, folder: Path) -> str:
    """Lines of fairway.toml for a registry in which the model is the champion."""
    from fairway.registry.settings import RegistrySettings
    from fairway.registry.store import Registry

    settings = RegistrySettings(url=f"sqlite:///{folder}/registry.db", blobs=f"{folder}/blobs")
    with Registry.open(settings) as registry:
        number = registry.register(workload.bundle).number
        registry.set_alias(workload.served_as, "champion", number, actor="benchmark")
    return f'[registry]\nurl = "{settings.url}"\nblobs = "{settings.blobs}"\n'
