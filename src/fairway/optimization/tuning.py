"""How a form is served best on a number of cores: threads, workers, rows of a call, waiting and kept answers, in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import TypeAlias

import msgspec

from fairway.bundle.format import Bundle
from fairway.core.gate import Gate, Limit, judge
from fairway.core.manifest import Cost, EngineSpec
from fairway.core.metrics import Measurement, described, metric
from fairway.optimization.choice import Contestant, change, choose
from fairway.optimization.report import Tuned, TunedWay, Tuning
from fairway.optimization.rounds import combine
from fairway.optimization.scoring import Rounds, measure_rounds, objective_rounds
from fairway.optimization.search.journal import Journal, Round
from fairway.optimization.settings import OptimizationSettings

Serve: TypeAlias = Callable[[Bundle, Tuning], Sequence[Measurement]]
"""Measures a bundle, served in a way, at the loads that the gate names."""

_SPLITS_US = 500.0
"""A shorter call gains nothing from more threads: handing work to them takes longer."""
_LONGER = 4
_LESS = 0.9
"""A limit so many times as large is tried where a row would then cost so much less, going by the cost curve."""
_MEETING = 0.3
"""Where the load keeps the cores busy for less than this share of the time, batches are hardly ever of two requests."""
_FLAT = 1.3
"""A call of two rows costs at most so much more than one of one, where waiting may pay."""
_CACHE_BYTES = 64_000_000
_MEASURED = 3
"""Ways that are measured in all rounds, the bundle's own among them; of more, one round decides."""


