"""What operators see of the product itself, and the memory that prompt stores lack."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from bot.config import Config
from bot.prompt_watch import PromptWatch
from bot.store.sightings import LabelSightings
from bot.vitals import Vitals
from diagnostics.changes.change import Change, ChangeSourceError
from tests.kit import CONFIG, NOW, Store, config_in, event

WITH_PROMPTS = CONFIG.replace(
    "[service.selectors]",
    '[[service.prompts]]\nname = "chat-system"\nsource = "prompts"\n[service.selectors]',
).replace("[[service]]", '[[datasource]]\nname = "prompts"\nkind = "git"\npath = "."\n\n[[service]]')


async def test_what_waits_is_counted(store: Store) -> None:
    """Open incidents and dead letters show in /metrics."""
    registry = CollectorRegistry()
    await store.page()
    await store.inbox.bury(event("incident.triggered", event_id="odd"), "unknown event type", now=NOW)

    await Vitals(store.database, registry).sweep()

    assert registry.get_sample_value("watchkeeper_open_incidents") == 1
    assert registry.get_sample_value("watchkeeper_dead_letters") == 1
    assert registry.get_sample_value("watchkeeper_undelivered") == 0


async def test_a_label_that_moved_is_remembered(store: Store) -> None:
    """The store tells only where the label is; our memory tells where it was, and since when."""
    sightings = LabelSightings(store.database, "prompts")

    for minute, version in enumerate([7, 7, 8, 8, 7]):
        await sightings.seen("chat-system", "production", version, NOW + timedelta(minutes=minute))

    history = await sightings.history("chat-system", "production")
    assert [(seen.version, seen.at) for seen in history] == [
        (7, NOW),
        (8, NOW + timedelta(minutes=2)),
        (7, NOW + timedelta(minutes=4)),
    ]


class FakeSource:
    """Remembers when it was asked; the first look fails."""

    name = "prompts"

    def __init__(self) -> None:
        self.asked: list[datetime] = []

    async def changes(self, target: Any, since: datetime, until: datetime) -> list[Change]:
        self.asked.append(until)
        if len(self.asked) == 1:
            raise ChangeSourceError("prompts cannot be reached")
        return []


class FakeDiagnoser:
    """Has a clock of its own, as in a drill."""

    def __init__(self) -> None:
        self.telemetry = self

    async def now(self) -> datetime:
        return NOW


async def test_labels_are_watched_by_the_telemetrys_clock(tmp_path: Any) -> None:
    """A look that fails does not end the watch, and a drill's times are not mixed with the wall's."""
    config: Config = config_in(tmp_path, WITH_PROMPTS)
    source = FakeSource()
    watch = PromptWatch([source], {"chat": FakeDiagnoser()}, config)  # type: ignore[dict-item]  # a fake

    await watch.sweep()
    await watch.sweep()

    assert source.asked == [NOW, NOW]
