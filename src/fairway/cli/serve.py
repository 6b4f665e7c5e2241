"""``fairway serve``."""

from __future__ import annotations

from typing import Annotated

import typer

import fairway
from fairway.cli.options import Json, ProjectPath
from fairway.cli.output import emit


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="References to follow, or bundles; default: every model that has a champion."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; [serve] host.", show_default=False)] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 for any free one; [serve] port.", show_default=False)
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option(help="Port for gRPC, off if none is set; [serve] grpc_port.", show_default=False),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(help="Processes that answer, or 'auto'; [serve] workers.", show_default=False),
    ] = None,
    project: ProjectPath = None,
    json: Json = False,
) -> None:
    """Answer over REST and gRPC (V2 inference protocol), follow the registry, and note what is seen for `observe`.

    Logs go to stderr, one JSON document per line. SIGTERM drains and stops; with workers, SIGHUP replaces them one by one.
    """
    from fairway.loop.serve import serve_forever
    from fairway.serving.footprint import few_arenas
    from fairway.serving.logs import configure_logging

    few_arenas()
    configure_logging()
    serve_forever(
        models or (),
        project=fairway.Project.find(project),
        host=host,
        port=port,
        grpc_port=grpc_port,
        workers=int(workers) if workers is not None and workers.isdecimal() else workers,
        started=lambda url: emit(f"serving on {url}; API: {url}/docs", {"url": url}, json=json, line=True),
    )
