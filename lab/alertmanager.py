"""From firing alerts to pages: groups them and speaks PagerDuty's Events API v2 the way Alertmanager does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
import structlog

from lab.rule import Alert

Json = dict[str, Any]

_CLIENT_URL = "http://alertmanager.lab:9093/#/alerts?receiver=chat-oncall"
_GENERATOR_URL = "http://prometheus.lab:9090/graph?g0.tab=1&g0.expr=ALERTS"
_MOST_SUMMARY = 1024

log = structlog.get_logger()


@dataclass(kw_only=True)
class Alertmanager:
    """
    One group (by alert name), one receiver.

    A new group waits `group_wait` for company, one that grew is told about after `group_interval` (both lab time), and
    one that is empty resolves. Of a group that only shrinks nothing is said, other than by the real Alertmanager: to
    PagerDuty that would be another trigger, which opens a new incident when a person has just resolved the old one.
    A page that PagerDuty did not take is tried again at the next flush; one that it calls invalid is given up.
    """

    client: httpx.AsyncClient
    url: str
    routing_key: str
    group_wait: timedelta = timedelta(seconds=30)
    group_interval: timedelta = timedelta(minutes=1)
    sent: list[Json] = field(default_factory=list)
    _since: datetime | None = None
    _told: Sequence[Alert] = ()
    _told_at: datetime | None = None

    async def flush(self, firing: Sequence[Alert], now: datetime) -> None:
        """Tell PagerDuty what is firing, if it is time to."""
        if self._told_at is None:
            self._since = (self._since or now) if firing else None
            if self._since is None or now - self._since < self.group_wait:
                return
        elif now - self._told_at < self.group_interval or (firing and _names(firing) <= _names(self._told)):
            return
        resolved = [alert for alert in self._told if _names([alert]).isdisjoint(_names(firing))]
        if await self._enqueue(event(self.routing_key, firing, resolved)):
            self._told, self._told_at = firing, now if firing else None
            self._since = None

    async def _enqueue(self, body: Json) -> bool:
        """Whether PagerDuty is done with this event: taken, or refused for good."""
        try:
            answer = await self.client.post(self.url, json=body)
        except httpx.HTTPError as error:
            log.warning("PagerDuty did not answer", why=repr(error))
            return False
        if answer.status_code == httpx.codes.ACCEPTED:
            self.sent.append(body)
            log.info("page sent", action=body["event_action"], summary=body["payload"]["summary"])
            return True
        log.warning("PagerDuty refused an event", status=answer.status_code, answer=answer.text[:500])
        return answer.status_code == httpx.codes.BAD_REQUEST


def event(routing_key: str, firing: Sequence[Alert], resolved: Sequence[Alert]) -> Json:
    """The Events v2 body; `firing` empty makes it a resolve. All custom details are strings, as Alertmanager's are."""
    alerts = [*firing, *resolved]
    return {
        "routing_key": routing_key,
        "event_action": "trigger" if firing else "resolve",
        "dedup_key": hashlib.sha256(f'{{}}:{{alertname="{alerts[0].labels["alertname"]}"}}'.encode()).hexdigest(),
        "payload": {
            "summary": _subject(firing, alerts)[:_MOST_SUMMARY],
            "source": "Alertmanager",
            "severity": "error",
            "custom_details": {
                "firing": _text(firing),
                "resolved": _text(resolved),
                "num_firing": str(len(firing)),
                "num_resolved": str(len(resolved)),
            },
        },
        "client": "Alertmanager",
        "client_url": _CLIENT_URL,
        "links": [],
    }


def _subject(firing: Sequence[Alert], alerts: Sequence[Alert]) -> str:
    """ "[FIRING:2] LLMHighTTFT (values of the other labels that all alerts share)"."""
    status = f"FIRING:{len(firing)}" if firing else "RESOLVED"
    common = dict(set.intersection(*(set(alert.labels.items()) for alert in alerts)))
    name = common.pop("alertname")
    others = " ".join(value for _, value in sorted(common.items()))
    return f"[{status}] {name} ({others})" if others else f"[{status}] {name}"


def _text(alerts: Sequence[Alert]) -> str:
    """Alertmanager's default text list."""
    return "".join(
        f"Labels:\n{_lines(alert.labels)}Annotations:\n{_lines(alert.annotations)}Source: {_GENERATOR_URL}\n"
        for alert in alerts
    )


def _lines(pairs: Any) -> str:
    return "".join(f" - {name} = {value}\n" for name, value in sorted(pairs.items()))


def _names(alerts: Sequence[Alert]) -> frozenset[tuple[tuple[str, str], ...]]:
    return frozenset(tuple(sorted(alert.labels.items())) for alert in alerts)
