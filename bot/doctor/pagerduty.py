"""PagerDuty: the key, the user that acts, the services, the people, and the webhook subscription that pages us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bot.config import Config
from bot.doctor.advice import Advice
from bot.pagerduty_client import PagerDutyClient, PagerDutyError
from bot.settings import Settings

NEEDED_EVENTS = ("incident.triggered", "incident.acknowledged", "incident.resolved", "incident.reopened")
_DOOR = "/webhooks/pagerduty"


async def examine(settings: Settings, config: Config) -> list[Advice]:
    if settings.pagerduty_api_key is None:
        return []  # the settings say so already
    client = PagerDutyClient(settings.pagerduty_api_key.get_secret_value(), base_url=settings.pagerduty_api_base_url)
    try:
        services = {str(each.get("id")): each for each in await client.services()}
        users = {str(each.get("id")): each for each in await client.users()}
    except PagerDutyError as error:
        remedy = "create a REST API key (not an Events key) and set PAGERDUTY_API_KEY"
        return [Advice.bad("PagerDuty", str(error), remedy)]
    found = [Advice.ok("PagerDuty", f"{len(services)} services, {len(users)} users can be read")]
    found += [_sender(settings, users), *_services(config, services), *_people(config, users)]
    return [*found, *await _subscriptions(client, config)]


def _sender(settings: Settings, users: Mapping[str, Any]) -> Advice:
    """PagerDuty wants every write to be somebody's, by e-mail address."""
    address = (settings.pagerduty_from or "").lower()
    if any(str(user.get("email", "")).lower() == address for user in users.values()):
        return Advice.ok("PagerDuty From", f"{address} is a user of the account")
    return Advice.bad(
        "PagerDuty From", f"{address or 'PAGERDUTY_FROM'} is no user of the account", "make one, or name another"
    )


def _services(config: Config, services: Mapping[str, Any]) -> list[Advice]:
    found = []
    for service in config.services:
        about, wanted = f"service {service.name}", service.pagerduty_service
        if wanted is None:
            remedy = "add pagerduty_service, or nothing pages for it"
            found.append(Advice.unknown(about, "names no service of PagerDuty", remedy))
        elif wanted not in services:
            found.append(
                Advice.bad(about, f"PagerDuty has no service {wanted}", "copy the id from the service's address")
            )
        else:
            status = str(services[wanted].get("status", ""))
            says = f"pages as {services[wanted].get('name') or services[wanted].get('summary')}"
            found.append(
                Advice.bad(about, f"{says}, which is {status}", "end the maintenance or enable the service")
                if status in ("disabled", "maintenance")
                else Advice.ok(about, says)
            )
    return found


def _people(config: Config, users: Mapping[str, Any]) -> list[Advice]:
    found = []
    for person in config.people:
        about = f"person {person.id}"
        if person.pagerduty is None:
            continue  # somebody who approves need not be on call
        user = users.get(person.pagerduty)
        if user is None:
            found.append(Advice.bad(about, f"PagerDuty has no user {person.pagerduty}", "correct `pagerduty`"))
        elif person.email and str(user.get("email", "")).lower() != person.email.lower():
            says = f"PagerDuty's {person.pagerduty} is {user.get('email')}, not {person.email}"
            found.append(Advice.bad(about, says, "make `pagerduty` and `email` the same person's"))
        else:
            found.append(Advice.ok(about, f"{user.get('name') or user.get('summary')} in PagerDuty"))
    return found


async def _subscriptions(client: PagerDutyClient, config: Config) -> list[Advice]:
    about = "PagerDuty webhook"
    try:
        every = await client.webhook_subscriptions()
    except PagerDutyError as error:
        return [Advice.unknown(about, str(error), "the key may not see subscriptions; look in PagerDuty by hand")]
    ours = [each for each in every if _url_of(each).endswith(_DOOR)]
    if not ours:
        remedy = f"create a V3 webhook subscription to https://YOUR-HOST{_DOOR} with the incident.* events"
        return [Advice.bad(about, f"none of {len(every)} subscriptions goes to {_DOOR}", remedy)]
    return [_subscription(about, each, config) for each in ours]


def _subscription(about: str, it: Mapping[str, Any], config: Config) -> Advice:
    where = _url_of(it)
    delivery = it.get("delivery_method")
    if isinstance(delivery, Mapping) and delivery.get("temporarily_disabled"):
        says = f"{where} is switched off by PagerDuty, because too many deliveries failed"
        return Advice.bad(about, says, "mend the address or the secret, then enable the subscription")
    if it.get("active") is False:
        return Advice.bad(about, f"{where} is not active", "enable the subscription")
    events = it.get("events")
    missing = [event for event in NEEDED_EVENTS if isinstance(events, list) and event not in events]
    if missing:
        return Advice.bad(about, f"{where} does not get {', '.join(missing)}", "add these events to the subscription")
    uncovered = _uncovered(it, config)
    if uncovered:
        says = f"{where} is for one service; {', '.join(uncovered)} would not page here"
        return Advice.unknown(about, says, "make the subscription account- or team-wide, or one for each service")
    return Advice.ok(about, f"{where} gets the incident events")


def _uncovered(it: Mapping[str, Any], config: Config) -> list[str]:
    chosen = it.get("filter")
    chosen = chosen if isinstance(chosen, Mapping) else {}
    if chosen.get("type") != "service_reference":
        return []
    wanted = [service for service in config.services if service.pagerduty_service]
    return [service.name for service in wanted if service.pagerduty_service != chosen.get("id")]


def _url_of(subscription: Mapping[str, Any]) -> str:
    method = subscription.get("delivery_method")
    return str(method.get("url", "")).rstrip("/") if isinstance(method, Mapping) else ""
