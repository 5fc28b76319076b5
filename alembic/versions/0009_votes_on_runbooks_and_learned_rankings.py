"""votes on runbooks, and the rankings that were learned from them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "runbook_vote",
        sa.Column("incident_id", sa.String(length=255), nullable=False),
        sa.Column("runbook", sa.String(length=255), nullable=False),
        sa.Column("person_id", sa.String(length=255), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.incident_id"], name=op.f("fk_runbook_vote_incident_id_incident")
        ),
        sa.PrimaryKeyConstraint("incident_id", "runbook", "person_id", name=op.f("pk_runbook_vote")),
    )
    op.create_table(
        "ranking",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("made_by", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_ranking")),
    )
    op.create_table(
        "ranking_turn",
        sa.Column("turn", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("back_to", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.String(length=255), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["ranking.digest"], name=op.f("fk_ranking_turn_digest_ranking")),
        sa.PrimaryKeyConstraint("turn", name=op.f("pk_ranking_turn")),
    )


def downgrade() -> None:
    for table in ("ranking_turn", "ranking", "runbook_vote"):
        op.drop_table(table)
