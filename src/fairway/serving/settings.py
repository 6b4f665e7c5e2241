"""What can be set about a server."""

from __future__ import annotations

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
    access_log : bool
        One line per request, on the logger ``fairway.access``.
    fast_lane : bool
        Answer infer routes without an ASGI call. Off, everything is one Starlette application.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_body_bytes: int = 64 * 2**20
    max_header_bytes: int = 64 * 2**10
    max_queue_requests: int = 2048
    max_queue_rows: int = 65536
    inline_us: float = 250.0
    concurrent_batches: int = 1
    poll_s: float = 0.5
    stop_delay_s: float = 5.0
    grace_s: float = 25.0
    keep_alive_s: float = 75.0
    access_log: bool = True
    fast_lane: bool = True
