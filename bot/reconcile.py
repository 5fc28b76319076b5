"""
Asks PagerDuty what is open, and heals what its webhooks did not tell us.

Webhooks are missed while we are down for longer than PagerDuty repeats them (48 h), while the subscription is switched
off (24 h after three drops), and when an event is larger than 256 KB. What was missed goes through the same inbox as a
webhook would, under an id made of what PagerDuty said, so that a second process or a late webhook does no harm.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from bot.incidents import Delivery, Incident, IncidentState, NotFoundError, UnreadableEventError
from bot.pagerduty import changed_at, incident_facts
from bot.pagerduty_client import FORBIDDEN, NOT_FOUND, PagerDutyError
from bot.store.inbox import Inbox
from bot.store.incidents import Incidents
from bot.store.workers import Duties

log = structlog.get_logger()

LOOK_S = 60.0
"""How often a process looks whether it is its turn; so a dead one is followed within a minute."""

EVERY_S = 300.0
WEBHOOK_PATH = "/webhooks/pagerduty"
_DUTY = "reconcile"
_HELD_S = 2.5 * LOOK_S
_LEAST_SHARE = 0.25  # of the key's requests this minute; the rest is for acknowledging, resolving and diagnosing
_TICK = timedelta(milliseconds=1)


class PagerDutyReader(Protocol):
    """The part of PagerDuty that is read here; every call raises PagerDutyError."""

    @property
    def share_left(self) -> float: ...
    async def open_incidents(self, service_ids: Sequence[str]) -> list[Mapping[str, Any]]: ...
    async def incident(self, incident_id: str) -> Mapping[str, Any]: ...
    async def services(self) -> list[Mapping[str, Any]]: ...
    async def webhook_subscriptions(self) -> list[Mapping[str, Any]]: ...


class Reconciler:
    """Every five minutes one process of all compares what is open there and here."""

    def __init__(
        self,
        *,
        pagerduty: PagerDutyReader,
        incidents: Incidents,
        inbox: Inbox,
        duties: Duties,
        service_ids: Sequence[str],
        registry: CollectorRegistry,
    ) -> None:
        """`service_ids` are PagerDuty's, of the configured services."""
        self._pagerduty = pagerduty
        self._incidents = incidents
        self._inbox = inbox
        self._duties = duties
        self._service_ids = frozenset(service_ids)
        self._next_at = 0.0
        self._trouble = ""
        self._healed = Counter(
            "watchkeeper_reconciled", "Events that PagerDuty's webhooks did not tell us", ["kind"], registry=registry
        )
        self._enabled = Gauge(
            "watchkeeper_webhook_subscription_enabled", "0 while PagerDuty sends no webhooks", registry=registry
        )
        self._enabled.set(1)

    def trouble(self) -> str:
        """A sentence for /healthz while PagerDuty sends us nothing; else empty."""
        return self._trouble

    async def sweep(self) -> int:
        """Compare, if it is time and our turn; returns how many events were healed. Raises StoreUnavailableError."""
        if time.monotonic() < self._next_at or not await self._duties.take(_DUTY, _HELD_S):
            return 0
        try:
            await self._look_at_subscription()
            healed = await self._compare()
        except PagerDutyError as error:  # the next look tries again
            log.warning("could not ask PagerDuty what is open", why=str(error))
            return 0
        # Jitter, so that not all deployments of an account ask in the same second.
        self._next_at = time.monotonic() + random.uniform(0.8, 1.0) * EVERY_S  # noqa: S311 - not a secret
        return healed

    async def _compare(self) -> int:
        ours = {each.incident_id: each for each in await self._incidents.unresolved()}
        services = sorted(self._service_ids | {each.pagerduty_service for each in ours.values()} - {""})
        listed = {str(each.get("id")): each for each in await self._pagerduty.open_incidents(services or ["none"])}
        healed = 0
        for incident_id in (*listed, *(each for each in ours if each not in listed)):
            rest = listed.get(incident_id)
            if rest is not None and _agree(ours.get(incident_id), rest):
                continue
            if self._pagerduty.share_left < _LEAST_SHARE:
                log.warning("PagerDuty's rate limit is near: the rest is compared the next time")
                break
            healed += await self._heal(incident_id, rest)
        log.info("compared with PagerDuty", listed=len(listed), ours=len(ours), healed=healed)
        return healed

    async def _heal(self, incident_id: str, listed: Mapping[str, Any] | None) -> bool:
        """
        True when PagerDuty knew more than we do.

        A list is older than the webhooks that came since. So an incident that we know is read again there, after it
        was read here; then whatever differs is newer than what we know. What PagerDuty does not let us read stays as
        it is, and holds up nobody.
        """
        try:
            known = await self._incidents.get(incident_id)
        except NotFoundError:
            known = None
        try:
            rest = listed if known is None and listed is not None else await self._pagerduty.incident(incident_id)
            item = missed(known, rest)
        except PagerDutyError as error:
            if not (error.permanent or error.status == FORBIDDEN):
                raise
            if error.status != NOT_FOUND or known is None or not await self._is_ours_to_see(known):
                log.warning("PagerDuty does not show this incident", incident=incident_id, why=str(error))
                return False
            item = gone(known, datetime.now(UTC))
        except UnreadableEventError as error:
            log.warning("PagerDuty's incident cannot be read", incident=incident_id, why=str(error))
            return False
        if item is None or not await self._inbox.deliver(item, now=datetime.now(UTC)):
            return False
        self._healed.labels(item.kind).inc()
        log.warning("healed what no webhook told", incident=incident_id, kind=item.kind, event_id=item.event_id)
        return True

    async def _is_ours_to_see(self, known: Incident) -> bool:
        """
        May our key see the service of this incident? To a lesser key, or one of another account, PagerDuty says 404
        of everything; that an incident is gone is to be believed only where its service is shown.
        """
        return any(each.get("id") == known.pagerduty_service for each in await self._pagerduty.services())

    async def _look_at_subscription(self) -> None:
        try:
            subscriptions = await self._pagerduty.webhook_subscriptions()
        except PagerDutyError as error:  # most keys may not read them; `doctor` says so
            log.info("the webhook subscription cannot be read", why=str(error))
            return
        off = [str(each.get("id")) for each in subscriptions if is_ours(each) and not is_enabled(each)]
        self._enabled.set(0 if off else 1)
        self._trouble = ""
        if off:
            self._trouble = (
                f"PagerDuty's webhook subscription {', '.join(off)} is switched off: pages come up to five minutes "
                "late, because PagerDuty is asked for them. Enable it in PagerDuty."
            )
            log.error("webhook subscription is switched off", subscriptions=off)


