"""Inference requests and responses, whatever the wire."""

from __future__ import annotations

from typing import Any

import msgspec

from fairway.core.tensors import Tensors


class InferRequest(msgspec.Struct, frozen=True, eq=False):
    """One call of one model.

    Attributes
    ----------
    model : str
    inputs : mapping of name to array
    version : str or None
        ``None``: whichever version the release routes this caller to.
    id : str or None
        Echoed in the response.
    outputs : tuple of str or None
        The outputs wanted; ``None`` is all.
    parameters : dict
        ``raw``: skip pre- and post-processing. ``timeout``: microseconds. Others are kept.
    route_key : str or None
        Callers with the same key stay with one version while a release is in progress.
    finite : bool
        Whether all numbers are known to be finite, since the wire's form holds no others: then nobody needs to look.
    """

    model: str
    inputs: Tensors
    version: str | None = None
    id: str | None = None
    outputs: tuple[str, ...] | None = None
    parameters: dict[str, Any] = {}
    route_key: str | None = None
    finite: bool = False


class InferResponse(msgspec.Struct, frozen=True, eq=False):
    """The answer of exactly one version."""

    model: str
    version: str
    outputs: Tensors
    id: str | None = None
    parameters: dict[str, Any] = {}
