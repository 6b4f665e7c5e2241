"""Which candidate to take: a pure decision in which noise does not pick the winner."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fairway.core.metrics import Measurement, metric
from fairway.optimization.rounds import combine, compare
from fairway.optimization.settings import OptimizationSettings


class Contestant(msgspec.Struct, frozen=True):
    """What the choice needs to know of one candidate.

    Attributes
    ----------
    passed : bool
        Whether the gate lets it through.
    rounds : sequence of Measurement
        Its objective, round by round, in the same rounds as the others'.
    size_bytes : int
    """

    name: str
    passed: bool
    rounds: tuple[Measurement, ...]
    size_bytes: int


class Choice(msgspec.Struct, frozen=True):
    """The candidate taken and why, and a reason for each of the others that passed."""

    name: str
    reason: str
    others: dict[str, str] = {}


def choose(original: Contestant, candidates: Sequence[Contestant], settings: OptimizationSettings) -> Choice:
    """Take the best by ``settings.objective`` of those that passed; the original, unless another one pays.

    A candidate pays if it is better than the original beyond the noise and ``min_gain``, or cannot be told from it in
    speed and is smaller. Of several that pay and cannot be told apart, the smallest is taken, then the first.
    """
    passed = [c for c in candidates if c.passed]
    if not passed:
        return Choice(original.name, _nobody(original, candidates))
    if not original.passed:
        best = _best(passed, settings)
        reason = f"the original does not pass the gate, and this does; {settings.objective} {_shown(best)}"
        return Choice(best.name, reason, _lost(passed, best, settings))
    faster = [c for c in passed if _gain(c, original, settings) > 0]
    smaller = [c for c in passed if _same(c, original, settings) and _pays_in_size(c, original, settings)]
    if faster:
        best = _best(faster, settings)
        reason = f"{change(best, original, settings)} against the original"
    elif smaller:
        best = min(smaller, key=lambda c: c.size_bytes)
        saved = (original.size_bytes - best.size_bytes) / 1e6
        reason = f"as fast as the original within the noise, and {saved:.2f} MB smaller"
    else:
        why = {c.name: _why_not(c, original, settings) for c in passed}
        return Choice(original.name, "nothing pays: no candidate is better beyond the noise", why)
    rest = {c.name: _why_not(c, original, settings) for c in passed if c.name != best.name}
    return Choice(best.name, reason, rest | _lost(faster or smaller, best, settings))


def _nobody(original: Contestant, candidates: Sequence[Contestant]) -> str:
    if not original.passed:
        return "no candidate passes the gate, and neither does the original"
    return "no candidate passes the gate" if candidates else "nothing pays: there is no other form of this graph"


def _gain(one: Contestant, other: Contestant, settings: OptimizationSettings) -> float:
    """By how much ``one`` is surely better, beyond ``min_gain``; 0 or less if it is not."""
    found = compare(one.rounds, other.rounds, other.name)
    if not found.known:
        return -1.0
    sure = found.low if metric(settings.objective).higher_is_better else -found.high
    return sure - settings.min_gain * abs(combine(other.rounds).value)


def _same(one: Contestant, other: Contestant, settings: OptimizationSettings) -> bool:
    """Whether the two cannot be told apart, or the difference is surely below ``min_gain``."""
    found = compare(one.rounds, other.rounds, other.name)
    slack = settings.min_gain * abs(combine(other.rounds).value)
    return found.known and (found.low <= 0 <= found.high or (-slack <= found.low and found.high <= slack))


def _pays_in_size(one: Contestant, other: Contestant, settings: OptimizationSettings) -> bool:
    saved = other.size_bytes - one.size_bytes
    return saved >= max(settings.min_size_gain_mb * 1e6, settings.min_gain * other.size_bytes) and saved > 0


def _best(among: Sequence[Contestant], settings: OptimizationSettings) -> Contestant:
    sign = -1 if metric(settings.objective).higher_is_better else 1
    usable = [c for c in among if combine(c.rounds).known] or list(among)
    leader = min(usable, key=lambda c: sign * combine(c.rounds).value)
    tied = [c for c in usable if c is leader or _same(c, leader, settings)]
    lightest = min(c.size_bytes for c in tied)
    # Sizes within 1 % are the same size: the less intrusive candidate, which comes first, is then better.
    return next(c for c in tied if c.size_bytes <= lightest * 1.01)


def _lost(among: Sequence[Contestant], best: Contestant, settings: OptimizationSettings) -> dict[str, str]:
    return {c.name: f"passed; {change(c, best, settings)} against {best.name}" for c in among if c.name != best.name}


def _why_not(one: Contestant, original: Contestant, settings: OptimizationSettings) -> str:
    changed, found = change(one, original, settings), compare(one.rounds, original.rounds, original.name)
    if not found.known or found.low <= 0 <= found.high:
        return f"passed, but {changed}: not beyond the noise, and not enough smaller"
    better = found.value > 0 if metric(settings.objective).higher_is_better else found.value < 0
    return f"passed, but {changed}: {f'not surely {settings.min_gain:.0%} or more' if better else 'worse'}"


def change(one: Contestant, other: Contestant, settings: OptimizationSettings) -> str:
    """By how much ``one`` differs from ``other`` in the objective, in words."""
    found, base = compare(one.rounds, other.rounds, other.name), combine(other.rounds).value
    if not found.known:
        return found.error or found.method
    if not base:
        return f"{settings.objective} {found.value:+.4g} [{found.low:+.4g}, {found.high:+.4g}]"
    value, low, high = (100 * x / abs(base) for x in (found.value, found.low, found.high))
    return f"{settings.objective} {value:+.0f} % [{low:+.0f}, {high:+.0f}]"


def _shown(one: Contestant) -> str:
    found = combine(one.rounds)
    if not found.known:
        return found.error or found.method
    return f"is {found.value:.4g} [{found.low:.4g}, {found.high:.4g}]"
