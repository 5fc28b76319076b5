"""
The lab as one process of its own: the world, Slack and PagerDuty on free ports of 127.0.0.1.

Nothing of it is shared with the product but HTTP and the files in its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trustme
from fastapi import FastAPI
from pydantic import BaseModel

from lab.configuration import (
    CONFIG_FILE,
    Addresses,
    environment,
    new_credentials,
    watchkeeper_toml,
    write_addresses,
    write_environment,
)
from lab.gauges import FleetGauges
from lab.listening import HOST, Server, new_socket, server, until_ready, until_started, url_of
from lab.pagerduty import PagerDuty
from lab.pagerduty_web import pagerduty_app
from lab.pagerduty_webhooks import WebhookSender
from lab.slack import Workspace
from lab.slack_delivery import AppLink
from lab.slack_socket import SocketCarrier
from lab.slack_web import slack_app
from lab.world import World


@dataclass(frozen=True, kw_only=True)
class LabOptions:
    """
    What one lab plays. `product` is where the product will listen; lab time starts to pass when it answers
    `/readyz`, or after `patience_s` of waiting for it. With `socket_mode` Slack waits for the product's WebSocket.
    """

    folder: Path
    scenario: str
    pace: float | None  # None: the scenario's own
    seed: int
    product: str
    patience_s: float = 60.0
    socket_mode: bool = False
    rate_limited: bool = False  # Slack
    hides_answer: bool = False  # from whoever looks at the page


class ByHand(BaseModel):
    """What a manual step of a runbook asks a person to do."""

    instruction: str


class _Sockets:
    """One listening socket a stand-in, bound before anything is built, so that every address is known to all."""

    def __init__(self) -> None:
        names = (
            "slack",
            "pagerduty",
            "events",
            "kubernetes",
            "langfuse",
            "litellm",
            "launchdarkly",
            "qdrant",
            "metrics",
            "envelopes",
        )
        self.bound = {name: new_socket() for name in names}

    def url(self, name: str, scheme: str = "http") -> str:
        return url_of(self.bound[name], scheme)


class Lab:
    """Everything of one drill. `run` returns after `stop`, with every server closed."""

    def __init__(self, options: LabOptions) -> None:
        folder = options.folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.folder = folder
        self._sockets = _Sockets()
        url = self._sockets.url
        self.addresses = Addresses(
            page=url("slack"),
            slack_api=url("slack") + "/api",
            pagerduty=url("pagerduty", "https"),
            events=url("events"),
            kubernetes=url("kubernetes"),
            langfuse=url("langfuse"),
            litellm=url("litellm"),
            launchdarkly=url("launchdarkly"),
            qdrant=url("qdrant"),
            metrics=url("metrics"),
            product=options.product.rstrip("/"),
        )
        self._credentials = new_credentials()
        self.world = World(
            options.scenario,
            pace=options.pace,
            seed=options.seed,
            folder=folder,
            live_start=datetime.now(UTC).replace(microsecond=0),
            pagerduty_events_url=url("events") + "/v2/enqueue",
            credentials=self._credentials,
        )
        self.workspace = Workspace(now=self.world.clock.now)
        self._envelopes = SocketCarrier(self.workspace)
        self._gauges = FleetGauges(self.world.fleet, self.world.scenario.gauges)
        self._account = PagerDuty(now=self.world.clock.now, routing_key=self._credentials.pagerduty_routing_key)
        self._webhook_secrets = (secrets.token_hex(20),)
        self._certificate = write_certificates(folder)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """
        Serve until `stop`. An error of the world or of a server ends everything and is raised.

        Configuration and environment are there first, `lab.json` when everything listens.
        """
        self._write_files()
        await self.world.prepare()
        servers = self._servers()
        async with self._envelopes.listening(self._sockets.bound["envelopes"]), asyncio.TaskGroup() as tasks:
            for name, server in servers.items():
                tasks.create_task(server.serve(sockets=[self._sockets.bound[name]]))
            await until_started(list(servers.values()))
            write_addresses(self.folder, self.addresses, scenario=self.options.scenario, pace=self.world.clock.pace)
            world = tasks.create_task(self._let_time_pass())
            await self._stopping.wait()
            world.cancel()
            for server in servers.values():
                server.should_exit = True

    async def _let_time_pass(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.options.patience_s):
                await until_ready(self.addresses.product)
        await self.world.run()

    def _servers(self) -> dict[str, Server]:
        webhooks = WebhookSender(url=self.addresses.product + "/webhooks/pagerduty", secrets=self._webhook_secrets)
        self._account.webhooks = webhooks
        link = AppLink(
            self.workspace,
            url=self.addresses.product + "/slack/events",
            base_url=self.addresses.page,
            event_retry_waits_s=(0.0, 3.0, 15.0),
            carrier=self._envelopes if self.options.socket_mode else None,
        )
        slack = slack_app(
            self.workspace,
            link,
            base_url=self.addresses.page,
            rate_limited=self.options.rate_limited,
            lab_state=self._state,
        )
        self._serve_truth(slack)
        pagerduty = pagerduty_app(self._account)
        return {
            "slack": server(slack),
            "pagerduty": server(pagerduty, certificate=self._certificate),
            # The same account without TLS, for the alert rule's side.
            "events": server(pagerduty, owns_app=False),
            "kubernetes": server(self.world.kubernetes_app),
            "langfuse": server(self.world.langfuse_app),
            "litellm": server(self.world.litellm_app),
            "launchdarkly": server(self.world.launchdarkly_app),
            "qdrant": server(self.world.qdrant_app),
            "metrics": server(self.world.metrics_app),
        }

    def _write_files(self) -> None:
        variables = environment(
            self.folder,
            self.addresses,
            self._credentials,
            slack_bot_token=self.workspace.bot_token,
            slack_signing_secret=self.workspace.signing_secret,
            slack_app_token=self.workspace.app_token if self.options.socket_mode else "",
            pagerduty_api_key=self._account.api_key,
            pagerduty_webhook_secrets=self._webhook_secrets,
        )
        write_environment(self.folder, variables)
        config = watchkeeper_toml(self.addresses, pace=self.world.clock.pace, history=self.world.history_path.name)
        (self.folder / CONFIG_FILE).write_text(config, encoding="utf-8")

    def _state(self) -> Mapping[str, Any]:
        """The page's status bar; `incident` is the newest one's status in PagerDuty."""
        newest = next(reversed(self._account.incidents.values()), None)
        return {
            "scenario": "drill" if self.options.hides_answer else self.options.scenario,
            "pace": self.world.clock.pace,
            "incident": newest.status if newest else "none",
            "gauges": self._gauges.read(),
        }

    def _serve_truth(self, app: FastAPI) -> None:
        @app.post("/lab/hands")
        async def hands(work: ByHand) -> dict[str, bool]:
            """For whoever reads a manual step and goes there; the product is never told this address."""
            return {"changed": self.world.carry_out(work.instruction)}

        @app.get("/lab/truth")
        async def truth() -> dict[str, Any]:
            """For whoever judges the drill; the product is never told this address."""
            return self.world.truth()


def write_certificates(folder: Path) -> Path:
    """A throw-away authority in `ca.pem`, and the server's key with its certificates in the file returned."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = folder / "server.pem"
    certificate.touch(mode=0o600)
    authority.issue_cert(HOST, "localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    return certificate


async def serve(options: LabOptions) -> None:
    """Serve a lab until SIGINT or SIGTERM."""
    lab = Lab(options)
    loop = asyncio.get_running_loop()
    for stop_signal in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(stop_signal, lab.stop)
    await lab.run()
