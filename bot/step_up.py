# ruff: noqa: ARG002 - the protocol `Proof` says which parameters there are
"""
Step-up: a one-time code (TOTP, RFC 6238), typed outside Slack, before something that cannot be undone.

A stolen Slack session, laptop or operator's token clicks like its owner; it has no code. The secret is shown once, to
the person's authenticator, and kept sealed with a key that is not in the database.
"""

from __future__ import annotations

import hmac
import re
from datetime import datetime
from typing import Protocol

import pyotp
from cryptography.fernet import Fernet, InvalidToken

from bot import narrate
from bot.incidents import Person, StepUpNeededError, StepUpRefusedError, WatchkeeperError
from bot.store.step_up import StepUpCodes, Verdict

TOTP = "totp"
ISSUER = "Watchkeeper"
WINDOW = (0, -1, 1)
"""How many steps of 30 seconds a phone's clock may be off, the likeliest first (RFC 6238 5.2 advises one)."""

KEY = "WATCHKEEPER_STEP_UP_KEY"
_CODE = re.compile(r"[0-9]{6}")


class UnusableKeyError(WatchkeeperError):
    """The key is none, or not the one that a secret was sealed with."""


class Seal:
    """Seals secrets for a person: what is sealed for one opens for nobody else."""

    def __init__(self, key: str) -> None:
        try:
            self._fernet = Fernet(key)
        except ValueError as error:
            remedy = "make one with `watchkeeper operator totp new-key`"
            raise UnusableKeyError(f"{KEY} has to be 32 bytes in URL-safe base64: {remedy}") from error

    def close(self, person_id: str, secret: str) -> str:
        return self._fernet.encrypt(f"{secret} {person_id}".encode()).decode()

    def open(self, person_id: str, sealed: str) -> str:
        """Raises UnusableKeyError."""
        try:
            secret, _, owner = self._fernet.decrypt(sealed.encode()).decode().partition(" ")
        except InvalidToken as error:
            raise UnusableKeyError(_UNREADABLE.format(key=KEY, person=person_id)) from error
        if owner != person_id:
            raise UnusableKeyError(_UNREADABLE.format(key=KEY, person=person_id))
        return secret


_UNREADABLE = (
    "The secret of {person} was not sealed with this {key}: restore the key, or run `watchkeeper operator totp "
    "remove {person}` and set it up again."
)


class Proof(Protocol):
    """How somebody proves who they are."""

    async def prove(
        self, by: Person, code: str | None, *, plan_id: str, digest: str, now: datetime, deed: str = "approve"
    ) -> str:
        """Returns the method's name; `deed` is the command that asks. Raises StepUpNeededError, StepUpRefusedError."""


class Unproven:
    """Where nothing is set up nobody can prove themselves."""

    async def prove(
        self, by: Person, code: str | None, *, plan_id: str, digest: str, now: datetime, deed: str = "approve"
    ) -> str:
        raise StepUpNeededError(f"{narrate.STEP_UP} {narrate.NO_STEP_UP.format(key=KEY)}")


def new_key() -> str:
    """A key for the seal."""
    return Fernet.generate_key().decode()


def counter_of(secret: str, code: str, now: datetime) -> int | None:
    """Which 30 seconds since 1970 this code is of; None for a wrong one, or one that is further off than a step."""
    if not _CODE.fullmatch(code):
        return None
    totp = pyotp.TOTP(secret)
    for offset in WINDOW:
        if hmac.compare_digest(totp.at(now, counter_offset=offset), code):
            return int(totp.timecode(now)) + offset
    return None


class StepUp:
    """Asks for codes. `page` is where people reach our own pages, "" when nobody said; without a seal nobody passes."""

    def __init__(self, codes: StepUpCodes, seal: Seal | None, *, page: str = "") -> None:
        self._codes = codes
        self._seal = seal
        self._page = page.rstrip("/")

    def page_of(self, plan_id: str) -> str:
        """Where this plan is read and the code is typed; "" when nobody said where our pages are."""
        return f"{self._page}/plans/{plan_id}" if self._page else ""

    async def missing(self, person_id: str) -> str:
        """What has to be set up before this person can prove themselves, in a sentence; "" when nothing."""
        if self._seal is None:
            return narrate.NO_STEP_UP.format(key=KEY)
        return "" if await self._codes.has(person_id) else narrate.NO_CODES.format(person=person_id)

    async def prove(
        self, by: Person, code: str | None, *, plan_id: str, digest: str, now: datetime, deed: str = "approve"
    ) -> str:
        """
        Let this code count for exactly this plan, once. Returns the method's name, for the approval.

        Raises StepUpNeededError when there is no code or none can be had, StepUpRefusedError for one that does not
        count; both say what to do.
        """
        if missing := await self.missing(by.person_id):
            raise StepUpNeededError(f"{narrate.STEP_UP} {missing}")
        if code is None:
            where = narrate.STEP_UP_WHERE.format(plan=plan_id, deed=deed)
            raise StepUpNeededError(f"{narrate.STEP_UP} {where}", url=self.page_of(plan_id))
        typed = code.replace(" ", "")
        attempt = await self._codes.attempt(
            by.person_id,
            lambda sealed: self._counter(by.person_id, sealed, typed, now),
            plan_id=plan_id,
            digest=digest,
            now=now,
        )
        if attempt.verdict is not Verdict.RIGHT:
            raise StepUpRefusedError(narrate.step_up_refused(attempt.verdict, attempt.locked_until))
        return TOTP

    def _counter(self, person_id: str, sealed: str, typed: str, now: datetime) -> int | None:
        return counter_of(self._seal.open(person_id, sealed), typed, now) if self._seal else None


class Enrolment:
    """A secret that waits for its first code: only a phone that has it makes it count."""

    def __init__(self, person_id: str, name: str, seal: Seal, codes: StepUpCodes) -> None:
        self._person_id = person_id
        self._seal = seal
        self._codes = codes
        self._secret = pyotp.random_base32()
        self.uri = pyotp.TOTP(self._secret).provisioning_uri(name=name, issuer_name=ISSUER)
        """What an authenticator reads; whoever sees it has the codes."""

    async def confirm(self, code: str, *, actor: str, now: datetime) -> None:
        """Keep the secret, if the code is one of its. Raises StepUpRefusedError, AlreadyDecidedError."""
        counter = counter_of(self._secret, code.replace(" ", ""), now)
        if counter is None:
            raise StepUpRefusedError("This is not the code that it shows now; nothing was kept. Run it again.")
        sealed = self._seal.close(self._person_id, self._secret)
        await self._codes.keep(self._person_id, sealed, counter=counter, actor=actor, now=now)
