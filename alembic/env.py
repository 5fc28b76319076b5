"""Runs migrations on the connection that the caller hands over (bot/store/schema.py is the caller)."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from bot.store.tables import Json, Utc, metadata


def plain(kind: str, item: Any, _: object) -> str | Literal[False]:
    """Write our own column types into a migration as what they are in the database, so that it never changes later."""
    if kind == "type" and isinstance(item, Utc):
        return "sa.DateTime(timezone=True)"
    return "sa.Text()" if kind == "type" and isinstance(item, Json) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    compare_type=True,
    render_item=plain,
)
context.run_migrations()
