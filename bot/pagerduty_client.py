"""
PagerDuty's REST API behind a small face, over the `pagerduty` package.

The package is synchronous, so every call runs in a thread. It takes only https base URLs (it honours SSL_CERT_FILE, for
stand-ins), and by default repeats a call that was limited (429) without end and without reading `ratelimit-reset`, so
that is done here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx2
import pagerduty
from prometheus_client import CollectorRegistry

from bot.far_ends import FarEnds
from bot.incidents import Alert
from bot.pagerduty_alerts import alerts_of
from bot.redact import safe_text

UNKNOWN_USER = 1008  # the From header names nobody of the account
_NOT_IN_THE_PLAN = 402
FORBIDDEN = 403
NOT_FOUND = 404
_ALREADY_RESOLVED = 1001
_RATE_LIMITED = 429
_RETRIES_OF_429 = 2
_LONGEST_WAIT_S = 10.0  # for the limit to pass; after that the caller's own schedule
_PAGE = 100
_SECONDARY = 2
_ALERT_PAGES = 10  # an incident has at most 1000 alerts
_LIST_PAGES = 100  # offset and limit together may be 10,000 at most
# What passes by itself, and what a person can mend: the key (401), the account's plan (402), the key's rights (403).
_NOT_FOR_EVER = frozenset({401, 402, 403, 408, 425, 429})


class PagerDutyError(Exception):
    """
    PagerDuty refused, or could not be reached; `permanent` says that trying again cannot help.

    When it is false, it may pass or a person can mend it, and a write may have happened all the same: re-read before
    writing again. `status` is HTTP's and `code` PagerDuty's own, if it gave one; `retry_after` are the seconds after
    which it wants to be asked again.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool,
        status: int | None = None,
        code: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.status = status
        self.code = code
        self.retry_after = retry_after


class _LimitedError(Exception):
    """PagerDuty wants fewer requests."""

    def __init__(self, reset_s: float | None) -> None:
        super().__init__("rate limit")
        self.reset_s = reset_s


class _Rest(pagerduty.RestApiV2Client):  # type: ignore[misc]  # the package's types are partial
    """Reads the limits of the key (960 requests a minute, shared by all who use it) off every answer."""

    share_left = 1.0

    def postprocess(self, response: Any) -> None:
        super().postprocess(response)
        limit, left = (_number(response.headers.get(f"ratelimit-{name}")) for name in ("limit", "remaining"))
        self.share_left = min(1.0, left / limit) if limit and left is not None else 1.0
        if _status(response) == _RATE_LIMITED:
            raise _LimitedError(_number(response.headers.get("ratelimit-reset")))


