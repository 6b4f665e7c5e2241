"""``python -m benchmarks.serving``: see the package."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Figure
from benchmarks.serving import __doc__ as about
from benchmarks.serving.collector import collector
from benchmarks.serving.figures import FAIRWAY, ratios, rows
from benchmarks.serving.heats import Cores, Effort, Measured, run_heat
from benchmarks.serving.load import LoadFailed
from benchmarks.serving.memory import memory_figures
from benchmarks.serving.plan import PARTS, Plan
from benchmarks.serving.start import NotStarted
from benchmarks.serving.tables import save, show
from benchmarks.serving.tail import tail_figures
from benchmarks.serving.workloads import WORKLOADS, Workload


def main() -> None:
    options = _options()
    if shutil.which("taskset") is None:
        sys.exit("this needs Linux with taskset (Debian: util-linux)")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two cores are needed: one for the server, one for the load generator")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, collector() as options.collector:
        measured, figures, left_out = _measure(options, Cores(cores[0], cores[1]), Path(temporary))
    table, said = rows(measured), [*ratios(measured), *figures]
    show(table, said, left_out)
    print(f"took {time.monotonic() - began:.0f} s")
    if options.save:
        save(table, said, left_out, quick=options.quick, merge=options.merge)
    lost = [reason for reason in left_out if reason.startswith(f"{FAIRWAY}, ") and "is not installed" not in reason]
    sys.exit(bool(lost) or any(each.holds is False for each in said))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-serving", description=about)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, which the results say")
    parser.add_argument("--save", action="store_true", help="write the results also where only a part is measured")
    parser.add_argument("--merge", action="store_true", help="as --save, but keep what this run does not measure")
    parser.add_argument("--only", nargs="*", help="parts of names: only servers with one of them, besides Fairway")
    parser.add_argument("--workloads", nargs="*", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    whole = not options.only and set(options.workloads) == set(WORKLOADS) and set(options.parts) == set(PARTS)
    options.save = whole or options.save or options.merge
    return options


def _measure(options: argparse.Namespace, cores: Cores, folder: Path) -> tuple[list[Measured], list[Figure], list[str]]:
    measured: list[Measured] = []
    figures: list[Figure] = []
    left_out: list[str] = []
    workloads: dict[str, Workload] = {}
    for name in options.workloads:
        place = folder / name
        place.mkdir()
        workload = workloads[name] = WORKLOADS[name](place)
        plan = Plan(workload, quick=options.quick, parts=options.parts, only=options.only, collector=options.collector)
        for heat, effort in plan.heats(place, left_out):
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


if __name__ == "__main__":
    main()
