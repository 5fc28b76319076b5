"""The PagerDuty stand-in, asked over TLS by PagerDuty's own client, and its webhooks as a subscriber gets them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pagerduty
import pytest
from fastapi import FastAPI, Request, Response

from lab.listening import listening, local_client, new_socket, url_of
from lab.pagerduty import PagerDuty
from lab.pagerduty_shapes import event_faults
from lab.pagerduty_web import pagerduty_app
from lab.pagerduty_webhooks import WebhookSender
from lab.people import WATCHKEEPER_EMAIL
from lab.serve import write_certificates
from tests.lab_workspace import until

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 22, 14, 3, 20, tzinfo=UTC)
ROUTING_KEY = "0123456789abcdef0123456789abcdef"
PAYLOAD = {
    "summary": "LLMHighTTFT chat",
    "source": "Alertmanager",
    "severity": "error",
    "custom_details": {"firing": "Labels:\n - alertname = LLMHighTTFT\n"},
}
PAGE = {
    "routing_key": ROUTING_KEY,
    "event_action": "trigger",
    "dedup_key": "LLMHighTTFT",
    "payload": PAYLOAD,
}


@dataclass(kw_only=True)
class Running:
    account: PagerDuty
    url: str
    browser: httpx.AsyncClient
    folder: Path
    clients: list[Any] = field(default_factory=list)

    def client(self, email: str = WATCHKEEPER_EMAIL) -> Any:
        client = pagerduty.RestApiV2Client(
            self.account.api_key,
            default_from=email,
            base_url=self.url,
            verify=ssl.create_default_context(cafile=self.folder / "ca.pem"),
        )
        client.max_network_attempts = 1
        self.clients.append(client)
        return client

    async def page(self, **more: Any) -> httpx.Response:
        return await self.browser.post("/v2/enqueue", json={**PAGE, **more})

    @property
    def incident_id(self) -> str:
        return next(iter(self.account.incidents))


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """One account; REST over TLS as in the lab, events within this process."""
    account = PagerDuty(now=lambda: NOW, routing_key=ROUTING_KEY)
    app = pagerduty_app(account)
    certificate = write_certificates(tmp_path)
    async with (
        listening(app, new_socket(), certificate=certificate) as url,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://events.lab") as browser,
    ):
        running = Running(account=account, url=url, browser=browser, folder=tmp_path)
        yield running
        for client in running.clients:
            client.close()  # an open TLS connection would keep its server waiting


async def test_a_page_becomes_an_incident_with_its_alert(running: Running) -> None:
    """The client reads both; the alert's details hold what the rule's side sent."""
    answer = await running.page()
    client = running.client()
    [incident] = await asyncio.to_thread(client.list_all, "incidents", params={"statuses[]": ["triggered"]})
    [alert] = await asyncio.to_thread(client.rget, f"/incidents/{incident['id']}/alerts")

    assert (answer.status_code, answer.json()["dedup_key"]) == (202, "LLMHighTTFT")
    assert incident["summary"] == "[#1] LLMHighTTFT chat"
    assert incident["created_at"] == "2026-11-22T14:03:20Z"
    assert alert["body"]["details"]["firing"].startswith("Labels:")


async def test_a_second_page_with_the_same_key_joins_the_first(running: Running) -> None:
    """Until it is resolved: then the same key opens a new incident."""
    await running.page()
    await running.page()
    assert len(running.account.incidents) == 1

    await running.page(event_action="resolve")
    await running.page()

    assert [incident.status for incident in running.account.incidents.values()] == ["resolved", "triggered"]


async def test_acknowledge_note_and_resolve_by_the_client(running: Running) -> None:
    """What the product does to an incident, and who is said to have done it."""
    await running.page()
    client = running.client()
    path = f"/incidents/{running.incident_id}"

    acknowledged = await asyncio.to_thread(client.rput, path, json={"type": "incident", "status": "acknowledged"})
    note = await asyncio.to_thread(client.rpost, f"{path}/notes", json={"content": "Label moved back."})
    resolved = await asyncio.to_thread(client.rput, path, json={"type": "incident", "status": "resolved"})
    notes = await asyncio.to_thread(client.rget, f"{path}/notes")

    assert acknowledged["acknowledgements"][0]["acknowledger"]["summary"] == "Watchkeeper"
    assert (resolved["status"], resolved["last_status_change_by"]["summary"]) == ("resolved", "Watchkeeper")
    assert note["user"]["summary"] == "Watchkeeper"
    assert [n["content"] for n in notes] == ["Label moved back."]


async def test_resolving_twice_is_error_1001(running: Running) -> None:
    """As PagerDuty answers it, so that a repeated step can tell it from a failure."""
    await running.page()
    client = running.client()
    wish = {"incident": {"type": "incident", "status": "resolved"}}
    first = await asyncio.to_thread(client.put, f"/incidents/{running.incident_id}", json=wish)
    second = await asyncio.to_thread(client.put, f"/incidents/{running.incident_id}", json=wish)

    assert first.status_code == 200
    assert (second.status_code, second.json()["error"]["code"]) == (400, 1001)


async def test_many_at_once_and_reopening(running: Running) -> None:
    """PUT /incidents takes a list; a status of a resolved incident reopens it."""
    await running.page(dedup_key="a")
    await running.page(dedup_key="b")
    client = running.client()
    wishes = [{"id": i, "type": "incident", "status": "resolved"} for i in running.account.incidents]
    await asyncio.to_thread(client.rput, "incidents", json=wishes)
    reopened = await asyncio.to_thread(
        client.rput, f"/incidents/{running.incident_id}", json={"type": "incident", "status": "acknowledged"}
    )

    assert (reopened["status"], reopened["resolved_at"]) == ("acknowledged", None)
    assert [incident.status for incident in running.account.incidents.values()] == ["acknowledged", "resolved"]


async def test_a_from_header_that_is_nobodys_is_refused(running: Running) -> None:
    """Writes with an account's key need the e-mail of a valid user."""
    await running.page()
    wish = {"incident": {"type": "incident", "status": "acknowledged"}}
    path = f"/incidents/{running.incident_id}"
    stranger = await asyncio.to_thread(running.client("eve@example.com").put, path, json=wish)
    headers = {"Authorization": f"Token token={running.account.api_key}"}
    nobody = await running.browser.put(path, json=wish, headers=headers)

    assert (stranger.status_code, stranger.json()["error"]["code"]) == (400, 1008)
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (400, 2001)


