"""How each analysis is shown: one module per analysis, of its name, with ``text(found)`` and ``page(found)``.

``text`` gives lines for a terminal, at most 100 columns; ``page`` the inside of one HTML section, rendered from
``templates/analyses/NAME.html``. :func:`shown` finds what there is to show in a report, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fairway.evaluation.settings import ANALYSES

if TYPE_CHECKING:
    from fairway.evaluation.report import Report


def shown(report: Report) -> Iterator[tuple[str, Any, Any]]:
    """Name, view module and findings of every analysis that found something."""
    for name in ANALYSES:
        if found := getattr(report.analyses, name):
            yield name, import_module(f"fairway.evaluation.views.{name}"), found
