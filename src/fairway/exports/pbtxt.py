"""Protocol buffers' text format, for as much of it as a model's configuration needs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


class Name(str):
    """A text that is an enumeration's value, and so is written without quotes."""

    __slots__ = ()


def pbtxt(message: Mapping[str, Any]) -> str:
    """``message`` as text: mappings are messages, lists are repeated fields.

    Examples
    --------
    >>> print(pbtxt({"name": "digits", "input": [{"dims": [64], "data_type": Name("TYPE_FP32")}]}), end="")
    name: "digits"
    input {
      dims: 64
      data_type: TYPE_FP32
    }
    """
    return "".join(f"{line}\n" for line in _lines(message))


def entries(mapping: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A map field: each entry is a message of ``key`` and ``value``."""
    return [{"key": key, "value": value} for key, value in mapping.items()]


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    for field, value in message.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Mapping):
                yield f"{field} {{"
                yield from (f"  {line}" for line in _lines(each))
                yield "}"
            else:
                yield f"{field}: {_scalar(each)}"


def _scalar(value: Any) -> str:
    if isinstance(value, Name):
        return str(value)
    return json.dumps(value, ensure_ascii=False)  # numbers, true and false; strings with the same escapes, in UTF-8
