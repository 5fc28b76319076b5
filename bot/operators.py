"""
Who somebody outside Slack is: tokens for the command line, sessions for the web page.

A secret is shown once and kept as its SHA-256; 256 random bits need no slow hash. A person who left the configuration
is nobody from the next start on, whatever their token says.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from bot.incidents import Person, WatchkeeperError
from bot.store.operators import Credential, Kind, OperatorTokens
from bot.store.people import PeopleTable
from bot.throttle import Throttle

log = structlog.get_logger(__name__)

SESSION_LIFE = timedelta(hours=8)
MOST_DAYS = 366

_PREFIX: dict[Kind, str] = {"token": "wko_", "session": "wks_"}  # "reporter" is bot/reporters.py's
_SHAPE: dict[Kind, re.Pattern[str]] = {
    kind: re.compile(re.escape(prefix) + r"[A-Za-z0-9_-]{43}") for kind, prefix in _PREFIX.items()
}


class NotSignedInError(WatchkeeperError):
    """No secret, or one that does not count: never given out, expired, revoked, or of somebody who left."""

    def __init__(self) -> None:
        super().__init__("You are not signed in.")


class TooManyAttemptsError(WatchkeeperError):
    """Too many wrong secrets from this address, or too many attempts with this one."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        super().__init__("Too many attempts; wait a minute.")


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A person who proved who they are, and with what."""

    person: Person
    credential: Credential


class Operators:
    """Gives out tokens and sessions, and recognises their bearers. Raises StoreUnavailableError."""

    def __init__(self, *, tokens: OperatorTokens, people: PeopleTable, throttle: Throttle | None = None) -> None:
        self._tokens = tokens
        self._people = people
        self._throttle = throttle or Throttle()

    async def recognise(self, kind: Kind, secret: str, *, address: str, now: datetime) -> Operator:
        """
        The person behind a secret of this kind. `address` is the network address it came from.

        A right secret counts whatever strangers at its address did: 256 bits cannot be guessed, so the throttle spares
        only the log and what has not even the shape of one. Raises NotSignedInError, TooManyAttemptsError.
        """
        token_hash = hash_of(secret)
        if wait_s := self._throttle.wait_s(token_hash):
            raise TooManyAttemptsError(wait_s)
        is_shaped = _SHAPE[kind].fullmatch(secret) is not None
        wait_s = self._throttle.wait_s(address)
        found = await self._tokens.find(token_hash) if is_shaped else None
        person = await self._people.get(found.person_id) if found else None
        if found is None or person is None or found.kind != kind or not found.counts(now):
            if wait_s:
                raise TooManyAttemptsError(wait_s)
            self._throttle.failed(address, token_hash)
            log.warning("sign-in refused", kind=kind, address=address, token=found.token_id if found else None)
            raise NotSignedInError
        return Operator(person=replace(person, channel="operator"), credential=found)

    async def issue(
        self, person_id: str, *, label: str, days: int, actor: str, now: datetime
    ) -> tuple[str, Credential]:
        """A new token for this person: the secret, which nobody can read again, and its row."""
        if not 1 <= days <= MOST_DAYS:
            raise WatchkeeperError(f"--days has to be 1 to {MOST_DAYS}, not {days}")
        return await self._mint(
            "token", person_id, label=label, expires_at=now + timedelta(days=days), by=actor, now=now
        )

    async def tokens(self) -> list[Credential]:
        """Every token that was given out, by person."""
        return await self._tokens.tokens()

    async def revoke(self, token_id: str, *, actor: str, now: datetime) -> Credential:
        """End a token and its sessions. Raises NotFoundError."""
        return await self._tokens.revoke(token_id, actor=actor, now=now)

    async def sign_in(self, token: str, *, previous: str, address: str, now: datetime) -> tuple[str, Credential]:
        """
        A session for the bearer of a token; it lives eight hours, and no longer than the token.

        `previous` is the session that the browser still carried, if any; it ends. Raises as `recognise` does.
        """
        operator = await self.recognise("token", token, address=address, now=now)
        if previous:
            await self.sign_out(previous, now=now)
        return await self._mint(
            "session",
            operator.person.person_id,
            label=operator.credential.label,
            expires_at=min(now + SESSION_LIFE, operator.credential.expires_at),
            by=operator.person.person_id,
            now=now,
            parent=operator.credential.token_hash,
        )

    async def sign_out(self, session: str, *, now: datetime) -> None:
        """End this session; one that is none, or over, changes nothing."""
        found = await self._tokens.find(hash_of(session))
        if found is not None and found.kind == "session" and found.counts(now):
            await self._tokens.sign_out(found, now=now)

    async def _mint(
        self,
        kind: Kind,
        person_id: str,
        *,
        label: str,
        expires_at: datetime,
        by: str,
        now: datetime,
        parent: str | None = None,
    ) -> tuple[str, Credential]:
        secret = _PREFIX[kind] + secrets.token_urlsafe(32)
        item = Credential(
            token_hash=hash_of(secret),
            person_id=person_id,
            kind=kind,
            label=label,
            created_at=now,
            expires_at=expires_at,
            parent=parent,
        )
        await self._tokens.add(item, actor=by, now=now)
        return secret, item


def hash_of(secret: str) -> str:
    """What is stored and looked up in place of the secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
