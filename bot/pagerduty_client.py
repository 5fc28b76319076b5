"""
PagerDuty's REST API behind a small face, over the `pagerduty` package.

The package is synchronous and sleeps, so every call runs in a thread. It takes only https base URLs (it honours
SSL_CERT_FILE, for stand-ins), and by default retries a 429 without end, so the retries are bounded here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx2
import pagerduty

from bot.incidents import Alert
from bot.pagerduty_alerts import alerts_of
from bot.redact import safe_text

_ALREADY_RESOLVED = 1001
_RETRIES_OF_429 = 2  # 3 s, then 6 s of sleep inside the package; after that the caller's own schedule
_ALERT_PAGES = 5  # of 100
# What passes by itself, and what a person can mend: the key (401), the account's plan (402), the key's rights (403).
_NOT_FOR_EVER = frozenset({401, 402, 403, 408, 425, 429})


class PagerDutyError(Exception):
    """
    PagerDuty refused, or could not be reached; `permanent` says that trying again cannot help.

    When it is false, it may pass or a person can mend it, and a write may have happened all the same: re-read before
    writing again.
    """

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class PagerDutyClient:
    """Every call raises PagerDutyError and nothing else; `from_email` is a user of the account, as PagerDuty asks."""

    def __init__(self, api_key: str, *, base_url: str = "https://api.pagerduty.com", timeout_s: float = 5.0) -> None:
        try:
            self._rest = pagerduty.RestApiV2Client(api_key, base_url=base_url.rstrip("/"))
        except pagerduty.UrlError as error:
            raise PagerDutyError(
                f"PAGERDUTY_API_BASE_URL must start with https://, not {base_url!r}", permanent=True
            ) from error
        self._rest.timeout = timeout_s
        self._rest.max_network_attempts = 0  # further ones: a note whose answer was lost would be written twice
        self._rest.retry[429] = _RETRIES_OF_429

    async def incident(self, incident_id: str) -> Mapping[str, Any]:
        """The incident as REST gives it: `status`, `incident_number`, `title`, `assignments`, ..."""
        return _part(await self._call("GET", f"/incidents/{_segment(incident_id)}"), "incident")

    async def alerts(self, incident_id: str) -> list[Alert]:
        """The incident's alerts with their details, which webhooks do not carry; at most 500."""
        found: list[Alert] = []
        for page in range(_ALERT_PAGES):
            params = {"limit": 100, "offset": 100 * page}
            body = await self._call("GET", f"/incidents/{_segment(incident_id)}/alerts", params=params)
            for alert in _objects(body.get("alerts")):
                found += alerts_of(alert)
            if not body.get("more"):
                break
        return found

    async def acknowledge(self, incident_id: str, from_email: str) -> str:
        """
        Acknowledge a triggered incident; returns the status that it has then.

        PagerDuty re-opens a resolved incident when told to acknowledge it, so the status is read first; a resolved one
        stays resolved.
        """
        status = str((await self.incident(incident_id)).get("status", ""))
        if status != "triggered":
            return status
        await self._set_status(incident_id, "acknowledged", from_email)
        return "acknowledged"

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
        except _RefusedError as refusal:
            if refusal.code != _ALREADY_RESOLVED:
                raise

    async def _call(self, method: str, path: str, *, from_email: str = "", **more: Any) -> Mapping[str, Any]:
        """One request in a thread, so that the package's sleeps block nobody."""
        headers = {"From": from_email} if from_email else {}
        try:
            response = await asyncio.to_thread(self._rest.request, method, path, headers=headers, **more)
        except pagerduty.HttpError as error:  # 401, or a redirect where none belongs
            status = _status(error.response)
            message = f"{method} {path}: PagerDuty answered {status}"
            raise PagerDutyError(message, permanent=_is_permanent(status)) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:  # gzip that is none: the package passes it on
            what = f"{method} {path}: PagerDuty's answer cannot be read ({type(error).__name__})"
            raise PagerDutyError(what, permanent=False) from error
        except pagerduty.Error as error:
            raise PagerDutyError(f"{method} {path}: PagerDuty cannot be reached", permanent=False) from error
        return _body(method, path, response)


class _RefusedError(PagerDutyError):
    """PagerDuty's own error object, with its code."""

    def __init__(self, message: str, *, permanent: bool, code: int | None) -> None:
        super().__init__(message, permanent=permanent)
        self.code = code


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
    raise _RefusedError(message, permanent=_is_permanent(status), code=code if isinstance(code, int) else None)


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


def _status(response: Any) -> int:
    return int(getattr(response, "status_code", 0))
