"""How checks are shown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fairway.evaluation.analyses.checks import judge_checks
from fairway.evaluation.pages import render_part
from fairway.evaluation.words import estimate, interval, number, outcome

if TYPE_CHECKING:
    from markupsafe import Markup

    from fairway.evaluation.analyses.checks import CheckReport

TITLE = "Behavior checks"


def text(found: Sequence[CheckReport]) -> Iterator[str]:
    """One or two lines per check."""
    for each in found:
        limit = f", limit ≤ {number(each.limit)}: {_outcome(each)}" if each.limit is not None else ""
        rate = each.failure_rate
        line = f"{each.name} ({each.kind}; {each.about}): fails in {estimate(rate)} {interval(rate)} of {rate.n:,} rows{limit}"
        yield from textwrap.wrap(line, 100, initial_indent="  ", subsequent_indent="    ")


def page(found: Sequence[CheckReport]) -> Markup:
    """A table."""
    return render_part("checks", found=found, outcome=_outcome, estimate=estimate, interval=interval, number=number)


def _outcome(each: CheckReport) -> str:
    return outcome(judge_checks([each]).findings) if each.limit is not None else ""