def missed(known: Incident | None, rest: Mapping[str, Any]) -> Delivery | None:
    """
    The event that would bring us to what PagerDuty says now; None when we know it. Raises UnreadableEventError.

    It happened when PagerDuty says so, to the second, and after everything that we knew before we asked.
    """
    facts = incident_facts(rest)
    if "status" not in facts or "created_at" not in facts:
        raise UnreadableEventError("the incident has no status or time of creation")
    at = changed_at(rest)
    if known is None:
        if facts["status"] == IncidentState.RESOLVED:
            return None
        kind = f"incident.{facts['status']}"
    else:
        if _agree(known, rest):
            return None
        at = max(at, known.state_at + _TICK)
        kind = _kind(known.state, IncidentState(facts["status"]))
    return _delivery(facts, kind, at)


def gone(known: Incident, now: datetime) -> Delivery:
    """The event that ends an incident which PagerDuty does not have any more."""
    facts = {
        "id": known.incident_id,
        "number": known.number,
        "title": known.title,
        "url": known.url,
        "urgency": known.urgency,
        "service_id": known.pagerduty_service,
        "service_name": known.pagerduty_service_name,
        "status": IncidentState.RESOLVED.value,
        "created_at": known.created_at.isoformat(),
    }
    return _delivery(facts, "incident.gone", max(now, known.state_at + _TICK))


def _delivery(facts: Mapping[str, Any], kind: str, at: datetime) -> Delivery:
    said = json.dumps([facts, kind, None if kind == "incident.gone" else at.isoformat()], sort_keys=True)
    return Delivery(
        event_id=f"reconcile-{hashlib.sha256(said.encode()).hexdigest()[:40]}",
        source="reconcile",
        kind=kind,
        occurred_at=at,
        incident_id=facts["id"],
        incident=facts,
    )


def _kind(was: IncidentState, state: IncidentState) -> str:
    if was is IncidentState.RESOLVED:
        return "incident.reopened"
    if was is state:
        return "incident.updated"
    return "incident.unacknowledged" if state is IncidentState.TRIGGERED else f"incident.{state.value}"


def _agree(known: Incident | None, rest: Mapping[str, Any]) -> bool:
    """Whether we know what PagerDuty says, as far as people see it and act upon it."""
    try:
        facts = incident_facts(rest)
    except UnreadableEventError:
        return False
    if known is None:
        return False
    ours = {
        "status": known.state.value,
        "title": known.title,
        "urgency": known.urgency,
        "service_id": known.pagerduty_service,
        "assignees": dict(known.assignees),
    }
    return all(not facts.get(name) or facts[name] == value for name, value in ours.items())


def is_ours(subscription: Mapping[str, Any]) -> bool:
    """Whether it sends to a door like ours."""
    method = subscription.get("delivery_method")
    url = method.get("url") if isinstance(method, Mapping) else None
    return isinstance(url, str) and url.partition("?")[0].rstrip("/").endswith(WEBHOOK_PATH)


def is_enabled(subscription: Mapping[str, Any]) -> bool:
    """PagerDuty switches one off for 24 hours after three drops in a row."""
    method = subscription.get("delivery_method")
    disabled = isinstance(method, Mapping) and method.get("temporarily_disabled") is True
    return subscription.get("active") is not False and not disabled