class PagerDutyClient:
    """Every call raises PagerDutyError and nothing else; `from_email` is a user of the account, as PagerDuty asks."""

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = "https://api.pagerduty.com",
        timeout_s: float = 5.0,
        pause_s: float = 3.0,
        far_ends: FarEnds | None = None,
    ) -> None:
        """`pause_s` is the first pause after a 429 that does not say how long; `far_ends` hears who answered."""
        self._pause_s = pause_s
        self._far_ends = far_ends or FarEnds(CollectorRegistry())
        try:
            self._rest = _Rest(api_key, base_url=base_url.rstrip("/"))
        except pagerduty.UrlError as error:
            raise PagerDutyError(
                f"PAGERDUTY_API_BASE_URL must start with https://, not {base_url!r}", permanent=True
            ) from error
        self._rest.timeout = timeout_s
        self._rest.max_network_attempts = 0  # further ones: a note whose answer was lost would be written twice

    @property
    def share_left(self) -> float:
        """How much of the key's budget is left for this minute, between 0 and 1; 1 when PagerDuty did not say."""
        return float(self._rest.share_left)

    async def incident(self, incident_id: str) -> Mapping[str, Any]:
        """The incident as REST gives it: `status`, `incident_number`, `title`, `assignments`, ..."""
        return _part(await self._call("GET", f"/incidents/{_segment(incident_id)}"), "incident")

    async def open_incidents(self, service_ids: Sequence[str]) -> list[Mapping[str, Any]]:
        """
        Every triggered or acknowledged incident of these services, oldest first; at most 10,000.

        Without `date_range=all` PagerDuty would list those of the last month only.
        """
        params = {
            "statuses[]": ["triggered", "acknowledged"],
            "service_ids[]": list(service_ids),
            "date_range": "all",
            "sort_by": "incident_number:asc",
        }
        return await self._all("/incidents", "incidents", _LIST_PAGES, params)

    async def incidents_since(self, service_ids: Sequence[str], since: datetime) -> list[Mapping[str, Any]]:
        """Every incident of these services that was created since then, oldest first; at most 10,000."""
        params = {
            "service_ids[]": list(service_ids),
            "since": since.isoformat(timespec="seconds"),
            "sort_by": "incident_number:asc",
        }
        return await self._all("/incidents", "incidents", _LIST_PAGES, params)

    async def services(self) -> list[Mapping[str, Any]]:
        """All services of the account: `id`, `name`, `status`, `teams`."""
        return await self._all("/services", "services", _LIST_PAGES, {})

    async def users(self) -> list[Mapping[str, Any]]:
        """All users of the account: `id`, `name`, `email`."""
        return await self._all("/users", "users", _LIST_PAGES, {})

    async def on_call(self, service_id: str) -> Mapping[int, list[str]]:
        """Who is on call now for this service: user ids by the level of its escalation policy, 1 first."""
        service = _part(await self._call("GET", f"/services/{_segment(service_id)}"), "service")
        policy = str(_part(service, "escalation_policy").get("id"))
        found = await self._all("/oncalls", "oncalls", _LIST_PAGES, {"escalation_policy_ids[]": [policy]})
        levels: dict[int, list[str]] = {}
        for each in found:
            level, user = each.get("escalation_level"), each.get("user")
            # Another policy's people would be an answer to another question.
            if isinstance(level, int) and isinstance(user, Mapping) and _is_of(each, policy):
                levels.setdefault(level, []).append(str(user.get("id")))
        return levels

    async def ask_secondary(self, incident_id: str, message: str, from_email: str) -> None:
        """
        Page level 2 of the incident's escalation policy as responders, beside whoever has it; nobody is asked twice.

        Where the account cannot ask for responders (402, 403), they are assigned beside whoever is. Escalating would
        take the incident from those, and with it the role in which they may have approved a fix.
        """
        incident = await self.incident(incident_id)
        policy = str(_part(incident, "escalation_policy").get("id"))
        found = await self._all("/oncalls", "oncalls", _LIST_PAGES, {"escalation_policy_ids[]": [policy]})
        users = {_id_in(each, "user") for each in found if each.get("escalation_level") == _SECONDARY}
        asked = {_id_in(each, "user") for each in _objects(incident.get("incidents_responders"))}
        if not users:
            raise PagerDutyError("nobody is on call at level 2 of the escalation policy", permanent=True)
        assigned = {_id_in(each, "assignee") for each in _objects(incident.get("assignments"))} - {""}
        if not (missing := sorted(users - asked - assigned)):
            return
        me = await self._call("GET", "/users", params={"query": from_email})
        request = {
            "requester_id": next((str(each.get("id")) for each in _objects(me.get("users"))), ""),
            "message": safe_text(message)[:500],
            "responder_request_targets": [
                {"responder_request_target": {"id": user, "type": "user_reference"}} for user in missing
            ],
        }
        path = f"/incidents/{_segment(incident_id)}"
        try:
            await self._call("POST", f"{path}/responder_requests", json=request, from_email=from_email)
        except PagerDutyError as refusal:
            if refusal.status not in (_NOT_IN_THE_PLAN, FORBIDDEN):
                raise
            both = [{"assignee": {"id": user, "type": "user_reference"}} for user in sorted({*assigned, *missing})]
            change = {"incident": {"type": "incident_reference", "assignments": both}}
            await self._call("PUT", path, json=change, from_email=from_email)

    async def webhook_subscriptions(self) -> list[Mapping[str, Any]]:
        """The subscriptions that this key may see: `active`, `delivery_method.url`, `.temporarily_disabled`, ..."""
        return await self._all("/webhook_subscriptions", "webhook_subscriptions", _LIST_PAGES, {})

    async def alerts(self, incident_id: str) -> list[Alert]:
        """The incident's alerts with their details, which webhooks do not carry."""
        path = f"/incidents/{_segment(incident_id)}/alerts"
        return [each for rest in await self._all(path, "alerts", _ALERT_PAGES, {}) for each in alerts_of(rest)]

    async def acknowledge(self, incident_id: str, from_email: str) -> str:
        """
        Acknowledge a triggered incident; returns the status that it has then.

        PagerDuty re-opens a resolved incident when told to acknowledge it, so the status is read first; a resolved one
        stays resolved. Whoever resolves it between the reading and the writing is found in its log, and is obeyed.
        """
        earlier = await self._log_entries(incident_id)
        status = str((await self.incident(incident_id)).get("status", ""))
        if status != "triggered":
            return status
        await self._set_status(incident_id, "acknowledged", from_email)
        later = await self._log_entries(incident_id)
        if any(later[each] == "resolve_log_entry" for each in later.keys() - earlier.keys()) and earlier:
            await self._set_status(incident_id, "resolved", from_email)
            return "resolved"
        return "acknowledged"

    async def _log_entries(self, incident_id: str) -> Mapping[str, str]:
        """The newest hundred: id -> type. None when they cannot be read, since the acknowledgement matters more."""
        path = f"/incidents/{_segment(incident_id)}/log_entries"
        try:
            found = await self._all(path, "log_entries", 1, {})
        except PagerDutyError:
            return {}
        return {str(each.get("id")): str(each.get("type")) for each in found}

    async def resolve(self, incident_id: str, from_email: str) -> None:
        """Resolve it; one that is resolved already is fine (read first, then PagerDuty's error 1001)."""
        if (await self.incident(incident_id)).get("status") == "resolved":
            return
        await self._set_status(incident_id, "resolved", from_email)

    async def notes(self, incident_id: str) -> list[str]:
        """The texts of its notes; look here before writing one again."""
        body = await self._call("GET", f"/incidents/{_segment(incident_id)}/notes")
        return [str(note.get("content", "")) for note in _objects(body.get("notes"))]

    async def add_note(self, incident_id: str, text: str, from_email: str) -> None:
        """Not idempotent: PagerDuty keeps each note that it is sent."""
        note = {"note": {"content": safe_text(text)[:20_000]}}
        await self._call("POST", f"/incidents/{_segment(incident_id)}/notes", json=note, from_email=from_email)

    async def _set_status(self, incident_id: str, status: str, from_email: str) -> None:
        change = {"incident": {"type": "incident_reference", "status": status}}
        try:
            await self._call("PUT", f"/incidents/{_segment(incident_id)}", json=change, from_email=from_email)
        except PagerDutyError as refusal:
            if refusal.code != _ALREADY_RESOLVED:
                raise

    async def _all(self, path: str, name: str, most_pages: int, params: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Page after page of a list."""
        found: list[Mapping[str, Any]] = []
        for page in range(most_pages):
            body = await self._call("GET", path, params={**params, "limit": _PAGE, "offset": _PAGE * page})
            found += _objects(body.get(name))
            if not body.get("more"):
                break
        return found

    async def _call(self, method: str, path: str, *, from_email: str = "", **more: Any) -> Mapping[str, Any]:
        """One request; one that was refused because of the key's limit is repeated a little later."""
        waits = [self._pause_s * 2**attempt for attempt in range(_RETRIES_OF_429)]
        while True:
            try:
                body = await self._once(method, path, from_email, **more)
            except PagerDutyError as error:
                self._far_ends.failed("pagerduty", method, "refused" if error.status else "unreachable", str(error))
                raise
            except _LimitedError as limit:
                self._far_ends.failed("pagerduty", method, "limited", "PagerDuty's rate limit is reached")
                wait_s = limit.reset_s if limit.reset_s is not None else (waits or [_LONGEST_WAIT_S])[0]
                if not waits or wait_s > _LONGEST_WAIT_S:
                    what = f"{method} {path}: PagerDuty's rate limit is reached"
                    raise PagerDutyError(
                        what, permanent=False, status=_RATE_LIMITED, retry_after=limit.reset_s
                    ) from limit
                waits.pop(0)
                await asyncio.sleep(wait_s)
            else:
                self._far_ends.answered("pagerduty", method)
                return body

    async def _once(self, method: str, path: str, from_email: str, **more: Any) -> Mapping[str, Any]:
        headers = {"From": from_email} if from_email else {}
        try:
            response = await asyncio.to_thread(self._rest.request, method, path, headers=headers, **more)
        except pagerduty.HttpError as error:  # 401, or a redirect where none belongs
            status = _status(error.response)
            message = f"{method} {path}: PagerDuty answered {status}"
            raise PagerDutyError(message, permanent=_is_permanent(status), status=status) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:  # gzip that is none: the package passes it on
            what = f"{method} {path}: PagerDuty's answer cannot be read ({type(error).__name__})"
            raise PagerDutyError(what, permanent=False) from error
        except pagerduty.Error as error:
            raise PagerDutyError(f"{method} {path}: PagerDuty cannot be reached", permanent=False) from error
        return _body(method, path, response)


def _body(method: str, path: str, response: Any) -> Mapping[str, Any]:
    status = _status(response)
    try:
        body = response.json()
    except (ValueError, RecursionError):  # no JSON, or nested by the thousand
        body = None
    if 200 <= status < 300 and isinstance(body, Mapping):
        return body
    error = body.get("error") if isinstance(body, Mapping) else None
    error = error if isinstance(error, Mapping) else {}
    code = error.get("code")
    reasons = error.get("errors")
    why = "; ".join(str(one) for one in [error.get("message"), *(reasons if isinstance(reasons, list) else ())] if one)
    message = f"{method} {path}: PagerDuty answered {status} {safe_text(why)[:300]}".rstrip()
    known = code if isinstance(code, int) else None
    raise PagerDutyError(message, permanent=_is_permanent(status), status=status, code=known)


def _is_permanent(status: int) -> bool:
    return 400 <= status < 500 and status not in _NOT_FOR_EVER


def _part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = body.get(name)
    if not isinstance(part, Mapping):
        raise PagerDutyError(f"PagerDuty's answer has no {name}", permanent=False)
    return part


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _segment(incident_id: str) -> str:
    """An id as one segment of a path: ids are opaque, but never hold a slash."""
    if not incident_id.isascii() or not incident_id.replace("-", "").replace("_", "").isalnum():
        raise PagerDutyError(f"{safe_text(incident_id)[:60]!r} is no PagerDuty id", permanent=True)
    return incident_id


def _id_in(each: Mapping[str, Any], name: str) -> str:
    part = each.get(name)
    return str(part.get("id")) if isinstance(part, Mapping) else ""


def _is_of(on_call: Mapping[str, Any], policy: str) -> bool:
    return _id_in(on_call, "escalation_policy") == policy


def _number(header: str | None) -> float | None:
    """A header that counts something; None for anything else."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else None


def _status(response: Any) -> int:
    return int(getattr(response, "status_code", 0))
