"""Torch modules, called as a bundle's graph is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any


def answer_of(module: Any, feed: Mapping[str, Any]) -> Any:
    """What ``module`` answers to tensors by name: its logits, or its only or first tensor.

    Inputs are passed by name where ``forward`` knows all names, else in order.
    """
    known = inspect.signature(module.forward).parameters
    made = module(**feed) if set(feed) <= set(known) else module(*feed.values())
    if hasattr(made, "logits"):
        return made.logits
    while not hasattr(made, "detach"):
        made = next(iter(made.values() if hasattr(made, "values") else made))
    return made
