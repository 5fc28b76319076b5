"""How operators and reporters sign in: the hashes of secrets that were shown once, and until when they count."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import NotFoundError
from bot.store import audit as chain
from bot.store.database import Database
from bot.store.tables import operator_token

Kind = Literal["token", "session", "reporter"]

ID_LENGTH = 12
"""So many digits of the hash name a token where people read and type."""


@dataclass(frozen=True, kw_only=True)
class Credential:
    """
    One secret's row, without the secret; `parent` is the hash of the token that a session was begun with.

    A reporter's `person_id` is the name of the source that it reports for.
    """

    token_hash: str
    person_id: str
    kind: Kind
    label: str
    created_at: datetime
    expires_at: datetime
    parent: str | None = None
    revoked_at: datetime | None = None

    @property
    def token_id(self) -> str:
        """What people call it by; it opens nothing."""
        return self.token_hash[:ID_LENGTH]

    def counts(self, now: datetime) -> bool:
        """Is it neither expired nor revoked?"""
        return self.revoked_at is None and now < self.expires_at


class OperatorTokens:
    """Every method is one transaction; what adds or revokes is on record. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, item: Credential, *, actor: str, now: datetime) -> None:
        """Keep a new token or session; `actor` is who made it."""
        async with self._database.write() as connection:
            await connection.execute(operator_token.insert().values(asdict(item)))
            await _note(connection, item, "signed_in" if item.kind == "session" else "added", actor=actor, now=now)

    async def find(self, token_hash: str) -> Credential | None:
        """The row of this hash, whatever its state. The lookup is by hash, so its time tells nothing of a secret."""
        query = sa.select(operator_token).where(operator_token.c.token_hash == token_hash)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return Credential(**row._mapping) if row else None  # noqa: SLF001 - SQLAlchemy's public name

    async def tokens(self, kind: Kind = "token") -> list[Credential]:
        """Every token of this kind that was given out and is still kept, by whose it is."""
        query = (
            sa.select(operator_token)
            .where(operator_token.c.kind == kind)
            .order_by(operator_token.c.person_id, operator_token.c.created_at)
        )
        async with self._database.read() as connection:
            return [Credential(**row._mapping) for row in await connection.execute(query)]  # noqa: SLF001 - as above

    async def revoke(self, token_id: str, *, actor: str, now: datetime, kind: Kind = "token") -> Credential:
        """
        End a token of this kind, and every session that was begun with it. `token_id` is the beginning of its hash.

        Raises NotFoundError when no token, or more than one, begins like that.
        """
        async with self._database.write() as connection:
            begins = operator_token.c.token_hash.startswith(token_id, autoescape=True)
            found = (
                await connection.execute(sa.select(operator_token).where(begins, operator_token.c.kind == kind))
            ).all()
            if len(found) != 1 or len(token_id) < ID_LENGTH:
                lists = "change token list" if kind == "reporter" else "operator list"
                raise NotFoundError(f"{token_id} names no token; `watchkeeper {lists}` shows the ids")
            item = Credential(**found[0]._mapping)  # noqa: SLF001 - as above
            await self._end(
                connection,
                sa.or_(operator_token.c.token_hash == item.token_hash, operator_token.c.parent == item.token_hash),
                now,
            )
            await _note(connection, item, "revoked", actor=actor, now=now)
            return item

    async def sign_out(self, item: Credential, *, now: datetime) -> None:
        """End one session."""
        async with self._database.write() as connection:
            await self._end(connection, operator_token.c.token_hash == item.token_hash, now)
            await _note(connection, item, "signed_out", actor=item.person_id, now=now)

    async def _end(self, connection: AsyncConnection, which: sa.ColumnElement[bool], now: datetime) -> None:
        await connection.execute(
            operator_token.update().where(which, operator_token.c.revoked_at.is_(None)).values(revoked_at=now)
        )


async def _note(connection: AsyncConnection, item: Credential, what: str, *, actor: str, now: datetime) -> None:
    details: dict[str, Any] = {"token": item.token_id, "label": item.label, "expires": item.expires_at.isoformat()}
    if item.parent:
        details["parent"] = item.parent[:ID_LENGTH]
    whose = "reporter" if item.kind == "reporter" else "operator"
    await chain.append(
        connection, at=now, actor=actor, action=f"{whose}.{what}", subject=f"{whose}:{item.person_id}", **details
    )
