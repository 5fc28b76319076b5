"""Who is who: the table that links a Slack team and user to a person, written from the configuration alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.given_roles import GivenRoles
from bot.incidents import Person
from bot.store.database import Database
from bot.store.role_sources import readings
from bot.store.tables import person, person_slack

_PEOPLE_LOCK = 7_303_014_922


class PeopleTable:
    """
    Nobody becomes a person by an e-mail match or a display name: only by a row here.

    During a rollout processes with different configurations write the table in turns. Each believes of it only what
    its own configuration says, too, so that an old process' restart brings nobody back who was taken out.
    """

    def __init__(self, database: Database, given: GivenRoles | None = None) -> None:
        """`given` learns with every look what other sources say of roles."""
        self._database = database
        self._given = given or GivenRoles()
        self._mine: dict[str, tuple[Person, frozenset[tuple[str, str]]]] | None = None  # None: told no configuration

    async def replace(self, people: Iterable[tuple[Person, tuple[tuple[str, str], ...]]]) -> None:
        """Make the table say exactly what the configuration says: each person with their (team, user) pairs."""
        rows = list(people)
        async with self._database.write() as connection:
            if connection.dialect.name == "postgresql":  # processes that start together say it one after the other
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_PEOPLE_LOCK)))
            await connection.execute(person_slack.delete())
            await connection.execute(person.delete())
            for each, accounts in rows:
                await connection.execute(
                    person.insert().values(
                        person_id=each.person_id,
                        name=each.name,
                        email=each.email,
                        pagerduty=each.pagerduty,
                        roles=sorted(each.roles),
                        active=True,
                    )
                )
                for team, user in accounts:
                    await connection.execute(
                        person_slack.insert().values(team=team, user=user, person_id=each.person_id)
                    )
        self._mine = {each.person_id: (each, frozenset(accounts)) for each, accounts in rows}

    async def by_slack(self, team: str, user: str) -> Person | None:
        """The person behind a Slack account, None for everybody else."""
        query = (
            sa.select(person, person_slack.c.user)
            .join(person_slack, person_slack.c.person_id == person.c.person_id)
            .where(person_slack.c.team == team, person_slack.c.user == user, person.c.active)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
            await self._see(connection)
        if row is None or not self._is_mine(row.person_id, (team, user)):
            return None
        return replace(self._narrowed(row), slack_user=row.user)

    async def get(self, person_id: str) -> Person | None:
        """The person with this id as the configuration has them now; None when they are gone."""
        async with self._database.read() as connection:
            row = (
                await connection.execute(sa.select(person).where(person.c.person_id == person_id, person.c.active))
            ).one_or_none()
            await self._see(connection)
        return self._narrowed(row) if row is not None and self._is_mine(person_id) else None

    async def accounts(self, person_id: str) -> list[tuple[str, str]]:
        """Their Slack accounts as (team, user); none for who has none, or is nobody."""
        query = sa.select(person_slack).where(person_slack.c.person_id == person_id)
        async with self._database.read() as connection:
            rows = (await connection.execute(query.order_by(person_slack.c.team, person_slack.c.user))).all()
        return [(row.team, row.user) for row in rows if self._is_mine(person_id, (row.team, row.user))]

    async def look(self) -> None:
        """See what the sources of roles said last, for words about who has which."""
        async with self._database.read() as connection:
            await self._see(connection)

    async def _see(self, connection: AsyncConnection) -> None:
        if self._given.sources:
            self._given.see(*await readings(connection))

    def _is_mine(self, person_id: str, account: tuple[str, str] | None = None) -> bool:
        """Does this process' own configuration have this person, with this account?"""
        if self._mine is None:
            return True
        _, accounts = self._mine.get(person_id, (None, frozenset()))
        return person_id in self._mine and (account is None or account in accounts)

    def _narrowed(self, row: Any) -> Person:
        """The row's person, with the roles that both the row and this process' configuration give."""
        roles = frozenset(row.roles)
        if self._mine is not None:
            roles &= self._mine[row.person_id][0].roles
        return Person(
            person_id=row.person_id,
            name=row.name,
            pagerduty=row.pagerduty,
            email=row.email,
            roles=roles,
            given=self._given.of(row.person_id),
        )
