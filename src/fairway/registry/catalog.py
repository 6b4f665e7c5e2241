"""Models, versions and aliases: statements on one connection. Whoever calls holds the transaction."""

from __future__ import annotations

import re

from sqlalchemy import Connection, RowMapping, Select, func, insert, select, update

from fairway.bundle.format import decode_manifest
from fairway.core.errors import InvalidBundle, InvalidConfig, ModelNotFound
from fairway.core.manifest import NAME, Manifest, ModelRef
from fairway.registry import tables as t
from fairway.registry.records import CHAMPION, Version


def check_alias(alias: str) -> None:
    """Raise :class:`InvalidConfig` unless ``alias`` can be written after ``@``, and not be taken for a version."""
    if not NAME.fullmatch(alias) or re.fullmatch(r"[0-9]+", alias):
        raise InvalidConfig(
            f"{alias!r} is not an alias; use letters, digits, '.', '_' and '-' (128 at most, not digits alone), such as "
            f"{CHAMPION}"
        )


def serialize_writers(connection: Connection) -> None:
    """Wait until no other writer is busy, then keep the rest waiting until this transaction ends."""
    connection.execute(update(t.state).values(revision=t.state.c.revision))


def tell_followers(connection: Connection) -> None:
    """Let the revision grow: something that servers follow has changed."""
    connection.execute(update(t.state).values(revision=t.state.c.revision + 1))


def revision(connection: Connection) -> int:
    """How many changes that servers follow there have been."""
    return int(connection.execute(select(t.state.c.revision)).scalar_one())


def add_version(
    connection: Connection, manifest: Manifest, size_bytes: int, signature: bytes, at: float
) -> tuple[Version, bool]:
    """Add a version unless the model has one with this digest: it, and whether it is new. A new signature is kept."""
    model = manifest.name
    known = connection.execute(_versions(model).where(t.versions.c.digest == manifest.digest)).mappings().first()
    if known is not None:
        if signature and signature != known["signature"]:
            where = (t.versions.c.model == model, t.versions.c.number == known["number"])
            connection.execute(update(t.versions).where(*where).values(signature=signature))
        return version_at(connection, model, known["number"]), False
    last = connection.scalar(select(func.max(t.versions.c.number)).where(t.versions.c.model == model))
    if last is None and model not in model_names(connection):
        connection.execute(insert(t.models).values(name=model, created_at=at))
    number = (last or 0) + 1
    connection.execute(
        insert(t.versions).values(
            model=model,
            number=number,
            digest=manifest.digest,
            created_at=at,
            size_bytes=size_bytes,
            manifest=manifest.encode(),
            parent=manifest.lineage.parent,
            signature=signature or None,
        )
    )
    return version_at(connection, model, number), True


def find(connection: Connection, ref: ModelRef) -> Version:
    """The version that ``ref`` names; a bare name is the champion, or else the newest. Raises :class:`ModelNotFound`."""
    if ref.version is not None:
        return version_at(connection, ref.name, ref.version)
    known = alias_numbers(connection, ref.name)
    if ref.alias is not None:
        if ref.alias not in known:
            raise ModelNotFound(str(ref), _known_refs(connection, ref.name))
        return version_at(connection, ref.name, known[ref.alias])
    newest = connection.scalar(select(func.max(t.versions.c.number)).where(t.versions.c.model == ref.name))
    if newest is None:
        raise ModelNotFound(str(ref), model_names(connection))
    return version_at(connection, ref.name, known.get(CHAMPION, newest))


def version_at(connection: Connection, model: str, number: int) -> Version:
    """One version. Raises :class:`ModelNotFound`."""
    row = connection.execute(_versions(model).where(t.versions.c.number == number)).mappings().first()
    if row is None:
        raise ModelNotFound(f"{model}:{number}", _known_refs(connection, model))
    return _version(row)


def newest(connection: Connection, model: str) -> Version | None:
    """The version with the highest number; ``None`` if there is no such model."""
    found = connection.execute(_versions(model).order_by(t.versions.c.number.desc()).limit(1)).mappings().first()
    return None if found is None else _version(found)


def versions_of(connection: Connection, model: str) -> tuple[Version, ...]:
    """All versions, oldest first. Raises :class:`ModelNotFound` if there is no such model."""
    rows = connection.execute(_versions(model).order_by(t.versions.c.number)).mappings().all()
    if not rows:
        raise ModelNotFound(model, model_names(connection))
    return tuple(_version(row) for row in rows)


def model_names(connection: Connection) -> tuple[str, ...]:
    """Sorted."""
    return tuple(connection.scalars(select(t.models.c.name).order_by(t.models.c.name)))


def alias_numbers(connection: Connection, model: str) -> dict[str, int]:
    """Alias to version number, sorted by alias; empty if there are none."""
    query = select(t.aliases.c.alias, t.aliases.c.number).where(t.aliases.c.model == model).order_by(t.aliases.c.alias)
    return {row.alias: row.number for row in connection.execute(query)}


def move_alias(connection: Connection, model: str, alias: str, number: int, at: float) -> int | None:
    """Point ``alias`` at a version that exists: the number it pointed at before, if any."""
    before = alias_numbers(connection, model).get(alias)
    if before is None:
        connection.execute(insert(t.aliases).values(model=model, alias=alias, number=number, updated_at=at))
    elif before != number:
        where = (t.aliases.c.model == model, t.aliases.c.alias == alias)
        connection.execute(update(t.aliases).where(*where).values(number=number, updated_at=at))
    return before


def signature_of(connection: Connection, version: Version) -> bytes:
    """The signature kept with a version; empty if there is none."""
    where = (t.versions.c.model == version.model, t.versions.c.number == version.number)
    return connection.scalar(select(t.versions.c.signature).where(*where)) or b""


def _versions(model: str) -> Select[tuple[object, ...]]:
    return select(t.versions).where(t.versions.c.model == model)


def _version(row: RowMapping) -> Version:
    ref = f"{row['model']}:{row['number']}"
    manifest = decode_manifest(row["manifest"], f"the manifest of {ref} in the registry")
    if manifest.digest != row["digest"]:
        raise InvalidBundle(f"the manifest of {ref} in the registry was altered; restore the database from a backup")
    return Version(
        model=row["model"],
        number=row["number"],
        digest=row["digest"],
        created_at=row["created_at"],
        size_bytes=row["size_bytes"],
        manifest=manifest,
        parent=row["parent"],
        signed=row["signature"] is not None,
    )


def _known_refs(connection: Connection, model: str) -> list[str]:
    numbers = connection.scalars(select(t.versions.c.number).where(t.versions.c.model == model)).all()
    known = [f"{model}:{number}" for number in numbers[-20:]]
    known += [f"{model}@{alias}" for alias in alias_numbers(connection, model)]
    return known or list(model_names(connection))
