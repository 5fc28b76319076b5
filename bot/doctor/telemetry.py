"""Telemetry: every datasource answers, its clock agrees, and each service exports what its checks ask for."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from bot.config import Config, Service
from bot.connections import Connections, MissingCredentialError, UnusableSettingError, connect
from bot.doctor.advice import Advice
from bot.settings import Settings
from diagnostics.runner import Diagnoser
from diagnostics.telemetry.model import Query, Telemetry, TelemetryError
from diagnostics.telemetry.recorder import Recorder

STALE = timedelta(minutes=5)
"""Prometheus forgets a series after five minutes without a sample."""


async def examine(settings: Settings, config: Config) -> list[Advice]:
    try:
        connections = connect(settings, config)
    except (MissingCredentialError, UnusableSettingError) as error:
        return [Advice.bad("telemetry", str(error), "correct the entry in watchkeeper.toml, or its credential")]
    try:
        await asyncio.gather(*(each.open() for each in connections.telemetry.values() if isinstance(each, Recorder)))
        return await _examined(config, connections)
    except TelemetryError as error:
        return [Advice.bad("telemetry", str(error), "see whether another program holds the recorder's file")]
    finally:
        await connections.close()


async def _examined(config: Config, connections: Connections) -> list[Advice]:
    sources = await asyncio.gather(*(_source(name, each) for name, each in connections.telemetry.items()))
    silent = {name for (name, _), advice in zip(connections.telemetry.items(), sources, strict=True) if advice.remedy}
    diagnosers = connections.diagnosers(config)
    services = [each for each in config.services if each.name in diagnosers and each.datasource not in silent]
    found = await asyncio.gather(*(_service(each, diagnosers[each.name]) for each in services))
    return [*sources, *(advice for several in found for advice in several)]


async def _source(name: str, telemetry: Telemetry) -> Advice:
    about = f"datasource {name}"
    try:
        now = await telemetry.now()
        ups = await telemetry.vector(Query(metric="up"), now)
        scraped = await telemetry.exported("up", now)
    except TelemetryError as error:
        return Advice.bad(about, str(error), "correct its address, credential or network")
    apart = abs(datetime.now(UTC) - now)
    if isinstance(telemetry, Recorder) and apart > STALE:
        says = f"the newest sample is {apart.total_seconds():.0f} s old"
        return Advice.unknown(about, says, "fine in a drill, or before the first start; else see what scrapes it")
    if not scraped and not isinstance(telemetry, Recorder):
        return Advice.bad(about, "it answers, but holds no `up` series of the last hour", "is this the right tenant?")
    return Advice.ok(about, f"answers; {sum(ups.values()):.0f} targets are up" if ups else "answers")


async def _service(service: Service, diagnoser: Diagnoser) -> list[Advice]:
    """A diagnosis now; what it could not check, gathered by what would make it possible."""
    about = f"telemetry of {service.name}"
    found = await diagnoser.diagnose(service.target())
    by_reason: dict[str, list[str]] = defaultdict(list)
    for spot in found.blind_spots:
        by_reason[spot.why].append(spot.check)
    answered = sum(finding.reason is None for finding in found.findings)
    says = f"{answered} of {len(found.findings)} checks can answer ({found.seconds:.1f} s)"
    summary = (
        Advice.ok(about, says)
        if answered
        else Advice.bad(about, says, "compare [service.selectors] with the labels of your series")
    )
    return [
        summary,
        *(Advice.unknown(about, f"cannot be told: {', '.join(checks)}", why) for why, checks in by_reason.items()),
    ]
