"""``python -m benchmarks.fuzz``: 100,000 requests that no client should send, to servers of each kind; exits 1 on a finding."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.fuzz.drive import Outcome, drive
from benchmarks.harness import RESULTS, machine

SERVERS = ((True, 1, 0.45), (False, 1, 0.25), (True, 2, 0.3))
"""Fast lane or not, workers, share of the requests."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, default=None, help="send this one case again, to each kind of server")
    given = parser.parse_args()
    outcomes = []
    start = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, (fast_lane, workers, share) in enumerate(SERVERS):
            count = round(given.requests * share)
            numbers = range(start, start + count) if given.only is None else range(given.only, given.only + 1)
            start += count
            outcomes.append(drive(Path(folder, str(number)), given.seed, numbers, fast_lane=fast_lane, workers=workers))
    return report(outcomes, given.seed, write=given.only is None)


def report(outcomes: list[Outcome], seed: int, *, write: bool) -> int:
    table = Table(title=f"fuzz, seed {seed}")
    for column in (
        "server",
        "requests",
        "proper ones",
        "seconds",
        "MB before",
        "after",
        "files",
        "threads",
        "findings",
    ):
        table.add_column(column, justify="left" if column == "server" else "right")
    for o in outcomes:
        table.add_row(
            f"{o.lane}, {o.workers} process{'es' if o.workers > 1 else ''}, gRPC",
            f"{o.requests:,}",
            f"{o.control:,}",
            f"{o.seconds:g}",
            f"{o.before.rss_mb:g}",
            f"{o.after.rss_mb:g}",
            f"{o.before.descriptors} → {o.after.descriptors}",
            f"{o.before.threads} → {o.after.threads}",
            str(len(o.findings)),
        )
    Console(width=120).print(table)
    for o in outcomes:
        for finding in o.findings:
            print(f"\n{o.lane}, {o.workers}: {finding.what}\n  {finding.cause}", file=sys.stderr)
    if write:
        shown = [o._asdict() | {"before": o.before._asdict(), "after": o.after._asdict()} for o in outcomes]
        for each in shown:
            each["findings"] = [finding._asdict() for finding in each["findings"]]
        document = {"machine": machine(), "seed": seed, "servers": shown}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "fuzz.json").write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    return int(any(o.findings for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
