"""Roles from elsewhere: was each source read lately, and does it name anybody whom we know?"""

from __future__ import annotations

from bot.config import Config
from bot.doctor.advice import Advice
from bot.given_roles import given_by
from bot.incidents import StoreUnavailableError
from bot.settings import Settings
from bot.store.database import Database
from bot.store.role_sources import RoleSources

_MEND = "run `watchkeeper serve` or `worker`, and correct the id, the scope usergroups:read or the API key"


async def examine(settings: Settings, config: Config) -> list[Advice]:
    """What the workers read last; nothing is asked of Slack or PagerDuty here."""
    if not config.role_sources:
        return []
    database = Database(settings.database_url.get_secret_value())
    given = given_by(config)
    try:
        readings, now = await RoleSources(database).readings()
    except StoreUnavailableError as error:
        return [Advice.unknown("roles", str(error), "see what the doctor says of the database")]
    finally:
        await database.close()
    given.see(readings, now)
    found = []
    for source in config.role_sources:
        about = f"role {source.role}"
        people = [each.name for each in config.people if (source.service, source.role) in given.of(each.id)]
        if given.lost(source.role, source.service):
            found.append(Advice.bad(about, f"{given.age(source)}, so it names nobody", _MEND))
        elif not people:
            remedy = "add a [[person]] for each of them, with `slack` or `pagerduty`"
            found.append(Advice.unknown(about, f"{given.age(source)}, and names nobody of the configuration", remedy))
        else:
            found.append(Advice.ok(about, f"{given.age(source)}: {', '.join(people)}"))
    return found
