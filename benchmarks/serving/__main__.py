"""``python -m benchmarks.serving``: see the package."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.harness import Figure
from benchmarks.serving import __doc__ as about
from benchmarks.serving.contestants import (
    GRPC_BARE,
    GRPC_CONSTANT,
    PEER_LIST,
    PROBE,
    QUIET,
    Contestant,
    fairway_variants,
    nginx,
    of_fairway,
)
from benchmarks.serving.figures import FAIRWAY, LIMITS, ratios, rows
from benchmarks.serving.heats import Cores, Effort, Heat, Measured, run_heat
from benchmarks.serving.load import LoadFailed
from benchmarks.serving.memory import memory_figures
from benchmarks.serving.start import NotStarted
from benchmarks.serving.tables import save, show
from benchmarks.serving.tail import tail_figures
from benchmarks.serving.workloads import WORKLOADS, Workload

_PLAIN = of_fairway(FAIRWAY, QUIET, ("json", "binary"))
_GRPC = of_fairway(FAIRWAY, QUIET, ("grpc",))
_ALL = of_fairway(FAIRWAY, QUIET, ("json", "binary", "grpc"))


def main() -> None:
    options = _options()
    if shutil.which("taskset") is None:
        sys.exit("this needs Linux with taskset (Debian: util-linux)")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two cores are needed: one for the server, one for the load generator")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        measured, figures, left_out = _measure(options, Cores(cores[0], cores[1]), Path(temporary))
    table, said = rows(measured), [*ratios(measured), *figures]
    show(table, said, left_out)
    print(f"took {time.monotonic() - began:.0f} s")
    if options.save:
        save(table, said, left_out, quick=options.quick)
    lost = [reason for reason in left_out if reason.startswith(f"{FAIRWAY}, ") and "is not installed" not in reason]
    sys.exit(bool(lost) or any(each.holds is False for each in said))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-serving", description=about)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, which the results say")
    parser.add_argument("--save", action="store_true", help="write the results also where only a part is measured")
    parser.add_argument("--only", nargs="*", help="parts of names: only servers with one of them, besides Fairway")
    parser.add_argument("--workloads", nargs="*", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--parts", nargs="*", choices=_PARTS, default=list(_PARTS))
    options = parser.parse_args()
    whole = not options.only and set(options.workloads) == set(WORKLOADS) and set(options.parts) == set(_PARTS)
    options.save = whole or options.save
    return options


_PARTS = ("limits", "grpc", "peers", "tail", "memory")


def _measure(options: argparse.Namespace, cores: Cores, folder: Path) -> tuple[list[Measured], list[Figure], list[str]]:
    measured: list[Measured] = []
    figures: list[Figure] = []
    left_out: list[str] = []
    workloads: dict[str, Workload] = {}
    for name in options.workloads:
        place = folder / name
        place.mkdir()
        workload = workloads[name] = WORKLOADS[name](place)
        for heat, effort in _heats(workload, options, place, left_out):
            got, missed = run_heat(heat, workload, effort, cores, place)
            measured += got
            left_out += missed
    effort = Effort(2, 0.3) if options.quick else Effort(3, 1.0)
    if "tail" in options.parts and {"tiny", "vision"} <= set(workloads):
        try:
            figures += tail_figures(workloads["tiny"], workloads["vision"], effort, cores, folder)
        except (NotStarted, LoadFailed) as error:
            left_out.append(f"{FAIRWAY}, p99 at 80% of the most: {error}")
    if "memory" in options.parts and "tiny" in workloads:
        try:
            figures += memory_figures(workloads["tiny"], cores, folder)
        except (NotStarted, LoadFailed) as error:
            left_out.append(f"{FAIRWAY}, memory: {error}")
    return measured, figures, list(dict.fromkeys(left_out))


def _heats(
    workload: Workload, options: argparse.Namespace, folder: Path, left_out: list[str]
) -> Iterator[tuple[Heat, Effort]]:
    """Those of one workload, each with how much it is measured."""
    tiny = workload.name == "tiny"
    many = Effort(2, 1.0) if options.quick else Effort(5 if tiny else 3, 1.0)
    few = Effort(1, 1.0) if options.quick else Effort(3 if tiny else 2, 1.0)
    if "limits" in options.parts:
        if tiny:
            constant = nginx()
            if isinstance(constant, str):
                left_out.append(f"nginx answering a constant: {constant}")
            named = [
                PROBE,
                *([] if isinstance(constant, str) else [constant]),
                *fairway_variants(_registry(workload, folder)),
            ]
            yield Heat(LIMITS, [_PLAIN, *_wanted(named, options.only)], in_process=True), many
        else:
            yield Heat(LIMITS, [_ALL], in_process=True), many
    if "grpc" in options.parts and tiny:
        yield Heat("gRPC", [_GRPC, *_wanted([GRPC_BARE, GRPC_CONSTANT], options.only)]), many
    if "peers" not in options.parts:
        return
    for peer in PEER_LIST:
        if not (tiny or peer.batches) or (options.only and not any(part in peer.name for part in options.only)):
            continue
        contestant = peer.contestant()
        if isinstance(contestant, str):
            left_out.append(f"{peer.name}: {contestant}")
            continue
        beside = of_fairway(FAIRWAY, QUIET, tuple(dict.fromkeys(["json", *(w for w in peer.wires if w != "arrays")])))
        yield Heat(peer.name, [beside, contestant], connections=None if tiny else workload.connections[-1:]), few


def _wanted(contestants: Sequence[Contestant], only: Sequence[str] | None) -> list[Contestant]:
    return [c for c in contestants if not only or any(part in c.name for part in only)]


def _registry(workload: Workload, folder: Path) -> str:
    """Lines of fairway.toml for a registry in which the model is the champion."""
    from fairway.registry.settings import RegistrySettings
    from fairway.registry.store import Registry

    settings = RegistrySettings(url=f"sqlite:///{folder}/registry.db", blobs=f"{folder}/blobs")
    with Registry.open(settings) as registry:
        number = registry.register(workload.bundle).number
        registry.set_alias(workload.served_as, "champion", number, actor="benchmark")
    return f'[registry]\nurl = "{settings.url}"\nblobs = "{settings.blobs}"\n'


if __name__ == "__main__":
    main()
