"""Processing steps by name. A step is pure: tensors in, tensors out, rows kept."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fairway.core.errors import InvalidBundle
from fairway.core.manifest import Step
from fairway.core.tensors import Tensors
from fairway.processing.text import Tokenize


class Transform(Protocol):
    """A loaded step. Thread-safe."""

    def __call__(self, tensors: Tensors) -> Tensors:
        """Transform all rows at once, keeping their order and number."""
        ...


def load_step(step: Step, directory: Path) -> Transform:
    """Load a declared step, its files being in the bundle's ``directory``. Raises :class:`InvalidBundle` if unknown."""
    if step.name not in _STEPS:
        raise InvalidBundle(f"this bundle declares step {step.name!r}; this Fairway knows: {', '.join(sorted(_STEPS))}")
    try:
        return _STEPS[step.name](directory, **step.parameters)
    except TypeError as error:
        raise InvalidBundle(f"step {step.name!r} has wrong parameters: {error}") from None


_STEPS = {"tokenize": Tokenize}
