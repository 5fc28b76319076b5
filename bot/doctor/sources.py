"""What remembers changes: can each prompt store, Git folder, cluster, deployer and flag store be asked for them?"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from bot.config import Config, Service
from bot.connections import MissingCredentialError, UnusableSettingError, connect
from bot.doctor.advice import Advice
from bot.settings import Settings
from diagnostics.changes.change import ChangeSource, ChangeSourceError
from diagnostics.changes.self_report import SelfReport

LOOK_BACK = timedelta(hours=6)


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
        return list(await asyncio.gather(*(_changes(service, source) for service, source in pairs)))
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
