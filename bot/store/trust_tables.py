"""The tables about whom we trust with more than a click: one-time codes, broken glass, roles from elsewhere."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from bot.store.tables import Json, Utc, metadata

__all__ = ["break_glass", "metadata", "role_source", "totp", "totp_use"]

# A person's secret for one-time codes (RFC 6238), sealed with a key that is not in the database.
totp = Table(
    "totp",
    metadata,
    Column("person_id", String(255), primary_key=True),
    Column("sealed", Text, nullable=False),
    Column("failures", Integer, nullable=False),  # wrong codes in a row
    Column("locked_until", Utc),
    Column("created_at", Utc, nullable=False),
)

# Every code that counted, and for what: the key lets each count once.
totp_use = Table(
    "totp_use",
    metadata,
    Column("person_id", String(255), primary_key=True),
    Column("counter", BigInteger, primary_key=True, autoincrement=False),  # of RFC 6238: the 30 seconds it is for
    Column("plan_id", String(64), nullable=False),  # empty for the code that proved the set-up
    Column("digest", String(64), nullable=False),
    Column("at", Utc, nullable=False),
)

# Each time somebody started a fix alone: the review that somebody else owes. Kept when plan and incident are gone.
break_glass = Table(
    "break_glass",
    metadata,
    Column("review_id", Integer, primary_key=True, autoincrement=True),
    Column("plan_id", String(64), nullable=False, unique=True),
    Column("incident_id", String(255), nullable=False),
    Column("person_id", String(255), nullable=False),
    Column("role", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Utc, nullable=False),
    Column("reviewed_by", String(255)),
    Column("reviewed_at", Utc),
    Column("says", Text),
)

# Whom a source named for its role when it was last read. It counts for as long as it is young enough.
role_source = Table(
    "role_source",
    metadata,
    Column("source", String(255), primary_key=True),
    Column("people", Json, nullable=False),  # ids of the configuration
    Column("read_at", Utc),  # null: never
    Column("trouble", Text, nullable=False),  # why the last reading failed; empty when it did not
)