async def test_the_key_the_certificate_and_the_path_are_checked(running: Running) -> None:
    """A wrong key is 401, an unknown incident 404, and an unknown authority no connection at all."""
    wrong = await running.browser.get("/incidents", headers={"Authorization": "Token token=wrong"})
    right = {"Authorization": f"Token token={running.account.api_key}"}
    missing = await running.browser.get("/incidents/QNONE", headers=right)

    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, 2006)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, 2100)
    async with local_client(base_url=running.url) as untrusting:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await untrusting.get("/incidents")


async def test_the_clients_trust_can_come_from_the_environment(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE is how the product learns of the lab's authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(running.folder / "ca.pem"))
    client = pagerduty.RestApiV2Client(running.account.api_key, base_url=running.url)
    running.clients.append(client)

    users = await asyncio.to_thread(client.list_all, "users")
    policy = {"escalation_policy_ids[]": ["PLABPOL"]}
    first, second = await asyncio.to_thread(client.list_all, "oncalls", params=policy)

    assert "watchkeeper@example.com" in [user["email"] for user in users]
    assert [(each["escalation_level"], each["user"]["summary"]) for each in (first, second)] == [
        (1, "Alice Ahn"),
        (2, "Bob Brandt"),
    ]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"routing_key": "short"}, "routing_key"),
        ({"event_action": "explode"}, "event_action"),
        ({"event_action": "resolve", "dedup_key": None}, "dedup_key"),
        ({"dedup_key": "k" * 256}, "dedup_key"),
        ({"payload": None}, "payload"),
        ({"payload": {**PAYLOAD, "severity": "bad"}}, "severity"),
        ({"payload": {**PAYLOAD, "summary": "s" * 1025}}, "summary"),
    ],
)
def test_a_wrong_event_is_named(wrong: dict[str, Any], named: str) -> None:
    """The Events API says which field is wrong, and opens nothing."""
    faults = event_faults({**PAGE, **wrong}, ROUTING_KEY)

    assert len(faults) == 1
    assert named in faults[0]


