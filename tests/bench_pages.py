"""
How long a page takes to become a card and a verdict, one after the other and many at once; and a storm of webhooks.

The product runs as `watchkeeper serve` in a drill of its own, with the lab's Slack, which keeps Slack's rates, and the
lab's PagerDuty. What is measured is read from the product's own rows, every 50 ms.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bot.store.database import sync_engine
from bot.store.tables import burst, burst_member, delivery, incident, run
from lab.configuration import read_environment
from lab.drill import Drill, DrillOptions, running_drill
from lab.listening import local_client
from lab.progress import Progress
from tests.bench_doors import PATH, cpu_s, load

LOOK_EVERY_S = 0.05
GIVE_UP_S = 300.0
QUIET_S, QUIET_SHARE = 4.0, 0.3
"""A product that spends less than this share of a processor over so many seconds has warmed up."""


@dataclass(kw_only=True)
class Times:
    """Seconds from the commit of the webhook; `burst_s` from the first one of them, if a card for all was posted."""

    cards: list[float] = field(default_factory=list)
    verdicts: list[float] = field(default_factory=list)
    burst_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Storm:
    """What became of so many webhooks."""

    sent: int
    lost: int
    not_folded: int
    dead: int
    answers: dict[str, Any]
    folded_after_s: float


class Bench:
    """A drill that is warm: its first page, which meets a cold process, is over."""

    def __init__(self, drill: Drill, variables: dict[str, str], events: str, database_url: str) -> None:
        self._drill = drill
        self._variables = variables
        self._events = events
        self._engine = sync_engine(database_url)
        self._count = 0

    async def at_once(self, count: int) -> Times:
        """So many pages in the same moment."""
        before = set(await self._incident_ids())
        async with local_client(base_url=self._events) as client:
            bodies = [self._page() for _ in range(count)]
            for answer in await asyncio.gather(*(client.post("/v2/enqueue", json=body) for body in bodies)):
                answer.raise_for_status()
        await _until(lambda: len(self._read(sa.select(incident.c.incident_id))) >= len(before) + count)
        return await self._watch(set(await self._incident_ids()) - before)

    def _page(self) -> dict[str, Any]:
        self._count += 1
        return {
            "routing_key": self._variables["LAB_ROUTING_KEY"],
            "event_action": "trigger",
            "dedup_key": f"bench-{self._count}",
            "payload": {
                "summary": f"[FIRING:1] LLMHighTTFT bench {self._count}",
                "source": "Alertmanager",
                "severity": "error",
                "custom_details": {"firing": "Labels:\n - alertname = LLMHighTTFT\nAnnotations:\nSource: x\n"},
            },
        }

    async def _watch(self, pages: set[str]) -> Times:
        received = {row[0]: row[1] for row in self._read(_RECEIVED) if row[0] in pages}
        cards: dict[str, float] = {}
        verdicts: dict[str, float] = {}
        burst_s: float | None = None
        deadline = time.monotonic() + GIVE_UP_S
        while len(verdicts) < len(pages) and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_EVERY_S)
            now = datetime.now(UTC)
            for which, has_card, has_verdict in await asyncio.to_thread(self._read, _SHOWN):
                if which in pages and has_card:
                    cards.setdefault(which, (now - received[which]).total_seconds())
                if which in pages and has_card and has_verdict:
                    verdicts.setdefault(which, (now - received[which]).total_seconds())
            if burst_s is None and pages & {row[0] for row in await asyncio.to_thread(self._read, _IN_BURST)}:
                burst_s = (now - min(received.values())).total_seconds()
        if len(verdicts) < len(pages):
            raise TimeoutError(f"{len(pages) - len(verdicts)} of {len(pages)} pages had no verdict on their card")
        return Times(cards=list(cards.values()), verdicts=list(verdicts.values()), burst_s=burst_s)

    async def storm(self, *, count: int, within_s: float, incidents: int) -> Storm:
        """Webhooks on a timetable to the product itself, and what stands in its database when it has folded them."""
        prefix = "STORM"
        secret = self._variables["PAGERDUTY_WEBHOOK_SECRETS"].partition(",")[0]
        url = f"http://{self._variables['WATCHKEEPER_HOST']}:{self._variables['WATCHKEEPER_PORT']}{PATH}"
        options = ("--prefix", prefix, "--count", str(count), "--within", str(within_s), "--incidents", str(incidents))
        answers = await asyncio.to_thread(lambda: load(url, *options, secret=secret))
        ended = time.monotonic()
        ours = delivery.c.event_id.like(f"01{prefix}%")
        states = sa.select(delivery.c.state, sa.func.count()).where(ours).group_by(delivery.c.state)
        await _until(lambda: "new" not in dict(self._read(states)))
        found = dict(self._read(states))
        return Storm(
            sent=count,
            lost=count - sum(found.values()),
            not_folded=found.get("new", 0),
            dead=found.get("dead", 0),
            answers=answers,
            folded_after_s=time.monotonic() - ended,
        )

    async def until_quiet(self) -> None:
        """Every card shows what is known, Slack's rates are paid for, and the product has nothing left to do."""
        stale = sa.select(sa.func.count()).select_from(incident).where(incident.c.shown < incident.c.revision)
        await _until(lambda: self._read(stale)[0][0] == 0)
        pid = int((self._drill.folder / "watchkeeper-serve.pid").read_text())
        spent_s = QUIET_SHARE * QUIET_S + 1
        while spent_s > QUIET_SHARE * QUIET_S:
            before = cpu_s(pid)
            await asyncio.sleep(QUIET_S)
            spent_s = cpu_s(pid) - before

    async def _incident_ids(self) -> list[str]:
        return [row[0] for row in await asyncio.to_thread(self._read, sa.select(incident.c.incident_id))]

    def _read(self, query: sa.Select[Any]) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execution_options(watchkeeper_read=True).execute(query).all()


_RECEIVED = sa.select(delivery.c.incident_id, sa.func.min(delivery.c.received_at)).group_by(delivery.c.incident_id)
_SHOWN = sa.select(
    incident.c.incident_id,
    incident.c.card_ts.is_not(None),
    sa.and_(run.c.state == "done", incident.c.shown >= incident.c.revision),
).join(run, sa.and_(run.c.incident_id == incident.c.incident_id, run.c.number == incident.c.run))
_IN_BURST = (
    sa.select(burst_member.c.incident_id)
    .join(burst, burst.c.burst_id == burst_member.c.burst_id)
    .where(burst.c.card_ts.is_not(None))
)


@asynccontextmanager
async def warm_drill(folder: Path, database_url: str) -> AsyncIterator[Bench]:
    """The lab's own page comes first and is not counted; the embedding model has been loaded after it."""
    options = DrillOptions(folder=folder, seed=1, pace=2.0, rate_limited=True, variables={"DATABASE_URL": database_url})
    async with running_drill(options, Progress()) as drill:
        events = json.loads((folder / "lab.json").read_text())["events"]
        bench = Bench(drill, read_environment(folder), events, database_url)
        await bench.at_once(1)
        await bench.until_quiet()
        yield bench


async def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    while not await asyncio.to_thread(is_so):
        if time.monotonic() > deadline:
            raise TimeoutError(f"it took more than {GIVE_UP_S:.0f} s")
        await asyncio.sleep(LOOK_EVERY_S)
