"""kill switch, and a record that cannot be replaced either."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    switch = op.create_table(
        "kill_switch",
        sa.Column("switch_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("is_stopped", sa.Boolean(), nullable=False),
        sa.Column("stops", sa.Integer(), nullable=False),
        sa.Column("turns", sa.Integer(), nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("switch_id", name=op.f("pk_kill_switch")),
    )
    never = {"switch_id": 1, "is_stopped": False, "stops": 0, "turns": 0, "told": 0, "who": "", "reason": ""}
    op.bulk_insert(switch, [never])
    with op.batch_alter_table("plan", schema=None) as batch_op:
        batch_op.add_column(sa.Column("stops", sa.Integer(), server_default="0", nullable=False))
    _forbid_replacing()


def _forbid_replacing() -> None:
    """
    SQLite's INSERT OR REPLACE deletes without asking the trigger on DELETE; PostgreSQL skips triggers for a session
    that says it is a replica.
    """
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit "
            "WHEN NEW.seq <= (SELECT max(seq) FROM audit) "
            "BEGIN SELECT RAISE(ABORT, 'the audit record is append-only'); END"
        )
    else:
        op.execute("ALTER TABLE audit ENABLE ALWAYS TRIGGER audit_append_only")


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_no_replace")
    else:
        op.execute("ALTER TABLE audit ENABLE TRIGGER audit_append_only")
    with op.batch_alter_table("plan", schema=None) as batch_op:
        batch_op.drop_column("stops")

    op.drop_table("kill_switch")
