"""Logs for whoever runs a server: one line of JSON per event, in the Elastic Common Schema, on stderr.

The library never configures logging; the command line calls :func:`configure_logging`.
"""

from __future__ import annotations

import logging
import sys

access = logging.getLogger("fairway.access")


def configure_logging(level: int = logging.INFO) -> None:
    """Send Fairway's logs at ``level`` and above, and every other library's warnings, to stderr as ECS JSON lines."""
    import ecs_logging

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ecs_logging.StdlibFormatter(exclude_fields=["process", "log.origin", "log.original"]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("fairway").setLevel(level)


def log_request(method: str, path: str, status: int, *, seconds: float, size: int, client: str) -> None:
    """One line per request, in ECS field names. ``seconds`` is the time to the answer, ``size`` the answer's body bytes."""
    access.info(
        "%s %s %d",
        method,
        path,
        status,
        extra={
            "http.request.method": method,
            "url.path": path,
            "http.response.status_code": status,
            "http.response.body.bytes": size,
            "event.duration": int(seconds * 1e9),
            "client.address": client,
        },
    )
