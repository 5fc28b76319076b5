"""
The kill switch: one row that every start reads in its own transaction, so that who stops everything wins all races.

A start holds the row as it is to the end of its transaction, and a stop waits for those; when `stop` has returned,
whatever began before is on record and nothing begins after. A plan remembers how many stops there were when it was
made, so one from before a stop never runs, however soon the switch was turned back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot import narrate
from bot.incidents import IncidentState, StoppedError
from bot.redact import safe_text
from bot.store import audit as chain
from bot.store.database import Database
from bot.store.tables import incident, kill_switch, plan

SUBJECT = "kill-switch"
"""What the record calls it."""

MOST_REASON = 300
_UNREADABLE = "the kill switch cannot be read, since its row is gone from the database: restore it"
_EARLIER = "Everything was stopped after this fix was made. Diagnose again for a fresh one."


@dataclass(frozen=True, kw_only=True)
class SwitchState:
    """How the switch stands; `turns` counts every turn and names the last one, `told` is the one Slack knows of."""

    is_stopped: bool
    turns: int = 0
    told: int = 0
    who: str = ""
    reason: str = ""
    at: datetime | None = None


async def refuse_if_stopped(connection: AsyncConnection, plan_id: str) -> None:
    """
    Hold the switch as it is to the end of the transaction, which starts something of this plan.

    Raises StoppedError when everything is stopped, was stopped since the plan was made, or when nobody can tell.
    """
    both = kill_switch.join(plan, plan.c.plan_id == plan_id)
    query = sa.select(kill_switch, plan.c.stops.label("known_stops")).select_from(both)
    row = (await connection.execute(query.with_for_update(read=True, of=kill_switch))).one_or_none()
    if row is None:
        raise StoppedError(narrate.stopped("", _UNREADABLE, None))
    if row.is_stopped:
        raise StoppedError(narrate.stopped(row.who, row.reason, row.at))
    if row.stops != row.known_stops:
        raise StoppedError(_EARLIER)


async def stops_so_far(connection: AsyncConnection) -> int:
    """What a plan that is made now remembers."""
    return int((await connection.execute(sa.select(kill_switch.c.stops))).scalar_one_or_none() or 0)


class KillSwitch:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> SwitchState:
        """How it stands; stopped when the row is gone."""
        columns = [column for column in kill_switch.c if column.name not in ("switch_id", "stops")]
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(*columns))).one_or_none()
        return SwitchState(**row._asdict()) if row else SwitchState(is_stopped=True, reason=_UNREADABLE)

    async def stop(self, *, by: str, name: str, reason: str, channel: str, now: datetime) -> bool:
        """Stop everything; False, and nothing changes, when it is stopped. `by` is an id, `name` is for people."""
        reason = safe_text(reason).strip()[:MOST_REASON]
        return await self._turn(to=True, by=by, name=name, reason=reason, channel=channel, now=now)

    async def go(self, *, by: str, name: str, channel: str, now: datetime) -> bool:
        """Let fixes start again; False when nothing is stopped. Raises StoppedError when the row is gone."""
        if await self._turn(to=False, by=by, name=name, reason="", channel=channel, now=now):
            return True
        if (state := await self.read()).is_stopped:
            raise StoppedError(narrate.stopped(state.who, state.reason, state.at))
        return False

    async def _turn(self, *, to: bool, by: str, name: str, reason: str, channel: str, now: datetime) -> bool:
        statement = (
            kill_switch.update()
            .where(kill_switch.c.is_stopped.is_(not to))
            .values(
                is_stopped=to,
                stops=kill_switch.c.stops + int(to),
                turns=kill_switch.c.turns + 1,
                who=name,
                reason=reason,
                at=now,
            )
        )
        async with self._database.write() as connection:
            if not (await connection.execute(statement)).rowcount:
                return False
            action = "switch.stopped" if to else "switch.released"
            said = {"reason": reason} if to else {}
            await chain.append(connection, at=now, actor=by, action=action, subject=SUBJECT, channel=channel, **said)
            return True

    async def is_told(self, turn: int) -> None:
        """Slack knows of this turn; now every open card is out of date."""
        is_open = incident.c.state != IncidentState.RESOLVED.value
        async with self._database.write() as connection:
            # In the order in which everybody locks incidents.
            locked = sa.select(incident.c.incident_id).where(is_open).order_by(incident.c.incident_id)
            await connection.execute(locked.with_for_update())
            await connection.execute(incident.update().where(is_open).values(revision=incident.c.revision + 1))
            await connection.execute(kill_switch.update().where(kill_switch.c.told < turn).values(told=turn))
