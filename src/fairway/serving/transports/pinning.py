"""Requests whose answer takes its form from the version that gives it: that version is chosen before they run."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fairway.core.messages import InferRequest
from fairway.serving.classification import check_classifiable
from fairway.serving.models import Models
from fairway.serving.served import Description
from fairway.serving.transports.v2 import OutputOptions


def pinned(models: Models, request: InferRequest, options: Iterable[OutputOptions]) -> tuple[InferRequest, Description]:
    """The request for the very version that answers it, and what is known of that, such as the labels of its classes.

    Raises
    ------
    FairwayError
        If there is no such version, or it has no classes for an output of which they are asked.
    """
    key = request.route_key if request.route_key is not None else request.id
    known = models.describe(request.model, request.version, key)
    classes = {option.name for option in options if option.classification}
    for spec in known.raw_outputs if request.parameters.get("raw") is True else known.outputs:
        if spec.name in classes:
            check_classifiable(spec)
    return msgspec.structs.replace(request, version=known.version), known
