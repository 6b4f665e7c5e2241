"""Every error that Fairway raises on purpose: what happened, and what to do about it.

No error knows a wire or an exit code: ``fairway.serving.status`` and ``fairway.cli`` each hold one table for that.
"""

from __future__ import annotations

from collections.abc import Iterable


class FairwayError(Exception):
    """Base of all errors that a user can act on. ``code`` is stable; the message is for people."""

    code = "error"


class InvalidConfig(FairwayError):
    """``fairway.toml`` or an option is wrong. The message names the file, the key and the nearest valid name."""

    code = "invalid_config"


class InvalidData(FairwayError):
    """A data file cannot be read, or does not fit the model. Every mismatch is listed at once."""

    code = "invalid_data"


class InvalidSource(FairwayError):
    """A checkpoint cannot be read or converted."""

    code = "invalid_source"


class UntrustedSource(FairwayError):
    """Reading this checkpoint would run code that it carries."""

    code = "untrusted_source"


class ConversionMismatch(FairwayError):
    """The bundle does not answer what the original answers."""

    code = "conversion_mismatch"


class InvalidBundle(FairwayError):
    """A bundle is truncated, altered, incomplete or not a bundle."""

    code = "invalid_bundle"


class NewerFormat(InvalidBundle):
    """The bundle or registry was written by a newer Fairway."""

    code = "newer_format"


class InvalidSignature(FairwayError):
    """A bundle's signature is absent or does not match."""

    code = "invalid_signature"


class MissingExtra(FairwayError):
    """An optional dependency is needed."""

    code = "missing_extra"

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"this needs {module!r}, which is not installed; run: pip install 'fairway[{extra}]'")
        self.module = module
        self.extra = extra


class UnsupportedMachine(FairwayError):
    """The processor here lacks what a bundle was optimized for. The message names it, and what there is."""

    code = "unsupported_machine"


class ModelNotFound(FairwayError):
    """No such model, version or alias."""

    code = "model_not_found"

    def __init__(self, ref: str, known: Iterable[str] = ()) -> None:
        super().__init__(f"no model {ref!r}; known here: {', '.join(sorted(known)) or 'none'}")
        self.ref = ref


class ModelNotReady(FairwayError):
    """The model exists but cannot answer yet, or no longer."""

    code = "model_not_ready"


class Conflict(FairwayError):
    """Somebody else changed the same thing first. Look again, then decide."""

    code = "conflict"


class RegistryUnavailable(FairwayError):
    """The registry's database or blob store cannot be reached or written."""

    code = "registry_unavailable"


class GateRefused(FairwayError):
    """The gate does not let this version through."""

    code = "gate_refused"


class InvalidRequest(FairwayError):
    """An inference request that does not fit the protocol or the model."""

    code = "invalid_request"


class NotEnabled(FairwayError):
    """Asked for something that this server's settings leave off. The message names the setting."""

    code = "not_enabled"


class RegionNotFound(FairwayError):
    """No shared memory region of that name is registered."""

    code = "region_not_found"


class RequestTooLarge(FairwayError):
    """A request above a stated limit."""

    code = "request_too_large"


class UnsupportedEncoding(FairwayError):
    """A content encoding that this server does not read."""

    code = "unsupported_encoding"


class Overloaded(FairwayError):
    """The queue is full; the request was not started. ``retry_after_s`` says when to come back."""

    code = "overloaded"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class MemoryExceeded(FairwayError):
    """A model does not fit into the server's memory budget. The message names budget, need and what is loaded."""

    code = "memory_exceeded"


class DeadlineExceeded(FairwayError):
    """The request's own time limit passed before it ran."""

    code = "deadline_exceeded"


class InferenceFailed(FairwayError):
    """The engine raised. The caller's input passed validation, so this is the model's fault."""

    code = "inference_failed"


class WorkerFailed(FairwayError):
    """The server's worker processes end before they can answer. The message has the last that one of them said."""

    code = "worker_failed"


class ServerUnavailable(FairwayError):
    """The client could not reach a server."""

    code = "server_unavailable"


def rebuilt(kind: type[FairwayError], message: str) -> FairwayError:
    """An error that another process raised, of whose kind and message only is known.

    Examples
    --------
    >>> str(rebuilt(KINDS["model_not_found"], "no model 'digits'; known here: none"))
    "no model 'digits'; known here: none"
    """
    error = kind.__new__(kind)
    Exception.__init__(error, message)  # the text is whole already: not for the constructors that compose one
    if isinstance(error, ModelNotFound):
        error.ref = ""
    if isinstance(error, Overloaded):
        error.retry_after_s = 1.0
    if isinstance(error, MissingExtra):
        error.module = error.extra = ""
    return error


KINDS: dict[str, type[FairwayError]] = {
    kind.code: kind for kind in list(globals().values()) if isinstance(kind, type) and issubclass(kind, FairwayError)
}
"""Every error above by its ``code``."""
