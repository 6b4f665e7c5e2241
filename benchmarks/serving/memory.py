"""Memory of a server of the tiny model: after its first requests, and after very many."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import Figure, figure
from benchmarks.serving.contestants import QUIET, of_fairway
from benchmarks.serving.heats import Cores
from benchmarks.serving.load import LoadFailed, h2load, missing
from benchmarks.serving.start import started
from benchmarks.serving.workloads import Workload

_FIRST = 1_000
_MANY = 200_000


def memory_figures(tiny: Workload, cores: Cores, folder: Path) -> list[Figure]:
    """The figures. Raises :class:`NotStarted` or :class:`LoadFailed`."""
    if reason := missing("h2load"):
        raise LoadFailed(reason)
    place = folder / "memory"
    place.mkdir()
    (place / "fairway.toml").write_text(QUIET)
    contestant = of_fairway("fairway", QUIET, ("json",))
    with started(
        lambda ports: contestant.command(tiny, ports),
        place,
        cores.server,
        lambda ports: contestant.wrong(tiny, ports, "json"),
    ) as running:
        sizes = []
        for requests in (_FIRST, _MANY):
            load, _ = h2load(
                cores.client, running.ports.port, tiny.path, tiny.bodies["json"], 64, seconds=120, requests=requests
            )
            if load.requests != requests:
                raise LoadFailed(f"{requests - load.requests} of {requests} requests failed")
            sizes.append(running.rss_mb())
    few, many = sizes
    return [
        figure(f"fairway, resident after {_FIRST:,} requests", [few], "MB", "<= 100"),
        figure(f"fairway, resident after {_MANY:,} more", [many], "MB", "<= 100"),
        figure("growth between them", [100 * (many / few - 1)], "%", "<= 2"),
    ]