# -- webhooks --------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Subscriber:
    """Answers with what it was told to, and remembers."""

    answers: list[int] = field(default_factory=list)
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        return [json.loads(body)["event"]["event_type"] for _, body in self.heard]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        web = FastAPI()

        @web.post("/webhooks/pagerduty")
        async def door(request: Request) -> Response:
            self.heard.append((dict(request.headers), await request.body()))
            return Response(status_code=self.answers.pop(0) if self.answers else 202)

        async with listening(web, new_socket()) as url:
            yield url + "/webhooks/pagerduty"


@asynccontextmanager
async def account_with(subscriber: Subscriber, *secrets: str) -> AsyncIterator[PagerDuty]:
    async with subscriber.listening() as url:
        sender = WebhookSender(url=url, secrets=secrets or ("whsec",), first_wait_s=0.001, longest_wait_s=0.002)
        yield PagerDuty(now=lambda: NOW, routing_key=ROUTING_KEY, webhooks=sender)
        await sender.aclose()


async def settle(account: PagerDuty) -> None:
    assert account.webhooks is not None
    async with asyncio.timeout(5):
        await account.webhooks.settled()


async def test_every_change_is_told_in_order_and_signed() -> None:
    """One request an event, each signed with every live secret over its raw body."""
    subscriber = Subscriber()
    async with account_with(subscriber, "old", "new") as account:
        account.enqueue(PAGE)
        incident_id = next(iter(account.incidents))
        user = account.user_of(WATCHKEEPER_EMAIL)
        account.change(incident_id, {"status": "acknowledged"}, user)
        account.add_note(incident_id, "looking", user)
        account.change(incident_id, {"status": "resolved"}, user)
        await settle(account)

    assert subscriber.kinds == [
        "incident.triggered",
        "incident.acknowledged",
        "incident.annotated",
        "incident.resolved",
    ]
    for headers, body in subscriber.heard:
        expected = [f"v1={hmac.new(key, body, hashlib.sha256).hexdigest()}" for key in (b"old", b"new")]
        assert headers["x-pagerduty-signature"] == ",".join(expected)
    first = json.loads(subscriber.heard[0][1])["event"]
    assert first["data"]["number"] == 1
    assert first["data"]["service"]["id"] == "PCHAT01"
    assert first["agent"] is None
    assert first["occurred_at"] == "2026-11-22T14:03:20.000Z"


async def test_what_may_pass_is_tried_again_while_later_events_wait() -> None:
    """5xx and 429 are retried with the same webhook id; the next event of the incident comes after."""
    subscriber = Subscriber(answers=[503, 429, 202])
    async with account_with(subscriber) as account:
        account.enqueue(PAGE)
        account.enqueue({**PAGE, "event_action": "resolve"})
        await settle(account)

    assert subscriber.kinds == ["incident.triggered"] * 3 + ["incident.resolved"]
    assert len({headers["x-webhook-id"] for headers, _ in subscriber.heard}) == 2


async def test_other_4xx_drop_the_event_and_three_drops_disable() -> None:
    """A receiver that answers 4xx to genuine webhooks loses them, and soon all of them."""
    subscriber = Subscriber(answers=[400, 400, 404])
    async with account_with(subscriber) as account:
        for action in ("trigger", "acknowledge", "resolve", "trigger"):
            account.enqueue({**PAGE, "event_action": action})
        await settle(account)
        assert account.webhooks is not None
        assert account.webhooks.is_disabled

    assert len(subscriber.heard) == 3


async def test_a_subscriber_that_is_down_gets_its_event_later() -> None:
    """A product that is killed and started again loses nothing."""
    reserved = new_socket()
    address = url_of(reserved)
    host, port = reserved.getsockname()[:2]
    reserved.close()
    sender = WebhookSender(
        url=address + "/webhooks/pagerduty", secrets=("whsec",), first_wait_s=0.01, longest_wait_s=0.01
    )
    account = PagerDuty(now=lambda: NOW, routing_key=ROUTING_KEY, webhooks=sender)
    account.enqueue(PAGE)
    await until(lambda: bool(sender.attempts))

    web = FastAPI()
    heard: list[bytes] = []

    @web.post("/webhooks/pagerduty")
    async def door(request: Request) -> Response:
        heard.append(await request.body())
        return Response(status_code=202)

    async with listening(web, socket.create_server((host, port))):
        await settle(account)
    await sender.aclose()

    assert sender.attempts[0].status is None
    assert len(heard) == 1
