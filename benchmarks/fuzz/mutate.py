"""Small damage, of kinds that have broken servers before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

TOKENS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\x00", b"\xff", b" ", b"\t", b":", b";", b",", b"%", b"%ff", b"%00", b"%2f", b"../",
    b"0", b"-1", b"00000000000", b"+5", b"0x10", b"4294967296", b"18446744073709551616", b"9" * 40,
    b"content-length: 5\r\n", b"content-length: 99999999999999999999\r\n", b"transfer-encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"transfer-encoding : chunked\r\n", b"expect: 100-continue\r\n",
    b"connection: close\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n", b"upgrade: websocket\r\n",
    b"connection: keep-alive\r\n",    b"content-encoding: gzip\r\n", b"content-encoding: br\r\n",
    b"inference-header-content-length: 7\r\n",
    b"HTTP/1.0", b"HTTP/9.9",    b"ffffffffffffffff\r\n", b"0\r\n\r\n", b"1;x=y\r\nz\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" * 5000, b"null", b"true", b"[", b"]", b"{",
    b"}", b'"', b"\\", b"\\ud800",
    b"[" * 1000, b"\xef\xbb\xbf", b"\xc0\xaf", b"\xed\xa0\x80", b"//", b"/*", b"a" * 3000,
)  # fmt: skip


def mutated(random: Random, data: bytes, others: Sequence[bytes] = (), most: int = 4) -> bytes:
    """``data`` with up to ``most`` changes, at least one."""
    for _ in range(random.randint(1, most)):
        at = random.randrange(len(data) + 1)
        to = min(len(data), at + random.choice((1, 1, 2, 4, 9, 40)))
        kind = random.randrange(8)
        if kind == 0 and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes((data[at] ^ (1 << random.randrange(8)),)) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + bytes((random.choice((0, 1, 127, 128, 255, random.randrange(256))),)) + data[at + 1 :]
        elif kind == 2:
            data = data[:at] + data[to:]
        elif kind == 3:
            data = data[:to] + data[at:to] * random.choice((1, 1, 3, 50)) + data[to:]
        elif kind == 4:
            data = data[:at] + random.choice(TOKENS) + data[random.choice((at, to)) :]
        elif kind == 5:
            data = data[:at]
        elif kind == 6 and others:
            other = random.choice(others)
            data = data[:at] + other[random.randrange(len(other) + 1) :]
        else:
            data = data[:at] + random.randbytes(to - at) + data[to:]
    return data


def cut(random: Random, data: bytes) -> list[bytes]:
    """In one to four pieces."""
    places = sorted(random.randrange(len(data) + 1) for _ in range(random.choice((0, 0, 1, 3))))
    return [data[at:to] for at, to in zip([0, *places], [*places, len(data)], strict=True)]


class Literal(str):
    """Text that stands in the JSON as it is."""


_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 0.5, 1e308, Literal("1e999"), Literal("NaN"),
    Literal("-Infinity"), Literal("-0"), "", " ", "x", "é" * 300, "\x00", Literal('"\\ud800"'), Literal('"\\udc00\\ud800"'),
    "a" * 10_000, "FP32", "BYTES", "1", [], {}, [[]], [None], [{}], {"": {}}, {"x": [1, "2"]}, Literal("[" * 40 + "]" * 40),
    Literal("[" * 2000 + "]" * 2000), Literal('{"a":' * 200 + "1" + "}" * 200), [0] * 4000, ["s"] * 5, [[1, 2], [3]],
    [True, 1], Literal("01"), Literal("+1"),
)  # fmt: skip


def odd(random: Random) -> Any:
    """A value that belongs nowhere."""
    kind = random.randrange(len(_ODD) + 1)
    return _ODD[kind] if kind < len(_ODD) else Literal("9" * random.choice((30, 400, 5000)))


def altered(random: Random, tree: Any) -> Any:
    """A JSON value with one change somewhere."""
    if not isinstance(tree, (dict, list)) or not tree or random.random() < 0.15:
        return odd(random)
    if isinstance(tree, dict):
        key = random.choice(list(tree))
        kind = random.randrange(8)
        if kind == 0:
            return {name: value for name, value in tree.items() if name != key}
        if kind == 1:
            return tree | {random.choice(("", "extra", "data", "parameters", "name", "é", "\x00")): odd(random)}
        if kind == 2:
            return _Doubled(tree, key, odd(random))
        return tree | {key: altered(random, tree[key])}
    place = random.randrange(len(tree))
    kind = random.randrange(6)
    if kind == 0:
        return tree[:place] + tree[place + 1 :]
    if kind == 1:
        return tree[:place] + [tree[place]] * random.choice((2, 3, 100)) + tree[place + 1 :]
    if kind == 2:
        return [tree]
    return [*tree[:place], altered(random, tree[place]), *tree[place + 1 :]]


def broken(random: Random, message: Any) -> Any:
    """A request with up to three changes, most of them in its tensors."""
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        if isinstance(message, dict) and random.random() < 0.4 and isinstance(message.get("inputs"), list):
            place = random.randrange(len(message["inputs"])) if message["inputs"] else 0
            tensors = list(message["inputs"])
            if tensors and isinstance(tensors[place], dict):
                key = random.choice(("shape", "datatype", "data", "name", "parameters"))
                tensors[place] = tensors[place] | {key: altered(random, tensors[place].get(key))}
                message = message | {"inputs": tensors}
                continue
        message = altered(random, message)
    return message


class _Doubled(dict[str, Any]):
    """An object that has a key twice."""

    def __init__(self, tree: dict[str, Any], key: str, second: Any) -> None:
        super().__init__(tree)
        self.more = (key, second)


def dump(value: Any) -> str:
    """JSON, with everything that it should not have."""
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, dict):
        pairs = [*value.items(), *([value.more] if isinstance(value, _Doubled) else [])]
        return "{" + ",".join(f"{json.dumps(key)}:{dump(item)}" for key, item in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    return json.dumps(value, ensure_ascii=isinstance(value, str) and len(value) % 2 == 0)
