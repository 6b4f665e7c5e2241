"""``python -m fairway.testing.conformance URL``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fairway.testing.conformance.models import write_models
from fairway.testing.conformance.report import SIGNS, Result
from fairway.testing.conformance.runner import run, select
from fairway.testing.conformance.target import Target

MISTAKE, BROKEN = 3, 4


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, print. Exits 0: conforms; 1: does not; 2: could not be told; 3: wrong options; 4: no server."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.write_models is not None:
        for folder in write_models(options.write_models, options.layout):
            print(folder)  # noqa: T201
        return 0
    if options.url is None or not options.url.startswith(("http://", "https://")):
        parser.error("give the URL of a server, such as http://127.0.0.1:8000 (or --write-models DIRECTORY)")
    given = {
        "grpc": options.grpc,
        "model": options.model,
        "timeout_s": options.timeout,
        "assume_all": options.assume_all,
    }
    with Target(options.url, **given) as target:
        if not target.alive():
            print(f"no server answers at {options.url}; start it, or correct the URL", file=sys.stderr)  # noqa: T201
            return BROKEN
        chosen, told = select(options.only, options.skip), _tell if options.progress else None
        report = run(target, options.level, only=chosen, told=told, patience_s=options.patience)
    if options.junit is not None:
        options.junit.write_text(report.as_junit(), "utf-8")
    print(report.as_json() if options.json else report.as_text(verbose=options.verbose))  # noqa: T201
    return report.exit_code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(MISTAKE, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("python -m fairway.testing.conformance", description=__doc__)
    add = parser.add_argument
    add("url", nargs="?", help="the server's REST side, such as http://127.0.0.1:8000")
    add("--grpc", metavar="HOST:PORT", help="the server's gRPC side")
    add("--model", metavar="NAME", help="the model for cases that any model can show")
    add(
        "--level",
        choices=("oip", "triton", "robust"),
        default="triton",
        help="how far to go; robust may crash a server",
    )
    add("--only", action="append", default=[], metavar="WORD", help="only cases whose id holds WORD (may be repeated)")
    add("--skip", action="append", default=[], metavar="WORD", help="no cases whose id holds WORD (may be repeated)")
    add("--patience", type=float, default=5.0, metavar="SECONDS", help="for a server that stopped to be back (5)")
    add("--assume-all", action="store_true", help="test extensions that the server's metadata do not name, too")
    add("--timeout", type=float, default=20.0, metavar="SECONDS", help="for each answer (20)")
    add("--json", action="store_true", help="print one JSON document")
    add("--junit", type=Path, metavar="FILE", help="also write JUnit XML")
    add("--verbose", action="store_true", help="list every case")
    add("--progress", action="store_true", help="name each case on stderr as it ends")
    add("--write-models", type=Path, metavar="DIRECTORY", help="write the suite's models instead, to deploy them")
    add("--layout", choices=("triton", "triton-python", "bundle"), default="triton", help="of --write-models")
    return parser


def _tell(result: Result) -> None:
    print(SIGNS[result.outcome], result.id, result.why, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
