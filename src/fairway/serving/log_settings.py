"""The protocol's log settings: which of Fairway's log lines are written, changed while the server runs."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from fairway.core.errors import Conflict, InvalidRequest
from fairway.serving.access_lines import look_again
from fairway.serving.logs import FORMATS, set_log_format

_FLAGS = {"log_info": logging.INFO, "log_warning": logging.WARNING, "log_error": logging.ERROR}
_MAX_VERBOSE = 2**31 - 1
_FAIRWAY = "fairway"


class _Values(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    log_file: str
    log_info: bool
    log_warning: bool
    log_error: bool
    log_verbose_level: int
    log_format: str


class LogSettings:
    """The log settings of this process. For the event loop's thread only.

    ``log_info``, ``log_warning``, ``log_error``: whether lines of that level are written. ``log_verbose_level``: 1 or more
    writes debugging lines too. ``log_format``: ``default`` is JSON in the Elastic Common Schema, ``ISO8601`` text.
    ``log_file`` is empty, since lines go to stderr, and cannot be changed.

    Until the first change, and again when it is taken back, whatever the process itself configured holds.
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger(_FAIRWAY)
        self._before: int | None = None
        self._values: _Values | None = None
        self._first: _Values | None = None
        self._filter = _Levels()
        self._filtered: list[logging.Handler] = []

    def get(self) -> dict[str, Any]:
        """What holds now."""
        values: dict[str, Any] = msgspec.to_builtins(self._current())
        return values

    def update(self, changes: dict[str, Any]) -> None:
        """Change what is named.

        Raises
        ------
        InvalidRequest
            If a key is unknown, or a value is none that it can have; nothing is changed then.
        Conflict
            If the format is to change where the process configured its logging itself.
        """
        try:
            values = msgspec.convert(self.get() | changes, _Values)
        except msgspec.ValidationError as error:
            known = ", ".join(_Values.__struct_fields__)
            raise InvalidRequest(f"these are no log settings: {error}; there are: {known}") from None
        _check(values)
        if values.log_format != self._current().log_format and not set_log_format(values.log_format):
            raise Conflict("log_format cannot be changed: this process configured its logging itself; leave it out")
        self._first = self._first or self._current()
        if values == self._first:
            self.close()
        else:
            self._apply(values)

    def close(self) -> None:
        """Put things back as they were before the first change."""
        if self._before is not None:
            self._logger.setLevel(self._before)
            self._before = self._values = self._first = None
        for handler in self._filtered:  # also those that the process has taken away since
            handler.removeFilter(self._filter)
        self._filtered = []
        look_again()

    def _current(self) -> _Values:
        if self._values is not None:
            return self._values
        flags = {name: self._logger.isEnabledFor(level) for name, level in _FLAGS.items()}
        return _Values(
            log_file="", log_verbose_level=int(self._logger.isEnabledFor(logging.DEBUG)), log_format=FORMATS[0], **flags
        )

    def _apply(self, values: _Values) -> None:
        """The logger's level refuses cheaply what lies below all that is wanted; the filter what lies between."""
        if self._before is None:
            self._before = self._logger.level
        self._values = values
        wanted = [level for name, level in _FLAGS.items() if getattr(values, name)]
        if values.log_verbose_level:
            wanted.append(logging.DEBUG)
        self._logger.setLevel(min(wanted, default=logging.CRITICAL + 1))
        self._filter.wanted = frozenset(wanted)
        self._filtered = list({*self._filtered, *_handlers()})
        for handler in self._filtered:
            handler.addFilter(self._filter)
        look_again()


class _Levels(logging.Filter):
    """Lets pass, of Fairway's lines, those of the wanted levels, and all of others."""

    wanted: frozenset[int] = frozenset()

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.name == _FAIRWAY or record.name.startswith(_FAIRWAY + ".")
        return not ours or min(record.levelno, logging.ERROR) in self.wanted


def _handlers() -> list[logging.Handler]:
    return [*logging.getLogger().handlers, *logging.getLogger(_FAIRWAY).handlers]


def _check(values: _Values) -> None:
    if values.log_file:
        raise InvalidRequest("log_file cannot be set from outside: the log goes to stderr; leave it out")
    if not 0 <= values.log_verbose_level <= _MAX_VERBOSE:
        raise InvalidRequest(
            f"log_verbose_level is {values.log_verbose_level}; it is 0, or 1 and more for debugging lines"
        )
    if values.log_format not in FORMATS:
        raise InvalidRequest(f"log_format is {values.log_format!r}; it is {' or '.join(map(repr, FORMATS))}")
