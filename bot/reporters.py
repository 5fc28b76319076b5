"""
Who may report changes: pipelines and scripts, each with a token of its own that bears the name of a source.

A token opens this one door and no other: what it reports cannot carry an undo, and names only configured services. As
with operators' tokens it is shown once and kept as its SHA-256.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from bot.config import Config
from bot.incidents import WatchkeeperError
from bot.operators import MOST_DAYS, NotSignedInError, TooManyAttemptsError, hash_of
from bot.store.operators import Credential, OperatorTokens
from bot.throttle import Throttle
from diagnostics.changes.self_report import NAME as SELF_REPORT

log = structlog.get_logger(__name__)

MOST_REPORTS, WINDOW_S = 60, 60.0
"""A pipeline deploys a few times an hour; whoever reports every second has a loop."""

CLI = "command line"
"""The source of what `watchkeeper change record` reports; no token may bear it."""

_PREFIX = "wkc_"
_SHAPE = re.compile(re.escape(_PREFIX) + r"[A-Za-z0-9_-]{43}")
_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Reporters:
    """Gives out reporters' tokens and recognises their bearers. Raises StoreUnavailableError."""

    def __init__(
        self,
        tokens: OperatorTokens,
        *,
        throttle: Throttle | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._throttle = throttle or Throttle()
        self._clock = clock
        self._lately: OrderedDict[str, deque[float]] = OrderedDict()

    async def recognise(self, secret: str, *, address: str, now: datetime) -> str:
        """The source that this secret speaks for. Raises NotSignedInError, TooManyAttemptsError."""
        token_hash = hash_of(secret)
        wait_s = self._throttle.wait_s(address)
        found = await self._tokens.find(token_hash) if _SHAPE.fullmatch(secret) else None
        if found is None or found.kind != "reporter" or not found.counts(now):
            if wait_s:
                raise TooManyAttemptsError(wait_s)
            self._throttle.failed(address)
            log.warning("report refused", address=address, token=found.token_id if found else None)
            raise NotSignedInError
        self._count(found.token_hash)
        return found.person_id

    def _count(self, token_hash: str) -> None:
        """Only tokens that count come here, so this holds no more of them than were given out."""
        lately = self._lately.setdefault(token_hash, deque(maxlen=MOST_REPORTS))
        now = self._clock()
        if len(lately) == MOST_REPORTS and (wait_s := lately[0] + WINDOW_S - now) > 0:
            raise TooManyAttemptsError(wait_s)
        lately.append(now)

    async def issue(self, source: str, *, label: str, days: int, config: Config, actor: str, now: datetime) -> str:
        """A new token for this source, which nobody can read again. Raises WatchkeeperError for a taken name."""
        taken = {SELF_REPORT, *(each.name for each in (*config.datasources, *config.clusters))}
        if not _SOURCE.fullmatch(source) or source in taken:
            raise WatchkeeperError(
                f"{source!r} cannot be a source's name: use letters, digits, dots and dashes, and none of {config.path}"
            )
        if not 1 <= days <= MOST_DAYS:
            raise WatchkeeperError(f"--days has to be 1 to {MOST_DAYS}, not {days}")
        secret = _PREFIX + secrets.token_urlsafe(32)
        item = Credential(
            token_hash=hash_of(secret),
            person_id=source,
            kind="reporter",
            label=label,
            created_at=now,
            expires_at=now + timedelta(days=days),
        )
        await self._tokens.add(item, actor=actor, now=now)
        return secret

    async def tokens(self) -> list[Credential]:
        """Every token that was given out, by source."""
        return await self._tokens.tokens("reporter")

    async def revoke(self, token_id: str, *, actor: str, now: datetime) -> Credential:
        """End a token. Raises NotFoundError."""
        return await self._tokens.revoke(token_id, actor=actor, now=now, kind="reporter")
