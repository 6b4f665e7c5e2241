"""What can be set about a server."""

from __future__ import annotations

from typing import Annotated

import msgspec


class ServeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table ``[serve]``.

    Attributes
    ----------
    host, port
        Where to listen; port 0 lets the kernel pick one.
    max_body_bytes : int
        Larger request bodies are refused (413), before and after decompression.
    max_header_bytes : int
        Longer request heads are refused (431).
    max_queue_requests, max_queue_rows : int
        Per version; what arrives above is refused at once (429).
    inline_us : float
        A batch expected to take at most this many microseconds runs on the event loop: a hop to a thread costs more.
    concurrent_batches : int
        Batches of one version that may run at the same time on threads.
    poll_s : float
        How often the registry is asked whether anything changed.
    stop_delay_s : float
        After SIGTERM: how long to serve on, not ready, while load balancers take notice.
    grace_s : float
        After SIGTERM: when to end at the latest. Below what the platform waits before SIGKILL (Kubernetes: 30 s).
    keep_alive_s : float
        How long an idle connection is kept. Longer than a load balancer keeps it, so that it never meets a closed one.
    read_timeout_s : float
        How long a client may take to send one request, from its first byte to its last (408), and to take each 64 KiB of
        an answer. Raise it where large requests come over slow lines.
    access_log : bool
        One line per request, on the logger ``fairway.access``.
    fast_lane : bool
        Answer infer routes without an ASGI call. Off, everything is one Starlette application.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8000
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1)] = 64 * 2**20
    max_header_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 64 * 2**10
    max_queue_requests: Annotated[int, msgspec.Meta(ge=1)] = 2048
    max_queue_rows: Annotated[int, msgspec.Meta(ge=1)] = 65536
    inline_us: Annotated[float, msgspec.Meta(ge=0)] = 250.0
    concurrent_batches: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    poll_s: Annotated[float, msgspec.Meta(ge=0.05, le=3600)] = 0.5
    stop_delay_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    grace_s: Annotated[float, msgspec.Meta(ge=0)] = 25.0
    keep_alive_s: Annotated[float, msgspec.Meta(ge=1)] = 75.0
    read_timeout_s: Annotated[float, msgspec.Meta(ge=0.05)] = 60.0
    access_log: bool = True
    fast_lane: bool = True
