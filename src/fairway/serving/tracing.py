"""Which requests are traced: settings that can change while the server runs, and the choice by them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from fairway.core.errors import InvalidRequest

LEVELS = ("OFF", "TIMESTAMPS")
MODE = "opentelemetry"
_KEYS = ("trace_level", "trace_rate", "trace_count", "trace_mode")
_MAX = 2**31 - 1
_NUMBER = re.compile(r"-1|[0-9]{1,10}")


class _Sampler(msgspec.Struct):
    """One request in ``rate`` is traced until ``count`` were; -1 is without end."""

    level: str = "OFF"
    rate: int = 1000
    count: int = -1
    seen: int = 0

    def sampled(self) -> bool:
        self.seen += 1
        if self.seen < self.rate or not self.continued():
            return False
        self.seen = 0
        return True

    def continued(self) -> bool:
        if self.level == "OFF" or not self.count:
            return False
        if self.count > 0:
            self.count -= 1
        return True


class TraceSettings:
    """The protocol's trace settings, for the server and for single models. For the event loop's thread only.

    ``trace_level``: ``OFF`` or ``TIMESTAMPS``. ``trace_rate``: one request in so many, of those that come without a trace of
    their caller's. ``trace_count``: how many requests are still to be traced, whoever asks for it, -1 for all (-1).
    ``trace_mode`` is ``opentelemetry``, and cannot be changed.

    Parameters
    ----------
    level : str
        The default of ``trace_level``.
    rate : int
        The default of ``trace_rate``.

    Examples
    --------
    >>> settings = TraceSettings()
    >>> settings.update(None, {"trace_level": ["TIMESTAMPS"], "trace_rate": "2"})
    >>> [settings.sampled("digits") for _ in range(4)]
    [False, True, False, True]
    """

    def __init__(self, level: str = "OFF", rate: int = 1000) -> None:
        self._default = {"trace_level": level, "trace_rate": rate}
        self._given: dict[str, Any] = {}
        self._given_by_model: dict[str, dict[str, Any]] = {}
        self._everywhere = _Sampler(level, rate)
        self._by_model: dict[str, _Sampler] = {}
        self.on = level != "OFF"
        """Whether any request may be traced: while false, nobody needs to ask."""

    def sampled(self, model: str) -> bool:
        """Whether the request that comes now, for ``model``, is traced. Counts it."""
        return self._by_model.get(model, self._everywhere).sampled()

    def continued(self, model: str) -> bool:
        """The same of a request that its caller traces: the rate is not asked."""
        return self._by_model.get(model, self._everywhere).continued()

    def get(self, model: str | None) -> dict[str, Any]:
        """What holds for ``model``, or for those without settings of their own: strings, and lists of strings."""
        sampler = self._everywhere if model is None else self._by_model.get(model, self._everywhere)
        return {
            "trace_level": [sampler.level],
            "trace_rate": str(sampler.rate),
            "trace_count": str(sampler.count),
            "trace_mode": MODE,
        }

    def update(self, model: str | None, changes: dict[str, Any]) -> None:
        """Change what is named; ``None`` goes back to the server's setting, or for the server to the default.

        Raises
        ------
        InvalidRequest
            If a key is unknown, or a value is none that it can have; nothing is changed then.
        """
        parsed = {key: _parse(key, value) for key, value in changes.items()}
        given = self._given if model is None else self._given_by_model.get(model, {})
        kept = {key: value for key, value in (given | parsed).items() if value is not None}
        if model is None:
            self._given = kept
            self._everywhere = _sampler(self._everywhere, self._default | kept, parsed)
            for name, own in self._given_by_model.items():
                inherited = {key: value for key, value in parsed.items() if key not in own}
                self._by_model[name] = _sampler(self._by_model[name], self._default | kept | own, inherited)
        elif kept:
            self._given_by_model[model] = kept
            values = self._default | self._given | kept
            self._by_model[model] = _sampler(self._by_model.get(model), values, parsed)
        else:
            self.forget(model)
        self.on = any(sampler.level != "OFF" for sampler in (self._everywhere, *self._by_model.values()))

    def forget(self, model: str) -> None:
        """Drop a model's own settings."""
        self._given_by_model.pop(model, None)
        self._by_model.pop(model, None)


def _sampler(before: _Sampler | None, values: dict[str, Any], changed: dict[str, Any]) -> _Sampler:
    """With ``values``; what is left of a count goes on unless the count was changed."""
    sampler = _Sampler(**{key.removeprefix("trace_"): value for key, value in values.items() if key != "trace_mode"})
    if before is not None and "trace_count" not in changed:
        sampler.count = before.count
    return sampler


def _parse(key: str, value: Any) -> Any:
    if key not in _KEYS:
        raise InvalidRequest(f"there is no trace setting {key!r}; there are: {', '.join(_KEYS)}")
    if value is None:
        return None
    if key == "trace_level":
        return _level(value)
    if isinstance(value, list) and len(value) == 1:  # a gRPC value is always a list
        value = value[0]
    if key == "trace_mode":
        if value != MODE:
            raise InvalidRequest(f"trace_mode is {MODE!r} here and cannot be changed to {value!r}; leave it out")
        return MODE
    return _number(key, value, 1 if key == "trace_rate" else -1)


def _level(value: Any) -> str:
    levels = value if isinstance(value, list) else [value]
    if not levels or any(level not in LEVELS for level in levels):
        raise InvalidRequest(f"trace_level is {value!r}; it is a list of {' or '.join(LEVELS)}")
    return "OFF" if "OFF" in levels else "TIMESTAMPS"


def _number(key: str, value: Any, low: int) -> int:
    whole = isinstance(value, float) and value.is_integer()  # 1.0 is a whole number in JSON
    number = int(value) if whole or (isinstance(value, str) and _NUMBER.fullmatch(value)) else value
    if type(number) is not int or not low <= number <= _MAX:
        raise InvalidRequest(f"{key} is {value!r}; it is a whole number from {low} to {_MAX}, as a string")
    return number