def tunings(
    spec: EngineSpec, cost: Cost, cores: int, rps: float = math.inf, *, repeats: bool = False
) -> tuple[Tuning, ...]:
    """Ways worth trying, the bundle's own first; workers take the cores that one call's threads leave.

    What computes on an accelerator has one worker, and the bundle's threads. Else threads double up to ``cores``, unless
    calls are too short to be shared. Limits on rows come from the cost curve: where more rows save hardly anything, and a
    larger one where they still save much. Waiting is tried where a call of two rows costs hardly more than one of one.
    Neither matters where the cores are so little busy that requests seldom meet. Keeping answers is tried with any number of
    threads.

    Parameters
    ----------
    rps : float
        The load, in requests per second; infinite where the objective is what is measured at full load.
    repeats : bool
        Whether requests equal earlier ones, and their answers may be kept.

    Examples
    --------
    >>> cost = Cost(base_us=500, row_us=2000)
    >>> for way in tunings(EngineSpec(), cost, cores=2):
    ...     print(way)
    2 workers of 1 thread, up to 64 rows
    2 workers of 1 thread, up to 4 rows
    1 worker of 2 threads, up to 64 rows
    1 worker of 2 threads, up to 4 rows
    >>> [way.threads for way in tunings(EngineSpec(), cost, cores=2, rps=20)]
    [1, 2]
    >>> len(tunings(EngineSpec(), Cost(base_us=6, row_us=0.2), cores=2, rps=1000))
    1
    """
    own = min(spec.threads or (1 if spec.accelerated else cores), cores)
    threads, rows, waits = [own], [spec.max_batch], [spec.max_wait_us]
    if cost.of(1) >= _SPLITS_US and not spec.accelerated:
        threads += [2**n for n in range(cores.bit_length()) if 2**n <= cores] + [cores]
    if spec.batching and rps * cost.of(1) / 1e6 >= _MEETING * cores:
        more = _LONGER * spec.max_batch
        rows += [cost.enough(spec.max_batch)]
        rows += [more] if cost.of(more) / _LONGER < _LESS * cost.of(spec.max_batch) else []
        if cost.of(2) <= _FLAT * cost.of(1) and cost.of(1) >= _SPLITS_US:
            waits += [round(cost.of(1), 0)]
    kept = spec.cache_bytes
    kinds = [*product(threads, rows, waits, [kept])]
    if repeats:
        kinds += product(threads, rows[:1], waits[:1], [0, kept or _CACHE_BYTES])
    workers = {each: 1 if spec.accelerated else max(1, cores // each) for each in threads}
    return tuple(Tuning(workers[each], each, most, wait, cache) for each, most, wait, cache in dict.fromkeys(kinds))


def tune(
    ways: Sequence[Tuning],
    measure: Callable[[Tuning], Sequence[Measurement]],
    *,
    subject: str,
    gate: Gate,
    settings: OptimizationSettings,
    cores: int,
    journal: Journal,
    time_left: Callable[[], float],
    expected_s: float,
    progress: Callable[[str, int, int], None],
) -> Tuned:
    """Measure ``ways`` in interleaved rounds, and take what is better than the first beyond the noise.

    Only ways that keep the gate's limits on performance are taken. Where there are many, one round, which counts no
    further, leaves the first and the two best.

    Parameters
    ----------
    ways : sequence of Tuning
        The bundle's own first.
    measure : callable
    subject : str
        The digest of what is served: rounds in the journal are taken if they are of the same.
    gate : mapping of metric name to Limit
        Bounds on change do not apply: they are against another model.
    expected_s : float
        What one measurement takes. Without time for every way once and for one whole round more, nothing is measured.
    """
    first = ways[0]
    if len(ways) == 1:
        return Tuned(cores, first, "the cost of its calls leaves nothing to choose")

    def name(way: Tuning) -> str:
        return f"{way} of {subject}"

    def known(among: Sequence[Tuning]) -> list[Round]:
        names = tuple(map(name, among))
        return [event for event in journal.events if isinstance(event, Round) and event.finalists == names]

    need_s = expected_s * (len(ways) + _MEASURED)
    if time_left() < need_s and not known(ways):
        left = (
            f"{max(time_left(), 0):.0f} s of the time budget were left, and it takes {need_s:.0f} s; raise time_budget"
        )
        return Tuned(cores, first, f"not tuned: {left}")

    def measured(among: Sequence[Tuning], repeats: int) -> tuple[dict[Tuning, Rounds], dict[Tuning, str], int]:
        rounds, dropped, finished = measure_rounds(
            {name(way): way for way in among},
            measure,
            repeats=repeats,
            seed=settings.seed,
            time_left=time_left,
            progress=lambda _, done, total: progress("tune", done, total),
            known=known(among),
            record=journal.append,
        )
        lost = {way: dropped[name(way)] for way in among if name(way) in dropped}
        return {way: rounds[name(way)] for way in among}, lost, len(finished)

    if len(ways) > _MEASURED:
        once, _, _ = measured(ways, 1)
        ways = (first, *_leaders(ways[1:], once, settings.objective)[: _MEASURED - 1])
    rounds, dropped, finished = measured(ways, settings.repeats)
    performance = _absolute(gate)
    tried = tuple(_way(way, rounds[way], performance, dropped.get(way, "")) for way in ways)
    own, *others = (
        Contestant(str(each.tuning), each.passed, objective_rounds(rounds[each.tuning], settings.objective), 0)
        for each in tried
    )
    if not own.rounds:
        return Tuned(cores, first, f"{settings.objective} was not measured, so nothing can be compared by it")
    usable = [other for other in others if len(other.rounds) == len(own.rounds)]
    taken = choose(own, usable, settings).name
    chosen = next(way for way in ways if str(way) == taken)
    if chosen == first:
        reason = "nothing is better beyond the noise"
    else:
        reason = f"{change(next(c for c in usable if c.name == taken), own, settings)} against {first}"
        reason += "" if own.passed else ", which does not keep the gate"
    return Tuned(cores, chosen, reason, finished, tried)


def _absolute(gate: Gate) -> Gate:
    """The limits on performance that need no other model to be judged by."""
    kept = {
        each: msgspec.structs.replace(limit, max_drop=None, max_rise=None)
        for each, limit in gate.items()
        if not described(each).tasks
    }
    return {each: limit for each, limit in kept.items() if limit != Limit(at_rps=limit.at_rps)}


def _leaders(ways: Sequence[Tuning], rounds: dict[Tuning, Rounds], objective: str) -> list[Tuning]:
    """The best first; those without a measurement are left out."""
    found = {way: objective_rounds(rounds[way], objective) for way in ways}
    usable = [way for way in ways if found[way] and combine(found[way]).has_value]
    sign = -1 if metric(objective).higher_is_better else 1
    return sorted(usable, key=lambda way: sign * combine(found[way]).value)


def _way(way: Tuning, rounds: Rounds, gate: Gate, dropped: str) -> TunedWay:
    measurements = tuple(combine(each) for each in rounds.values())
    verdict = judge(gate, measurements) if gate else None
    passed = not dropped and (verdict is None or verdict.passed)
    reasons = "" if passed or verdict is None else f"{verdict.outcome.value}: {'; '.join(verdict.reasons)}"
    return TunedWay(way, measurements, passed, dropped or reasons)
