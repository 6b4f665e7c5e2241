"""How many periods of a version's windows were removed for their age or number."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "forgotten",
        sa.Column("model", sa.String(128)),
        sa.Column("version", sa.Integer, autoincrement=False),
        sa.Column("periods", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", name="pk_forgotten"),
        sa.ForeignKeyConstraint(
            ["model", "version"], ["versions.model", "versions.number"], name="fk_forgotten_model_version"
        ),
    )
