"""
`watchkeeper backtest`: diagnose past incidents from history, so that a team can judge before it trusts.

PagerDuty says which incidents there were, the telemetry is asked as it was a few minutes after each page, and nothing
is written anywhere: no card, no note, no row. What the telemetry has forgotten is said to be forgotten.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bot.config import Config, Service
from bot.connections import connect
from bot.incidents import Alert, WatchkeeperError
from bot.library import open_shelf
from bot.pagerduty_client import PagerDutyClient, PagerDutyError
from bot.question import question_of
from bot.redact import safe_text
from bot.settings import Settings
from diagnostics.diagnosis import Diagnosis
from diagnostics.runner import Diagnoser
from diagnostics.telemetry.model import TelemetryError
from diagnostics.telemetry.recorder import Recorder
from retrieval.embedder import embedder_for
from retrieval.ranking import RunbookSearch

LOOK_AFTER = timedelta(minutes=3)
"""How long after the page the telemetry is asked: what a card would have known when people began to read it."""

_PERIOD = re.compile(r"([1-9][0-9]{0,3})([hdw])", re.ASCII)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LONGEST = timedelta(days=180)  # PagerDuty lists no more than six months at a time


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What would have stood on the card of one past incident; `why_not` when nothing could be said."""

    incident_id: str
    number: int | None
    title: str
    service: str
    at: datetime
    cause: str = ""
    cause_title: str = ""
    probability: float = 0.0
    culprit: str = ""
    runbook: str = ""
    blind_spots: int = 0
    seconds: float = 0.0
    why_not: str = ""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "at": self.at.isoformat()}


def period(text: str) -> timedelta:
    """`12h`, `30d`, `4w`. Raises WatchkeeperError."""
    match = _PERIOD.fullmatch(text)
    length = int(match[1]) * _UNITS[match[2]] if match else timedelta(0)
    if not timedelta(0) < length <= _LONGEST:
        raise WatchkeeperError(f"--since {text!r} is no period: write 12h, 30d or 4w, at most 180 days")
    return length


async def backtest(settings: Settings, config: Config, since: timedelta, only: str | None = None) -> list[Verdict]:
    """
    One verdict for each incident of the configured services, oldest first.

    `only` names a service. Raises WatchkeeperError when PagerDuty or the configuration cannot be used.
    """
    services = {each.pagerduty_service: each for each in config.services if each.pagerduty_service}
    if only is not None:
        services = {key: each for key, each in services.items() if each.name == only}
    if not services:
        raise WatchkeeperError(f"there is no service {only or 'in the configuration'} with a pagerduty_service")
    if settings.pagerduty_api_key is None:
        raise WatchkeeperError("PAGERDUTY_API_KEY is not set: create a REST API key in PagerDuty")
    connections = connect(settings, config)
    pagerduty = PagerDutyClient(settings.pagerduty_api_key.get_secret_value(), base_url=settings.pagerduty_api_base_url)
    try:
        for telemetry in connections.telemetry.values():
            if isinstance(telemetry, Recorder):
                await telemetry.open()  # what `serve` recorded; nothing is scraped
        listed = await pagerduty.incidents_since(list(services), datetime.now(UTC) - since)
        ours = [(services[_service_of(each)], each) for each in listed if _service_of(each) in services]
        if not ours:
            return []
        look = _LookBack(pagerduty, connections.diagnosers(config), await _search(settings, config))
        return [await look.at(service, each) for service, each in ours]
    except (PagerDutyError, TelemetryError) as error:
        raise WatchkeeperError(str(error)) from error
    finally:
        await connections.close()


async def _search(settings: Settings, config: Config) -> RunbookSearch:
    search = RunbookSearch(embedder_for(settings.watchkeeper_embedding_model, settings.watchkeeper_embedding_hash))
    await search.warm()
    await search.refresh(open_shelf(config.runbooks).documents())
    return search


class _LookBack:
    """One past incident at a time, so that the Prometheus that is asked notices nothing."""

    def __init__(self, pagerduty: PagerDutyClient, diagnosers: Mapping[str, Diagnoser], search: RunbookSearch) -> None:
        self._pagerduty = pagerduty
        self._diagnosers = diagnosers
        self._search = search

    async def at(self, service: Service, rest: Mapping[str, Any]) -> Verdict:
        incident_id, title = str(rest.get("id", "")), safe_text(str(rest.get("title") or rest.get("summary") or ""))
        created = datetime.fromisoformat(str(rest.get("created_at")))
        number = rest.get("incident_number")
        told = Verdict(
            incident_id=incident_id,
            number=number if isinstance(number, int) else None,
            title=title,
            service=service.name,
            at=created.astimezone(UTC),
        )
        diagnoser = self._diagnosers.get(service.name)
        if diagnoser is None:
            return replace(told, why_not="the service has no datasource with metrics")
        found = await diagnoser.diagnose(service.target(), at=told.at + LOOK_AFTER)
        if all(finding.reason is not None for finding in found.findings):
            return replace(told, why_not="the telemetry of that time is not kept any more")
        return await self._verdict(told, found)

    async def _verdict(self, told: Verdict, found: Diagnosis) -> Verdict:
        alerts = await self._alerts(told.incident_id)
        hits = await self._search.search(question_of(told.title, told.service, alerts, found), limit=1)
        first = found.causes[0] if found.causes else None
        return replace(
            told,
            cause=first.cause if first else "",
            cause_title=first.title if first else "",
            probability=first.probability if first else 0.0,
            culprit=found.culprit_change or "",
            runbook=hits[0].doc_id if hits else "",
            blind_spots=len(found.blind_spots),
            seconds=found.seconds,
        )

    async def _alerts(self, incident_id: str) -> Sequence[Alert]:
        try:
            return await self._pagerduty.alerts(incident_id)
        except PagerDutyError:
            return ()  # the title has to do, as on a card


def _service_of(rest: Mapping[str, Any]) -> str:
    service = rest.get("service")
    return str(service.get("id", "")) if isinstance(service, Mapping) else ""


def in_words(verdicts: Sequence[Verdict]) -> str:
    """A line or two for each incident and a summary, for a terminal."""
    return "\n".join(safe_text(line) for line in _lines(verdicts))


def _lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    for each in verdicts:
        number = f"#{each.number}" if each.number is not None else each.incident_id
        yield f"{each.at:%Y-%m-%d %H:%M}  {number:<8} {each.service}: {each.title}"
        if each.why_not:
            yield f"    not told: {each.why_not}"
            continue
        yield f"    {each.probability:4.0%}  {each.cause}  {each.cause_title}"
        told = [f"change {each.culprit}" if each.culprit else "", f"runbook {each.runbook}" if each.runbook else ""]
        more = "; ".join(part for part in told if part) or "no change is blamed, no runbook fits"
        spots = f"{each.blind_spots} blind spot{'s' if each.blind_spots != 1 else ''}"
        yield f"          {more}; {spots}, {each.seconds:.1f} s"
    told_of = [each for each in verdicts if not each.why_not]
    causes = Counter(each.cause for each in told_of).most_common(5)
    yield ""
    yield f"{len(verdicts)} incidents, {len(told_of)} could be looked at; nothing was posted or stored."
    if causes:
        yield "named first: " + ", ".join(f"{cause} {count} times" for cause, count in causes)
    yield "Compare with your post-mortems: whether these are right is for you to say."
