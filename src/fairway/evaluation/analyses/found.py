"""What the analyses found, by name, and the one function that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from fairway.evaluation.analyses.errors import ErrorExample
from fairway.evaluation.settings import ANALYSES

if TYPE_CHECKING:
    from fairway.evaluation.analyses.base import Subject


class Analyses(msgspec.Struct, frozen=True, omit_defaults=True):
    """What each analysis found; ``None`` where it was not run, or does not apply.

    Attributes
    ----------
    errors : tuple of ErrorExample or None
        The rows that the model gets most wrong.
    """

    errors: tuple[ErrorExample, ...] | None = None


def analyse(subject: Subject, names: Sequence[str] = ANALYSES) -> Analyses:
    """Run the named analyses."""
    found = {name: import_module(f"fairway.evaluation.analyses.{name}").analyse(subject) for name in names}
    return Analyses(**found)
