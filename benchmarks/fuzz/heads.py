"""Management endpoints, and whole connections of HTTP/1.1, damaged anywhere."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from benchmarks.fuzz.mutate import broken, dump, mutated
from benchmarks.fuzz.names import REGION, SPARE

_PATHS = (
    "/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/logging", "/v2/trace/setting", "/v2/repository/index",
    "/v2/repository/models/{m}/load", "/v2/repository/models/{m}/unload", "/v2/models/stats", "/v2/models/{m}",
    "/v2/models/{m}/versions/{v}", "/v2/models/{m}/ready", "/v2/models/{m}/config", "/v2/models/{m}/stats",
    "/v2/models/{m}/versions/{v}/ready", "/v2/models/{m}/versions/{v}/stats", "/v2/models/{m}/trace/setting",
    "/v2/systemsharedmemory/status", "/v2/systemsharedmemory/region/{r}/status", "/v2/systemsharedmemory/region/{r}/register",
    "/v2/systemsharedmemory/region/{r}/unregister", "/v2/systemsharedmemory/unregister", "/v2/cudasharedmemory/status",
    "/v2/cudasharedmemory/region/{r}/register", "/v2/cudasharedmemory/unregister", "/metrics", "/openapi.json", "/docs",
    "/nope",     "/v2/models/{m}/infer", "/v2//models", "/v2/models//infer", "*", "http://elsewhere/v2",
)  # fmt: skip
_BODIES: tuple[dict[str, Any], ...] = (
    {}, {"ready": True}, {"log_verbose_level": 0}, {"log_format": "default"}, {"log_info": True}, {"trace_level": ["OFF"]},
    {"trace_level": ["TIMESTAMPS"], "trace_rate": "100", "trace_count": "-1"}, {"trace_mode": "opentelemetry"},
    {"parameters": {"unload_dependents": False}}, {"parameters": {}}, {"parameters": {"config": '{"max_batch_size": 4}'}},
    {"parameters": {"config": "{}", "file:model.onnx": "AAAA"}}, {"key": REGION, "byte_size": 4096, "offset": 0},
    {"key": REGION, "byte_size": 64, "offset": 4000}, {"key": "/" + REGION, "byte_size": 1, "offset": 4095},
)  # fmt: skip


def management(random: Random) -> bytes:
    """One request to anything but inference."""
    name = random.choice((SPARE, SPARE, "linear", "every", "absent", "x" * 200, "%ff", "a%2f..%2fb", "%00"))
    path = random.choice(_PATHS)
    if "load" in path and random.random() < 0.9:
        name = SPARE if random.random() < 0.3 else "absent"
    elif "load" in path and name in ("linear", "every"):
        name = SPARE
    version = random.choice(("1", "1", "01", "7", "x", "-1", "9" * 60))
    target = path.format(m=name, v=version, r=random.choice(("r0", "r1", "none", "%ff", "y" * 200)))
    if random.random() < 0.05:
        target += random.choice(("?x=1", "?" + "q" * 500, "#f", "/", "//", "%", "%zz", ";"))
    method = random.choice(("GET",) * 5 + ("POST",) * 6 + ("PUT", "DELETE", "OPTIONS", "PATCH"))
    body = b""
    if method == "POST" or random.random() < 0.1:
        body = dump(broken(random, random.choice(_BODIES))).encode("utf-8", "surrogatepass")
        if random.random() < 0.15:
            body = mutated(random, body)
    lines = (
        b""
        if random.random() < 0.8
        else b"accept: application/openmetrics-text;version=\xff\r\ncontent-encoding: gzip\r\n"
    )
    request = b"%b %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b"
    return request % (method.encode(), target.encode(), lines, len(body), body)


def _good() -> tuple[bytes, ...]:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.5] * 4}
    body = json.dumps({"inputs": [tensor]}).encode()
    infer = b"POST /v2/models/linear/infer HTTP/1.1\r\nhost: x\r\n"
    plain = infer + b"content-length: %d\r\n\r\n" % len(body) + body
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:40], body[40:]))
    chunked = infer + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    get = b"GET /v2/models/linear HTTP/1.1\r\nhost: x\r\n\r\n"
    expect = infer + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    upgrade = infer + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    upgrade += b"content-length: %d\r\n\r\n" % len(body) + body
    old = b"POST /v2/models/linear/infer HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    index = b"POST /v2/repository/index HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    chunked_index = b"POST /v2/repository/index HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    chunked_index += b"2\r\n{}\r\n0\r\nx: y\r\n\r\n"
    tunnel = b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n"
    return (
        plain,
        chunked,
        get,
        expect,
        upgrade,
        old,
        index,
        chunked_index,
        tunnel,
        plain + plain + get + chunked + plain,
    )


_GOOD = _good()


def connection(random: Random) -> bytes:
    """All that one client sends."""
    data = b"".join(random.choice(_GOOD) for _ in range(random.choice((1, 1, 1, 2, 3))))
    kind = random.random()
    if kind < 0.08:
        data = random.randbytes(random.randrange(1, 300))
    elif kind < 0.2:
        data = data[: random.randrange(len(data) + 1)]
    elif kind < 0.95:
        data = mutated(random, data, _GOOD)
    return data
