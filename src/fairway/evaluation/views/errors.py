"""How the worst rows are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fairway.evaluation.pages import render_part
from fairway.evaluation.words import number

if TYPE_CHECKING:
    from markupsafe import Markup

    from fairway.evaluation.analyses.errors import ErrorExample

TITLE = "Worst rows"


def text(found: Sequence[ErrorExample]) -> Iterator[str]:
    """One line per row, the five worst."""
    for each in found[:5]:
        yield f"  row {each.row}: {each.label} taken for {each.predicted} ({number(each.badness)})"


def page(found: Sequence[ErrorExample]) -> Markup:
    """A table."""
    return render_part("errors", found=found, columns=list(found[0].values), number=number)
