"""What differs between two bundles, field by field of their manifests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from fairway.core.manifest import EVIDENCE, Manifest

_UNSAID = ("format", "name", "lineage.parent")
"""What says nothing of how the models differ."""


class Change(msgspec.Struct, frozen=True):
    """One field that differs; an empty text where a bundle does not have it."""

    field: str
    first: str
    second: str


def changes(first: Manifest, second: Manifest) -> tuple[Change, ...]:
    """Every field that is not the same in both, in the order of the manifest; passes and files one by one.

    Examples
    --------
    >>> from fairway.core.manifest import EngineSpec
    >>> one = Manifest("digits", "classification", (), (), {})
    >>> changes(one, msgspec.structs.replace(one, engine=EngineSpec(threads=2)))
    (Change(field='engine.threads', first='1', second='2'),)
    """
    ours, theirs = dict(_fields(first)), dict(_fields(second))
    names = [name for name in dict.fromkeys((*ours, *theirs)) if name not in _UNSAID]
    found = (Change(name, ours.get(name, ""), theirs.get(name, "")) for name in names)
    return tuple(change for change in found if change.first != change.second)


def _fields(manifest: Manifest) -> Iterator[tuple[str, str]]:
    parts = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    files, recipe = parts.pop("files"), parts.pop("recipe")
    parts["engine"] = {name: getattr(manifest.engine, name) for name in manifest.engine.__struct_fields__}
    yield from _flat("", msgspec.to_builtins(parts))
    for number, record in enumerate(recipe, 1):
        yield f"recipe.{number}", f"{record.name} {_text(record.parameters) if record.parameters else ''}".rstrip()
    for name, entry in sorted(files.items()):
        if name not in EVIDENCE:
            yield f"files.{name}", f"{entry.size:,} bytes, {entry.sha256[:12]}"


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, inner)
    elif value not in (None, "", [], ()):
        yield prefix, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
