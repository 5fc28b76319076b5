"""What `watchkeeper operator totp` does beside the database: one-time codes are set up, listed, and ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from bot import narrate
from bot.config import Config
from bot.incidents import WatchkeeperError
from bot.operate import open_database
from bot.redact import safe_text
from bot.settings import Settings
from bot.step_up import KEY, Enrolment, Seal
from bot.store.step_up import Holder, StepUpCodes

SHOWN_ONCE = "Add this to {name}'s authenticator; it is not shown again:\n\n{uri}\n\nThen type the code that it shows."


async def enrol(
    settings: Settings,
    config: Config,
    person_id: str,
    *,
    actor: str,
    show: Callable[[str], None],
    ask: Callable[[], str],
) -> str:
    """
    Show a new secret, ask for its first code, and keep it sealed. Raises WatchkeeperError.

    Nothing is kept of a secret whose code was not typed, so a set-up that breaks off is begun anew.
    """
    person = config.person(person_id)
    if person is None:
        known = ", ".join(each.id for each in config.people) or "nobody"
        raise WatchkeeperError(f"{person_id} is not in {config.path}; it has {known}")
    key = settings.watchkeeper_step_up_key
    if key is None:
        raise WatchkeeperError(
            f"{KEY} is not set: make one with `watchkeeper operator totp new-key`, and set it, or {KEY}_FILE, "
            "here and where Watchkeeper serves"
        )
    async with open_database(settings) as database:
        codes = StepUpCodes(database)
        if await codes.has(person_id):
            raise WatchkeeperError(
                f"{person_id} has one-time codes already; `watchkeeper operator totp remove {person_id}` ends them"
            )
        enrolment = Enrolment(person_id, person.email or person_id, Seal(key.get_secret_value()), codes)
        show(SHOWN_ONCE.format(name=person.name, uri=enrolment.uri))
        await enrolment.confirm(ask(), actor=actor, now=datetime.now(UTC))
    return f"{person.name} can prove themselves with one-time codes from now on"


async def holders(settings: Settings) -> str:
    """One line for everybody who has codes."""
    async with open_database(settings) as database:
        found = await StepUpCodes(database).holders()
    now = datetime.now(UTC)
    return safe_text("\n".join(_line(each, now) for each in found)) or "nobody has one-time codes"


async def remove(settings: Settings, person_id: str, *, actor: str) -> str:
    """End somebody's codes. Raises NotFoundError."""
    async with open_database(settings) as database:
        await StepUpCodes(database).remove(person_id, actor=actor, now=datetime.now(UTC))
    return f"{person_id} has no one-time codes any more"


def _line(each: Holder, now: datetime) -> str:
    is_locked = each.locked_until is not None and now < each.locked_until
    locked = f"  locked until {narrate.clock(each.locked_until)}" if is_locked and each.locked_until else ""
    return f"{each.person_id:<16}  since {each.created_at:%Y-%m-%d %H:%M} UTC{locked}"
