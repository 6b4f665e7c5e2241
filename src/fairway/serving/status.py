"""Every error's form on every wire: the one table."""

from __future__ import annotations

from typing import NamedTuple

from fairway.core.errors import FairwayError


class Wire(NamedTuple):
    """How one error looks outside: HTTP status, gRPC status name, what a queue consumer does with the message."""

    http: int
    grpc: str
    queue: str


WIRE: dict[str, Wire] = {
    "error": Wire(500, "INTERNAL", "dead_letter"),
    "invalid_request": Wire(400, "INVALID_ARGUMENT", "dead_letter"),
    "invalid_config": Wire(400, "INVALID_ARGUMENT", "dead_letter"),
    "invalid_data": Wire(400, "INVALID_ARGUMENT", "dead_letter"),
    "invalid_source": Wire(400, "INVALID_ARGUMENT", "dead_letter"),
    "untrusted_source": Wire(403, "PERMISSION_DENIED", "dead_letter"),
    "conversion_mismatch": Wire(409, "FAILED_PRECONDITION", "dead_letter"),
    "invalid_bundle": Wire(500, "FAILED_PRECONDITION", "dead_letter"),
    "newer_format": Wire(500, "FAILED_PRECONDITION", "dead_letter"),
    "invalid_signature": Wire(500, "FAILED_PRECONDITION", "dead_letter"),
    "missing_extra": Wire(500, "FAILED_PRECONDITION", "dead_letter"),
    "unsupported_machine": Wire(500, "FAILED_PRECONDITION", "dead_letter"),
    "model_not_found": Wire(404, "NOT_FOUND", "dead_letter"),
    "model_not_ready": Wire(503, "UNAVAILABLE", "retry"),
    "conflict": Wire(409, "ABORTED", "retry"),
    "registry_unavailable": Wire(503, "UNAVAILABLE", "retry"),
    "gate_refused": Wire(409, "FAILED_PRECONDITION", "dead_letter"),
    "not_enabled": Wire(403, "PERMISSION_DENIED", "dead_letter"),
    "region_not_found": Wire(404, "NOT_FOUND", "dead_letter"),
    "request_too_large": Wire(413, "RESOURCE_EXHAUSTED", "dead_letter"),
    "unsupported_encoding": Wire(415, "UNIMPLEMENTED", "dead_letter"),
    "overloaded": Wire(429, "RESOURCE_EXHAUSTED", "retry"),
    "memory_exceeded": Wire(503, "RESOURCE_EXHAUSTED", "retry"),
    "deadline_exceeded": Wire(504, "DEADLINE_EXCEEDED", "dead_letter"),
    "inference_failed": Wire(500, "INTERNAL", "dead_letter"),
    "worker_failed": Wire(500, "INTERNAL", "dead_letter"),
    "server_unavailable": Wire(502, "UNAVAILABLE", "retry"),
}
"""By the error's ``code``. A test asserts that every class has a row."""


def wire(error: FairwayError) -> Wire:
    """The row of ``error``, or of its nearest base that has one."""
    if error.code in WIRE:  # also where another process raised it, and only its code came here
        return WIRE[error.code]
    return next(WIRE[code] for base in type(error).__mro__ if (code := getattr(base, "code", "")) in WIRE)


def is_fault_of_server(error: FairwayError) -> bool:
    """Whether a valid request got no answer: what error rates count."""
    status = wire(error).http
    return status >= 500 or status == 429
