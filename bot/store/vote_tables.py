"""The tables of what people think of suggested runbooks, and of the ranking that was learned from it."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, String, Table

from bot.store.tables import Json, Utc
from bot.store.trust_tables import metadata

__all__ = ["metadata", "ranking", "ranking_turn", "runbook_vote"]

# What somebody thinks of a runbook that was suggested for an incident. The key holds one live vote; the record has all.
runbook_vote = Table(
    "runbook_vote",
    metadata,
    Column("incident_id", ForeignKey("incident.incident_id"), primary_key=True),
    Column("runbook", String(255), primary_key=True),
    Column("person_id", String(255), primary_key=True),
    Column("verdict", String(16), nullable=False),  # helpful | wrong
    Column("run", Integer, nullable=False),  # the diagnosis that suggested it
    Column("at", Utc, nullable=False),
)

# Every ranking that was learned and offered for review, under the SHA-256 of its content.
ranking = Table(
    "ranking",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", Json, nullable=False),
    Column("made_at", Utc, nullable=False),
    Column("made_by", String(255), nullable=False),
)

# Which of them is in force: the newest turn says. A turn back names nothing older than where it went.
ranking_turn = Table(
    "ranking_turn",
    metadata,
    Column("turn", Integer, primary_key=True, autoincrement=False),
    Column("digest", ForeignKey("ranking.digest")),  # null: none
    Column("back_to", Integer, nullable=False),  # the turn that a rollback restores; 0: none was in force
    Column("person_id", String(255), nullable=False),
    Column("at", Utc, nullable=False),
)
