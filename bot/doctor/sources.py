"""What remembers changes, and what keeps traces: can each be asked, and does it know the service?"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from bot.config import Config, Service
from bot.connections import MissingCredentialError, UnusableSettingError, connect
from bot.doctor.advice import Advice
from bot.settings import Settings
from diagnostics.changes.change import ChangeSource, ChangeSourceError
from diagnostics.changes.self_report import SelfReport
from diagnostics.checks.trace_breakdown import ENOUGH
from diagnostics.telemetry.model import TelemetryError
from diagnostics.traces.model import TraceSource
from diagnostics.traces.requests import read_request

LOOK_BACK = timedelta(hours=6)
RECENT = timedelta(minutes=15)


async def examine(settings: Settings, config: Config) -> list[Advice]:
    try:
        connections = connect(settings, config)
    except (MissingCredentialError, UnusableSettingError):
        return []  # the examiner of the telemetry says it
    try:
        pairs = [
            (service, source)
            for service in config.services
            for source in connections.sources_of(service)
            if not isinstance(source, SelfReport)  # the examiner of the telemetry asks that
        ]
        changes = (_changes(service, source) for service, source in pairs)
        traces = (
            _traces(each, connections.traces[each.name]) for each in config.services if each.name in connections.traces
        )
        return list(await asyncio.gather(*changes, *traces))
    finally:
        await connections.close()


async def _changes(service: Service, source: ChangeSource) -> Advice:
    about = f"changes in {source.name}"
    until = datetime.now(UTC)
    try:
        found = await source.changes(service.target(), until - LOOK_BACK, until)
    except ChangeSourceError as error:
        return Advice.bad(about, f"for {service.name}: {error}", "correct its address, credential or rights")
    return Advice.ok(about, f"for {service.name}: {len(found)} in the last six hours")


async def _traces(service: Service, source: TraceSource) -> Advice:
    about = f"traces in {source.name}"
    until = datetime.now(UTC)
    try:
        found = await source.traces(until - RECENT, until)
    except TelemetryError as error:
        return Advice.bad(about, f"for {service.name}: {error}", "correct its address, credential or network")
    requests = [one for one in found if read_request(one, service.target()) is not None]
    says = f"for {service.name}: {len(requests)} of {len(found)} traces of the last quarter of an hour can be read"
    if len(requests) < ENOUGH:
        remedy = f"{ENOUGH} are needed: sample more, see `service` in [service.traces], and set gen_ai attributes"
        return Advice.unknown(about, says, remedy)
    return Advice.ok(about, says)
