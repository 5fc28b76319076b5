"""The product as a process between strict stand-ins for Slack and PagerDuty, with the lab's world as its telemetry."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lab.configuration import CONFIG_FILE, Addresses, environment, new_credentials, watchkeeper_toml
from lab.demo_processes import Child, free_port, run_once
from lab.listening import listening, new_socket, until_ready, url_of
from lab.pagerduty_shapes import SERVICE_ID
from lab.people import TEAM as LAB_TEAM
from lab.world import World
from tests.fault_proxy import FaultProxy
from tests.standins import ROUTING_KEY, SERVICE, TEAM, PagerDuty, Slack, Standins, Wire, running_standins

PACE = 60.0
"""A minute of lab time per second: a verification takes at most ten seconds."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Everything that is up: the product, the services around it, and the world that it watches."""

    folder: Path
    product: Child
    url: str
    variables: Mapping[str, str]
    slack: Slack
    pagerduty: PagerDuty
    wire: Wire
    world: World

    async def watchkeeper(self, *arguments: str) -> tuple[int, str]:
        """Another command of the product beside the running one; its exit status and what it printed."""
        command = Child(
            "watchkeeper",
            "-m",
            "bot",
            *arguments,
            log=self.folder / f"{arguments[0]}.log",
            variables=self.variables,
        )
        await command.start()
        status = await command.wait()
        return status, command.tail(200)

    async def settle(self) -> None:
        """
        Until nothing is under way: all webhooks delivered, nothing left to tell (Slack's limits may hold that back for
        seconds), and no call to Slack or PagerDuty for half a second. What never can be told is waited for no longer
        than half a minute.
        """
        seen = (-1, -1)
        for _ in range(60):
            pending = (await self.pagerduty.control("deliveries"))["pending"] or self._untold()
            now = (len(await self.slack.control("calls")), len(await self.pagerduty.control("calls")))
            if not pending and now == seen:
                return
            seen = now
            await asyncio.sleep(0.5)

    def _untold(self) -> int:
        """How many parcels wait in the product's own database."""
        with sqlite3.connect(self.folder / "watchkeeper.sqlite") as connection:
            [[count]] = connection.execute("SELECT count(*) FROM outbox WHERE state IN ('new', 'sending')")
        return int(count)

    async def complaints(self) -> list[Any]:
        """What the stand-ins hold against the product, and every webhook that it did not take."""
        deliveries = await self.pagerduty.control("deliveries")
        return [
            *await self.slack.control("violations"),
            *await self.pagerduty.control("violations"),
            *(each for each in deliveries["log"] if not 200 <= (each.get("status") or 0) < 300),
        ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def still(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """
    A product in a world that stands still, six minutes into its incident.

    No lab time passes, so every diagnosis sees the same telemetry, however long the tests before it took.
    """
    async with running_place(tmp_path_factory.mktemp("still")) as place:
        yield place


@pytest_asyncio.fixture(loop_scope="module")
async def place(still: Place) -> AsyncIterator[Place]:
    """The shared product; afterwards nobody may have complained about this test."""
    before = await still.complaints()
    yield still
    await still.settle()
    assert [each for each in await still.complaints() if each not in before] == []


@pytest.fixture
async def living(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """
    A product of one test's own, in a world whose time passes and whose alert rule pages, under Slack's limits.

    Slack comes over HTTP, or over Socket Mode when the test's parameter says "socket".
    """
    socket_mode = getattr(request, "param", "http") == "socket"
    async with running_place(tmp_path, is_rate_limited=True, socket_mode=socket_mode) as place:
        passing = asyncio.create_task(place.world.run())
        try:
            yield place
        finally:
            passing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await passing
        await place.settle()
        assert await place.complaints() == []


@asynccontextmanager
async def running_place(
    folder: Path, *, is_rate_limited: bool = False, socket_mode: bool = False, proxy: FaultProxy | None = None
) -> AsyncIterator[Place]:
    """Start everything, and stop exactly what was started."""
    url = f"http://127.0.0.1:{free_port()}"
    async with running_standins(
        folder, product=url, is_rate_limited=is_rate_limited, socket_mode=socket_mode, proxy=proxy
    ) as standins:
        credentials = replace(new_credentials(), pagerduty_routing_key=ROUTING_KEY)
        world = World(
            "S04",
            pace=PACE,
            seed=1,
            folder=folder,
            live_start=datetime.now(UTC).replace(microsecond=0),
            pagerduty_events_url=standins.events_url,
            credentials=credentials,
        )
        await world.prepare()
        sockets = {
            name: new_socket() for name in ("metrics", "langfuse", "litellm", "kubernetes", "launchdarkly", "qdrant")
        }
        addresses = _addresses(url, standins, {name: url_of(each) for name, each in sockets.items()})
        async with (
            listening(world.metrics_app, sockets["metrics"]),
            listening(world.langfuse_app, sockets["langfuse"]),
            listening(world.litellm_app, sockets["litellm"]),
            listening(world.kubernetes_app, sockets["kubernetes"]),
            listening(world.launchdarkly_app, sockets["launchdarkly"]),
            listening(world.qdrant_app, sockets["qdrant"]),
        ):
            config = watchkeeper_toml(addresses, pace=PACE, history=world.history_path.name)
            config = config.replace(LAB_TEAM, TEAM).replace(SERVICE_ID, SERVICE)
            (folder / CONFIG_FILE).write_text(config, encoding="utf-8")
            variables = {
                **environment(
                    folder,
                    addresses,
                    credentials,
                    slack_bot_token="",
                    slack_signing_secret="",
                    pagerduty_api_key="",
                    pagerduty_webhook_secrets=(),
                ),
                **standins.environment,
            }
            async with _serving(folder, variables, url) as product:
                yield Place(
                    folder=folder,
                    product=product,
                    url=url,
                    variables=variables,
                    slack=standins.slack,
                    pagerduty=standins.pagerduty,
                    wire=standins.wire,
                    world=world,
                )


def _addresses(product: str, standins: Standins, of: Mapping[str, str]) -> Addresses:
    """The lab's form of them; where the lab's own Slack and PagerDuty would be, the stand-ins' environment wins."""
    return Addresses(
        page="",
        slack_api="",
        pagerduty="",
        events=standins.events_url,
        kubernetes=of["kubernetes"],
        langfuse=of["langfuse"],
        litellm=of["litellm"],
        launchdarkly=of["launchdarkly"],
        qdrant=of["qdrant"],
        metrics=of["metrics"],
        product=product,
    )


@asynccontextmanager
async def _serving(folder: Path, variables: Mapping[str, str], url: str) -> AsyncIterator[Child]:
    """`watchkeeper migrate`, then `watchkeeper serve` until the block ends."""
    await run_once(_watchkeeper("migrate", folder, variables))
    product = _watchkeeper("serve", folder, variables)
    await product.start()
    try:
        async with asyncio.timeout(60):
            await until_ready(url)
        yield product
    finally:
        await product.stop()


def _watchkeeper(command: str, folder: Path, variables: Mapping[str, str]) -> Child:
    return Child(f"watchkeeper {command}", "-m", "bot", command, log=folder / f"{command}.log", variables=variables)
