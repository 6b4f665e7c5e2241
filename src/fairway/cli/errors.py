"""Exit codes: one table for every error, and for every outcome of a gate."""

from __future__ import annotations

from fairway.core.errors import FairwayError
from fairway.core.gate import Outcome

DONE, FAILED, INCONCLUSIVE, MISTAKE, BROKEN, INTERRUPTED = 0, 1, 2, 3, 4, 130

EXIT_CODES = {
    "error": BROKEN,
    "invalid_config": MISTAKE,
    "invalid_data": MISTAKE,
    "invalid_source": MISTAKE,
    "untrusted_source": MISTAKE,
    "conversion_mismatch": FAILED,
    "invalid_bundle": MISTAKE,
    "newer_format": BROKEN,
    "invalid_signature": FAILED,
    "missing_extra": BROKEN,
    "unsupported_machine": BROKEN,
    "model_not_found": MISTAKE,
    "model_not_ready": BROKEN,
    "conflict": MISTAKE,
    "registry_unavailable": BROKEN,
    "gate_refused": FAILED,
    "invalid_request": MISTAKE,
    "not_enabled": MISTAKE,
    "region_not_found": MISTAKE,
    "request_too_large": MISTAKE,
    "unsupported_encoding": MISTAKE,
    "overloaded": BROKEN,
    "memory_exceeded": MISTAKE,
    "deadline_exceeded": BROKEN,
    "inference_failed": BROKEN,
    "worker_failed": BROKEN,
    "server_unavailable": BROKEN,
}
"""What the process exits with, by ``FairwayError.code``. See decision 0004."""

OUTCOME_CODES = {
    Outcome.PASSED: DONE,
    Outcome.NOT_APPLICABLE: DONE,
    Outcome.FAILED: FAILED,
    Outcome.INCONCLUSIVE: INCONCLUSIVE,
    Outcome.ERROR: BROKEN,
}

REPLAY_CODES = {"same": DONE, "differs": FAILED, "could not be made": BROKEN}
"""By the outcome of a replayed recipe."""


def exit_code(error: FairwayError) -> int:
    """The exit code of an error; unknown ones, from plug-ins, are ``BROKEN``."""
    return EXIT_CODES.get(error.code, BROKEN)
