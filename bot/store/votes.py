"""What people think of suggested runbooks: one live vote for each person, incident and runbook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import IncidentState, PlanState
from bot.store import audit as chain
from bot.store.database import Database
from bot.store.statements import touch
from bot.store.tables import incident, plan
from bot.store.vote_tables import runbook_vote

Verdict = Literal["helpful", "wrong"]

_UNDO = plan.alias("undo")
_FIXES = (
    sa.select(plan.c.incident_id, plan.c.run, plan.c.frozen)
    .join(incident, incident.c.incident_id == plan.c.incident_id)
    .where(
        plan.c.state == PlanState.VERIFIED.value,
        plan.c.undoes.is_(None),
        incident.c.state == IncidentState.RESOLVED.value,
        ~sa.exists().where(
            _UNDO.c.undoes == plan.c.plan_id,
            _UNDO.c.state.in_([each.value for each in (PlanState.RUNNING, PlanState.DONE, PlanState.VERIFIED)]),
        ),
    )
)


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """What one person says of one runbook; `run` is the diagnosis that suggested it."""

    incident_id: str
    runbook: str
    person_id: str
    verdict: Verdict
    run: int
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many live votes a runbook has in an incident."""

    helpful: int = 0
    wrong: int = 0


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is known of an incident's runbooks: the live votes, and whose steps resolved it; `run` suggested them."""

    incident_id: str
    run: int
    ballots: tuple[Ballot, ...] = ()
    resolved_by: frozenset[str] = frozenset()


class Votes:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cast(self, ballot: Ballot, *, channel: str) -> tuple[bool, Tally]:
        """
        Put this vote in the place of the person's former one; the same again withdraws it.

        Whether it counts now, and the tally. The incident has to exist: its row is held, so clicks come one by one.
        """
        table = runbook_vote
        key = {"incident_id": ballot.incident_id, "runbook": ballot.runbook, "person_id": ballot.person_id}
        mine = sa.and_(*(table.c[name] == value for name, value in key.items()))
        async with self._database.write() as connection:
            await touch(connection, ballot.incident_id)
            former = (await connection.execute(sa.select(table.c.verdict).where(mine))).scalar_one_or_none()
            counts = former != ballot.verdict
            await connection.execute(table.delete().where(mine))
            if counts:
                await connection.execute(
                    table.insert().values(**key, verdict=ballot.verdict, run=ballot.run, at=ballot.at)
                )
            tally = (await _tallies(connection, ballot.incident_id)).get(ballot.runbook, Tally())
            await chain.append(
                connection,
                at=ballot.at,
                actor=ballot.person_id,
                action="runbook.voted" if counts else "runbook.vote_withdrawn",
                subject=ballot.incident_id,
                runbook=ballot.runbook,
                verdict=ballot.verdict,
                former=former,
                run=ballot.run,
                channel=channel,
            )
        return counts, tally

    async def tallies(self, incident_id: str) -> Mapping[str, Tally]:
        """The live votes of an incident by runbook; one without votes is not in it."""
        async with self._database.read() as connection:
            return await _tallies(connection, incident_id)

    async def judgements(self) -> list[Judgement]:
        """
        Every incident in which somebody voted, or which a runbook's fix resolved.

        A fix counts where the telemetry confirmed it, nobody took it back, and the incident is resolved.
        """
        async with self._database.read() as connection:
            votes = await connection.execute(sa.select(runbook_vote).order_by(runbook_vote.c.at))
            ballots = [Ballot(**row._asdict()) for row in votes]
            fixes = [(row.incident_id, row.run, row.frozen["runbook_id"]) for row in await connection.execute(_FIXES)]
        runs: dict[str, int] = {}
        for incident_id, number in [*((each.incident_id, each.run) for each in ballots), *(fix[:2] for fix in fixes)]:
            runs[incident_id] = min(runs.get(incident_id, number), number)
        return [
            Judgement(
                incident_id=incident_id,
                run=number,
                ballots=tuple(each for each in ballots if each.incident_id == incident_id),
                resolved_by=frozenset(runbook for other, _, runbook in fixes if other == incident_id),
            )
            for incident_id, number in sorted(runs.items())
        ]


async def _tallies(connection: AsyncConnection, incident_id: str) -> dict[str, Tally]:
    votes = runbook_vote.c
    query = (
        sa.select(votes.runbook, votes.verdict, sa.func.count().label("votes"))
        .where(votes.incident_id == incident_id)
        .group_by(votes.runbook, votes.verdict)
    )
    found: dict[str, dict[str, int]] = {}
    for row in await connection.execute(query):
        found.setdefault(row.runbook, {})[row.verdict] = row.votes
    return {name: Tally(**counts) for name, counts in found.items()}
