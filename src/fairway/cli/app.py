"""The ``fairway`` program: which commands there are, and how it ends."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
import typer
from typer.exceptions import Abort, TyperException

from fairway.cli.card import card
from fairway.cli.comment import comment
from fairway.cli.compare import compare
from fairway.cli.distill import distill
from fairway.cli.errors import BROKEN, DONE, INTERRUPTED, MISTAKE, exit_code
from fairway.cli.evaluate import evaluate
from fairway.cli.export import export
from fairway.cli.infer import infer
from fairway.cli.init import init
from fairway.cli.observe import observe
from fairway.cli.optimize import optimize
from fairway.cli.pack import pack
from fairway.cli.register import register
from fairway.cli.release import release
from fairway.cli.rollback import rollback
from fairway.cli.run import run
from fairway.cli.serve import serve
from fairway.cli.status import status
from fairway.core.errors import FairwayError

_HELP = """\
The whole road from a trained model to a live, watched service, under one gate.

Start with a checkpoint and a data file:

\b
  fairway init model.onnx test.parquet    write fairway.toml; set your limits
  fairway run                             convert … evaluate … register … release
  fairway serve                           answer on http://127.0.0.1:8000
  fairway infer NAME --data test.parquet  ask it
  fairway status                          what runs, and what to type next
"""

_COMMANDS: dict[Callable[..., None], str] = {
    init: "Write a fairway.toml for a checkpoint and a data file.",
    run: "The whole road: convert, evaluate, optimize, pack, release.",
    evaluate: "Score a model, slice by slice; judge it by the gate.",
    comment: "Put the Markdown of an evaluation into a pull request.",
    distill: "Teach a smaller model what this one knows.",
    optimize: "Find the best form of a model that passes the gate.",
    compare: "Say by every metric which of two models is better.",
    pack: "Write a model, with its evidence, as one bundle.",
    export: "Write a model in the layout of another server.",
    card: "Print a model card: Hugging Face or CycloneDX.",
    register: "Make a bundle the next version of its model.",
    serve: "Answer over REST; follow the registry.",
    infer: "Ask a server.",
    release: "Let callers have a version by degrees, by the evidence.",
    rollback: "Back to the version before, in one step.",
    observe: "Report drift: is the input what the model was made for?",
    status: "What runs, what happened, what to type next.",
}
"""In the order of the road."""

app = typer.Typer(
    name="fairway",
    help=_HELP,
    epilog="Exit codes: 0 done or passed, 1 failed or drifted, 2 inconclusive, 3 a mistake in what was asked, 4 broken.",
    rich_markup_mode=None,  # importing Rich's help takes longer than everything else that --help does
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"max_content_width": 100},
)
for command, summary in _COMMANDS.items():
    app.command(short_help=summary)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        import fairway

        print(fairway.version())  # noqa: T201
        raise typer.Exit(DONE)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of the program itself."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit; a user's mistake is one line on stderr, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(given, standalone_mode=False)
    except FairwayError as error:
        sys.exit(_refuse(error.code, str(error), exit_code(error), json="--json" in given))
    except TyperException as error:
        verb = f"{given[0]} " if given and given[0] in {command.__name__ for command in _COMMANDS} else ""
        usage = f"; see: fairway {verb}--help"
        sys.exit(_refuse("usage", error.format_message().rstrip(".") + usage, MISTAKE, json="--json" in given))
    except (KeyboardInterrupt, Abort):
        sys.exit(INTERRUPTED)
    except OSError as error:  # a full disk, a folder that may not be written: nothing is left half-done
        where = f": {error.filename}" if error.filename else ""
        advice = "; free some space, or raise the limit, then run it again" if error.errno in _NO_SPACE else ""
        what = f"{error.strerror or error}{where}{advice}"
        sys.exit(_refuse("system", what, BROKEN, json="--json" in given))
    sys.exit(code if isinstance(code, int) else DONE)


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _refuse(code: str, message: str, status: int, *, json: bool) -> int:
    if json:
        sys.stdout.write(msgspec.json.encode({"error": {"code": code, "message": message}}).decode() + "\n")
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return status
