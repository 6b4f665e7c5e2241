"""One set of numbers for a server of several processes.

Each worker counts for itself, at no cost to a request. A worker that is asked for metrics asks the process that watches
them for everybody's: it knows each worker's last counts, asks for newer ones, and keeps what ended workers had counted, so
that no counter ever falls. That process knows nothing of Prometheus: counts are plain numbers under keys that say how they
are joined.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Counts: TypeAlias = dict[str, float]
"""Numbers by key: a rule, then the model and version that the number is about (or nothing), then what it counts."""

GROWING, SUM, LEAST, MOST = "+", "s", "<", ">"
"""How numbers of several workers become one. Only those of ``GROWING`` outlive their worker."""

_END = "\x1f"
_RULES = {
    "fairway_ready": MOST,
    "fairway_model_ready": MOST,
    "fairway_model_load_seconds": MOST,
    "fairway_window_sampled_ratio": LEAST,
    "fairway_drift_effect_bits": MOST,  # every worker looks at the windows of all
    "fairway_drift_features": MOST,
    "fairway_drift_looks": MOST,
    "process_start_time_seconds": LEAST,
    "process_max_fds": LEAST,
}
"""Of gauges, by name. All others are summed."""


def key_of(rule: str, model: str, version: str, what: str) -> str:
    """The key of one number."""
    return f"{rule}{model}{_END}{version}{_END}{what}"


class Ledger:
    """Everybody's counts, those of ended workers included.

    A worker's number that falls, or is gone, is a version that was freed there: what it had counted is kept as long as
    another worker has that version, and forgotten with the last, as one process alone forgets it.
    """

    def __init__(self) -> None:
        self._latest: dict[int, Counts] = {}
        self._gone: Counts = {}

    def note(self, worker: int, counts: Counts) -> None:
        """``counts`` are a worker's latest."""
        before = self._latest.get(worker, {})
        freed = {_scope(k) for k, value in before.items() if k[0] == GROWING and counts.get(k, -1.0) < value}
        if freed:
            self._keep(before, freed)
        self._latest[worker] = counts

    def ended(self, worker: int) -> None:
        """A worker is no more."""
        self._keep(self._latest.pop(worker, {}), None)

    def sum(self) -> Counts:
        """Everybody's counts as one."""
        merged: Counts = {}
        for counts in self._latest.values():
            join(merged, counts)
        alive = {_scope(key) for key in merged}
        self._gone = {key: value for key, value in self._gone.items() if not alive or _scope(key) in alive}
        return join(merged, self._gone)

    def _keep(self, counts: Counts, scopes: set[str] | None) -> None:
        kept = {k: v for k, v in counts.items() if k[0] == GROWING and (scopes is None or _scope(k) in scopes)}
        join(self._gone, kept)


def join(into: Counts, counts: Counts) -> Counts:
    """Add ``counts`` to ``into``, each by its rule; gives ``into``.

    Examples
    --------
    >>> join({"+requests": 2, ">ready": 1}, {"+requests": 3, ">ready": 0, "squeue": 4})
    {'+requests': 5, '>ready': 1, 'squeue': 4}
    """
    for key, value in counts.items():
        if key not in into:
            into[key] = value
        elif key[0] == MOST:
            into[key] = max(into[key], value)
        elif key[0] == LEAST:
            into[key] = min(into[key], value)
        else:
            into[key] += value
    return into


def _scope(key: str) -> str:
    """Model and version."""
    return key[1 : key.rfind(_END)]


# -- Prometheus


def counts_of(families: Iterable[Metric]) -> Counts:
    """Prometheus metrics as counts."""
    counts: Counts = {}
    for family in families:
        for sample in family.samples:
            if not math.isfinite(sample.value):
                continue
            labels = sample.labels
            what = msgspec.json.encode((family.name, sample.name, labels)).decode()
            rule = _rule(family.type, family.name, sample.name)
            counts[key_of(rule, labels.get("model", ""), labels.get("version", ""), what)] = sample.value
    return counts


def families_of(counts: Counts, like: Iterable[Metric]) -> Iterator[Metric]:
    """Counts as Prometheus metrics, described as in ``like``, whose exemplars are kept; what is no metric is left out."""
    from prometheus_client.core import Metric

    samples: dict[str, list[tuple[str, dict[str, str], float]]] = {}
    for key, value in counts.items():
        family, name, labels = _decoded(key)
        samples.setdefault(family, []).append((name, labels, value))
    for known in like:
        made = Metric(known.name, known.documentation, known.type, known.unit)
        exemplars = {(s.name, *s.labels.items()): s.exemplar for s in known.samples if s.exemplar is not None}
        for name, labels, value in samples.get(known.name, ()):
            made.add_sample(name, labels, value, exemplar=exemplars.get((name, *labels.items())))
        yield made


class Families:
    """What an encoder of Prometheus metrics takes: metrics that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        yield from self._families


def _decoded(key: str) -> tuple[str, str, dict[str, str]]:
    return msgspec.json.decode(key.rpartition(_END)[2], type=tuple[str, str, dict[str, str]])


def _rule(kind: str, family: str, sample: str) -> str:
    if sample.endswith("_created"):
        return LEAST
    if kind in ("counter", "histogram", "summary"):
        return GROWING
    return _RULES.get(family, SUM)


# -- nested dictionaries, as a protocol's statistics are


def flatten(tree: dict[str, Any], model: str, version: str, *, most: tuple[str, ...] = ()) -> Counts:
    """A version's nested counters as counts; keys named in ``most`` take the largest instead of the sum.

    Examples
    --------
    >>> counts = flatten({"infer": {"count": 2}}, "digits", "1")
    >>> unflatten(join(counts, flatten({"infer": {"count": 3}}, "digits", "1")), "digits", "1")
    {'infer': {'count': 5}}
    """
    counts: Counts = {}

    def walk(node: dict[str, Any], path: tuple[str, ...]) -> None:
        for name, value in node.items():
            if isinstance(value, dict):
                walk(value, (*path, name))
            else:
                what = msgspec.json.encode(("", "", {str(n): part for n, part in enumerate((*path, name))})).decode()
                counts[key_of(MOST if name in most else GROWING, model, version, what)] = value

    walk(tree, ())
    return counts


def unflatten(counts: Counts, model: str, version: str) -> dict[str, Any]:
    """The nested counters of one version, as :func:`flatten` took them."""
    tree: dict[str, Any] = {}
    for key, value in counts.items():
        if _scope(key) != f"{model}{_END}{version}":
            continue
        family, _, path = _decoded(key)
        if family:
            continue
        node = tree
        *folders, last = path.values()
        for name in folders:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


Gather: TypeAlias = Callable[[], Awaitable[Counts]]
"""Asks for everybody's counts."""
