"""The Pareto front: forms that no other is as good as in everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairway.core.metrics import described

DIMENSIONS = ("size_mb", "memory_mb", "load_ms", "energy_mj_per_request")
"""Beside quality and the objective; those that were measured of every form count."""


def on_front(forms: Mapping[str, Mapping[str, float]]) -> set[str]:
    """Names of the forms that no other equals in all metrics and betters in one.

    Parameters
    ----------
    forms : mapping of name to mapping of metric to value
        Only metrics that all forms have are compared.

    Examples
    --------
    >>> forms = {"a": {"size_mb": 1, "load_ms": 9}, "b": {"size_mb": 2, "load_ms": 3}, "c": {"size_mb": 3, "load_ms": 3}}
    >>> sorted(on_front(forms))
    ['a', 'b']
    """
    shared = [
        name for name in dict.fromkeys(n for v in forms.values() for n in v) if all(name in v for v in forms.values())
    ]
    points = {form: [_up(name) * values[name] for name in shared] for form, values in forms.items()}
    return {form for form, point in points.items() if not any(_beats(other, point) for other in points.values())}


def _up(name: str) -> float:
    return 1.0 if described(name).higher_is_better else -1.0


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)
