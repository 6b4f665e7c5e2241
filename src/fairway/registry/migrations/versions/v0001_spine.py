"""Models, versions, aliases, releases, events, windows and replicas."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_NAME = sa.String(128)
_VERSION = ["versions.model", "versions.number"]


def upgrade() -> None:
    _catalog()
    _aliases_and_releases()
    _events()
    _windows_and_replicas()
    op.execute("INSERT INTO state (id, revision) VALUES (1, 0)")


def _catalog() -> None:
    op.create_table(
        "state",
        sa.Column("id", sa.Integer, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_state"),
        sa.CheckConstraint("id = 1", name="ck_state_one_row"),
    )
    op.create_table(
        "models",
        sa.Column("name", _NAME),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_models"),
    )
    op.create_table(
        "versions",
        sa.Column("model", _NAME),
        sa.Column("number", sa.Integer, autoincrement=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("manifest", sa.LargeBinary, nullable=False),
        sa.Column("parent", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=True),
        sa.PrimaryKeyConstraint("model", "number", name="pk_versions"),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name="fk_versions_model"),
        sa.UniqueConstraint("model", "digest", name="uq_versions_model_digest"),
        sa.CheckConstraint("number >= 1", name="ck_versions_number"),
    )


def _aliases_and_releases() -> None:
    op.create_table(
        "aliases",
        sa.Column("model", _NAME),
        sa.Column("alias", _NAME),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("model", "alias", name="pk_aliases"),
        sa.ForeignKeyConstraint(["model", "number"], _VERSION, name="fk_aliases_model_number"),
    )
    op.create_table(
        "releases",
        sa.Column("model", _NAME),
        sa.Column("champion", sa.Integer, nullable=False),
        sa.Column("challenger", sa.Integer, nullable=True),
        sa.Column("weight", sa.Double, nullable=False),
        sa.Column("previous", sa.Integer, nullable=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_releases"),
        sa.ForeignKeyConstraint(["model", "champion"], _VERSION, name="fk_releases_model_champion"),
        sa.ForeignKeyConstraint(["model", "challenger"], _VERSION, name="fk_releases_model_challenger"),
        sa.ForeignKeyConstraint(["model", "previous"], _VERSION, name="fk_releases_model_previous"),
        sa.CheckConstraint("weight >= 0 AND weight <= 1", name="ck_releases_weight"),
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("model", _NAME, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("change", sa.LargeBinary, nullable=False),
        sa.Column("evidence", sa.LargeBinary, nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_model_id", "events", ["model", "id"])
    for statement in _GUARDS[op.get_bind().dialect.name]:
        op.execute(statement)


def _windows_and_replicas() -> None:
    op.create_table(
        "windows",
        sa.Column("model", _NAME),
        sa.Column("version", sa.Integer, autoincrement=False),
        sa.Column("replica", sa.Text),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double, nullable=False),
        sa.Column("traffic", sa.LargeBinary, nullable=False),
        sa.Column("features", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "replica", "started_at", name="pk_windows"),
        sa.ForeignKeyConstraint(["model", "version"], _VERSION, name="fk_windows_model_version"),
    )
    op.create_index("ix_windows_model_ended_at", "windows", ["model", "ended_at"])
    op.create_table(
        "replicas",
        sa.Column("id", sa.Text),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replicas"),
    )


_GUARDS = {
    "sqlite": (
        "CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
        "CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
        # INSERT OR REPLACE deletes without firing the trigger above
        "CREATE TRIGGER events_no_replace BEFORE INSERT ON events WHEN EXISTS (SELECT 1 FROM events WHERE id = NEW.id) "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'events are append-only'; END $$",
        "CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE ON events "
        "FOR EACH ROW EXECUTE FUNCTION events_append_only()",
        "CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION events_append_only()",
    ),
}
