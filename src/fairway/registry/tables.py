"""The tables, as SQLAlchemy describes them. ``migrations/`` makes them; a test asserts that both agree."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

HEAD = "0002"
"""The migration that this Fairway needs."""

KNOWN = ("0001", "0002")
"""Every migration that this Fairway knows, oldest first. Anything else was made by a newer one."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite counts rows in INTEGER only; PostgreSQL's INTEGER ends at 2 billion.
_ID = BigInteger().with_variant(Integer, "sqlite")
_NAME = String(128)

state = Table(  # one row: writers lock it, so that numbers and event ids are given out in the order of commits
    "state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

models = Table(
    "models",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("created_at", Double, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(71), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("parent", Text, nullable=False),
    Column("signature", LargeBinary, nullable=True),
    ForeignKeyConstraint(["model"], ["models.name"]),
    UniqueConstraint("model", "digest"),
    CheckConstraint("number >= 1", name="number"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("alias", _NAME, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("updated_at", Double, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
)

releases = Table(
    "releases",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("champion", Integer, nullable=False),
    Column("challenger", Integer, nullable=True),
    Column("weight", Double, nullable=False),
    Column("previous", Integer, nullable=True),
    Column("revision", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    ForeignKeyConstraint(["model", "champion"], ["versions.model", "versions.number"]),
    ForeignKeyConstraint(["model", "challenger"], ["versions.model", "versions.number"]),
    ForeignKeyConstraint(["model", "previous"], ["versions.model", "versions.number"]),
    CheckConstraint("weight >= 0 AND weight <= 1", name="weight"),
)

events = Table(  # append-only: triggers refuse anything else
    "events",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("model", _NAME, nullable=False),
    Column("action", String(32), nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("change", LargeBinary, nullable=False),
    Column("evidence", LargeBinary, nullable=True),
    Index(None, "model", "id"),
    sqlite_autoincrement=True,
)

windows = Table(
    "windows",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("replica", Text, primary_key=True),
    Column("started_at", Double, primary_key=True),
    Column("ended_at", Double, nullable=False),
    Column("traffic", LargeBinary, nullable=False),
    Column("features", LargeBinary, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.number"]),
    Index(None, "model", "ended_at"),
)

forgotten = Table(  # how many starts of windows were removed: drift counts its looks from the first on
    "forgotten",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("periods", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.number"]),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("models", Text, nullable=False),
    Column("seen_at", Double, nullable=False),
)
