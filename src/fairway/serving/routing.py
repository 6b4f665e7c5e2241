"""Which version answers: a pure function of the caller's key and the release's weight."""

from __future__ import annotations

from hashlib import blake2b

import msgspec


class Route(msgspec.Struct, frozen=True):
    """Where a model's callers go.

    Attributes
    ----------
    champion : str
    challenger : str or None
    weight : float
        The challenger's share of callers, 0 to 1.
    """

    champion: str
    challenger: str | None = None
    weight: float = 0.0


def choose(route: Route, model: str, key: str) -> str:
    """The version for the caller ``key``.

    The same key stays with one version, and raising the weight only ever moves callers to the challenger, never back.

    Examples
    --------
    >>> choose(Route("3"), "digits", "anyone")
    '3'
    >>> choose(Route("3", "4", weight=1.0), "digits", "anyone")
    '4'
    """
    if route.challenger is None or position(f"{model}:{route.challenger}", key) >= route.weight:
        return route.champion
    return route.challenger


def normal_version(version: str | None) -> str | None:
    """As versions are named here: ``01`` is version 1.

    Examples
    --------
    >>> normal_version("01"), normal_version("v10")
    ('1', 'v10')
    """
    return str(int(version)) if version and version.isdecimal() and version.isascii() and len(version) < 20 else version


def position(salt: str, key: str) -> float:
    """Where ``key`` falls in [0, 1), evenly over keys. The salt lets each release meet other callers first."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=salt.encode()[:64]).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
