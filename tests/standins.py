"""
Strict stand-ins for Slack and PagerDuty as processes, and the wire between PagerDuty and the product.

They are not part of this repository: WATCHKEEPER_STANDINS names their folder, and without it such tests are skipped.
Each has a control API under `/_test`; `violations` there holds everything that the real service would have refused or
disliked.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lab.demo_processes import Child, DemoError, free_port
from lab.listening import listening, local_client, new_socket
from tests.fault_proxy import FaultProxy

FOLDER_VARIABLE = "WATCHKEEPER_STANDINS"

# As the stand-ins have them.
TEAM = "T0FAKE0001"
BOT_USER = "U0BOT00001"
CHANNEL = "C0INCIDENT"
ALICE, BOB, MALLORY = "U0ALICE", "U0BOB", "U0MALLORY"
SERVICE, OTHER_SERVICE = "PF9KMXH", "PIJ90N7"
FROM = "oncall@example.com"
API_KEY = "pd-test-key"

SLACK_SECRET = "slack-signing-secret-of-this-test"
PAGERDUTY_SECRET = "pagerduty-webhook-secret-of-this-test"
ROUTING_KEY = "0123456789abcdef0123456789abcdef"

Json = dict[str, Any]
T = TypeVar("T")


def standins_folder() -> Path:
    """Where the stand-ins are; without the variable the test is skipped, with a wrong one it fails."""
    named = os.environ.get(FOLDER_VARIABLE)
    if not named:
        pytest.skip(f"the strict stand-ins are not part of this repository; name their folder in {FOLDER_VARIABLE}")
    folder = Path(named).resolve()
    if not (folder / "fake_slack.py").is_file():
        pytest.fail(f"{FOLDER_VARIABLE} names {folder}, and there is no fake_slack.py in it", pytrace=False)
    return folder


async def until(what: str, look: Callable[[], Awaitable[T]], within_s: float = 20.0) -> T:
    """The first answer of `look` that is true; a test that waits in vain fails with the last one."""
    found = await look()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not found:
                await asyncio.sleep(0.1)
                found = await look()
    assert found, f"not within {within_s:g} s: {what} (last seen: {found!r})"
    return found


# -- what people see -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message as a person sees it."""

    body: Mapping[str, Any]

    @property
    def ts(self) -> str:
        return str(self.body["ts"])

    @property
    def key(self) -> str:
        """What the product calls it; empty for others' messages."""
        payload = (self.body.get("metadata") or {}).get("event_payload") or {}
        return str(payload.get("key", ""))

    @property
    def words(self) -> str:
        """Every text in it."""
        return "\n".join((str(self.body.get("text", "")), *_texts(self.body.get("blocks") or [])))

    @property
    def buttons(self) -> frozenset[str]:
        return frozenset(element["action_id"] for element in self._elements())

    def value_of(self, action_id: str) -> str:
        """What the button carries."""
        return str(next(each["value"] for each in self._elements() if each["action_id"] == action_id))

    def options(self, action_id: str) -> dict[str, str]:
        """A menu's texts with the values behind them."""
        menus = [each for each in self._elements() if each["action_id"] == action_id]
        return {option["text"]["text"]: option["value"] for menu in menus for option in menu["options"]}

    def _elements(self) -> Iterator[Json]:
        for block in self.body.get("blocks") or []:
            if block["type"] == "actions":
                yield from block["elements"]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, Mapping):
        if isinstance(value.get("text"), str):
            yield value["text"]
        for each in value.values():
            yield from _texts(each) if isinstance(each, list | Mapping) else ()


# -- the two services ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Service:
    """A stand-in's control API."""

    client: httpx.AsyncClient

    async def control(self, op: str, body: Mapping[str, Any] | None = None, **query: str) -> Any:
        """One call of `/_test/<op>`."""
        path = f"/_test/{op}"
        answer = await (
            self.client.get(path, params=query) if body is None else self.client.post(path, json=dict(body))
        )
        answer.raise_for_status()
        return answer.json()

    async def fault(self, **how: Any) -> None:
        """Break the next calls that match: method, path, status, retry_after, times, drop, delay."""
        await self.control("faults", how)


class Slack(_Service):
    """The workspace, and its people at work."""

    async def messages(self) -> list[Message]:
        """All that stands in the incidents' channel, threads and private answers included."""
        return [Message(body=body) for body in await self.control("messages", channel=CHANNEL)]

    async def cards(self, title: str) -> list[Message]:
        """The cards whose title holds this."""
        return [each for each in await self.messages() if each.key.startswith("card:") and title in each.words]

    async def bursts(self) -> list[Message]:
        """The cards that speak for many incidents."""
        return [each for each in await self.messages() if each.key.startswith("burst:")]

    async def card(self, title: str, is_so: Callable[[Message], bool] = bool, within_s: float = 20.0) -> Message:
        """The one card with this title, as soon as it looks like that."""

        async def look() -> list[Message]:
            found = await self.cards(title)
            return found if found and is_so(found[0]) else []

        try:
            [only] = await until(f"a card {title!r} that looks as it should", look, within_s)
        except AssertionError as error:
            shown = "\n---\n".join(each.words for each in await self.cards(title))
            raise AssertionError(f"{error}\nshown is:\n{shown}") from error
        return only

    async def replies(self, card: Message) -> list[Message]:
        """What stands in the card's thread."""
        return [each for each in await self.messages() if each.body.get("thread_ts") == card.ts]

    async def told(self, user: str) -> list[str]:
        """What the app told this person alone, oldest first."""
        return [each.words for each in await self.messages() if each.body.get("ephemeral_to") == user]

    async def click(self, card: Message, action_id: str, user: str, **more: Any) -> str:
        """Press a button that is really there; returns the private answer (`sign` forges, then there is none)."""
        before = len(await self.told(user))
        wish = {"channel": CHANNEL, "ts": card.ts, "action_id": action_id, "user": user, **more}
        delivery = await self.control("click", wish)
        if "sign" in more:
            return str(delivery["status"])
        assert delivery["status"] == 200, delivery
        told = await until(f"an answer to {user}'s {action_id}", lambda: self._newer(user, before))
        return told[0]

    async def _newer(self, user: str, before: int) -> list[str]:
        return (await self.told(user))[before:]

    async def command(self, text: str, user: str = ALICE) -> str:
        """`/oncall TEXT`; returns the private answer."""
        before = len(await self.told(user))
        delivery = await self.control("command", {"command": "/oncall", "text": text, "user": user})
        assert delivery["status"] == 200, delivery
        return (await until(f"an answer to /oncall {text}", lambda: self._newer(user, before)))[-1]

    async def calls(self, method: str) -> list[Json]:
        """What the product sent to this method, oldest first."""
        found: list[Json] = await self.control("calls", method=method)
        return found


class PagerDuty(_Service):
    """The account; `control` acts as people do in PagerDuty's own pages."""

    async def page(self, title: str, key: str = "", details: Mapping[str, Any] | None = None) -> str:
        """A monitoring system pages the configured service; returns the incident's id."""
        event = {
            "routing_key": ROUTING_KEY,
            "event_action": "trigger",
            "dedup_key": key or title,
            "payload": {"summary": title, "source": "test", "severity": "error", "custom_details": dict(details or {})},
        }
        answer = await self.client.post("/v2/enqueue", json=event)
        assert answer.status_code == 202, answer.text
        return str((await self.by_title(title))["id"])

    async def page_other_service(self, title: str) -> str:
        """Somebody opens an incident by hand on the service that the configuration does not know."""
        body = {"type": "incident", "title": title, "service": {"id": OTHER_SERVICE, "type": "service_reference"}}
        answer = await self._as_somebody("POST", "/incidents", {"incident": body})
        return str(answer.json()["incident"]["id"])

    async def ping(self) -> None:
        """Somebody presses "Send test event" at the webhook subscription."""
        await self._as_somebody("POST", "/webhook_subscriptions/PXSUIZH/ping", None)

    async def _as_somebody(self, method: str, path: str, body: Json | None) -> httpx.Response:
        headers = {"Authorization": f"Token token={API_KEY}", "From": FROM}
        answer = await self.client.request(method, path, json=body, headers=headers)
        answer.raise_for_status()
        return answer

    async def act(self, incident_id: str, user: str = "PALICE1", **change: Any) -> None:
        """Somebody changes the incident in PagerDuty's own page."""
        await self.control("act", {"id": incident_id, "change": change, "user": user})

    async def by_title(self, title: str) -> Json:
        """The newest incident with this in its title."""
        found: Json = next(
            each for each in reversed((await self.control("state"))["incidents"]) if title in each["title"]
        )
        return found

    async def incident(self, incident_id: str) -> Json:
        found: Json = next(each for each in (await self.control("state"))["incidents"] if each["id"] == incident_id)
        return found

    async def notes(self, incident_id: str) -> list[str]:
        """The texts of its notes, newest first."""
        return [each["content"] for each in (await self.control("state"))["notes"].get(incident_id, [])]


# -- the wire between PagerDuty and the product ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Packet:
    """One webhook as PagerDuty sent it."""

    raw: bytes
    headers: Mapping[str, str]

    @property
    def event(self) -> Json:
        event: Json = json.loads(self.raw)["event"]
        return event


@dataclass(kw_only=True)
class Wire:
    """
    Passes PagerDuty's webhooks on, byte for byte; while it holds them, PagerDuty believes that they arrived.

    Whoever held them sends them later: in another order, several times, or changed.
    """

    product: str
    client: httpx.AsyncClient
    held: list[Packet] | None = None
    answers: list[int] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/webhooks/pagerduty", self._pass_on, methods=["POST"])])

    async def _pass_on(self, request: Request) -> Response:
        names = ("content-type", "x-pagerduty-signature", "x-webhook-id", "x-webhook-subscription")
        headers = {name: request.headers[name] for name in names}
        packet = Packet(raw=await request.body(), headers=headers)
        if self.held is not None:
            self.held.append(packet)
            return Response(status_code=202)
        answer = await self._post(packet.raw, packet.headers)
        return Response(answer.content, status_code=answer.status_code)

    async def send(self, packets: Sequence[Packet]) -> list[int]:
        """Deliver these one after another; returns the statuses."""
        return [(await self._post(each.raw, each.headers)).status_code for each in packets]

    async def forge(self, raw: bytes, signature: str | None) -> int:
        """A request with this signature, or with none; returns the status."""
        headers = {"content-type": "application/json"}
        if signature is not None:
            headers["x-pagerduty-signature"] = signature
        return (await self._post(raw, headers)).status_code

    async def _post(self, raw: bytes, headers: Mapping[str, str]) -> httpx.Response:
        answer = await self.client.post(self.product + "/webhooks/pagerduty", content=raw, headers=dict(headers))
        self.answers.append(answer.status_code)
        return answer


def signature_of(raw: bytes, secret: str = PAGERDUTY_SECRET) -> str:
    """What PagerDuty would write into X-PagerDuty-Signature."""
    return "v1=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()


# -- their processes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Standins:
    """Both services and the wire, up; `environment` is what the product needs to reach them."""

    slack: Slack
    pagerduty: PagerDuty
    wire: Wire
    events_url: str
    environment: Mapping[str, str]


@asynccontextmanager
async def running_standins(
    folder: Path,
    *,
    product: str,
    is_rate_limited: bool = False,
    socket_mode: bool = False,
    proxy: FaultProxy | None = None,
) -> AsyncIterator[Standins]:
    """
    Start both in `folder` for a product at this address; exactly these processes are stopped on the way out.

    With `is_rate_limited` Slack's own limits hold (50 updates a minute, 5 posts in 5 seconds). With `socket_mode` the
    product comes to Slack. A `proxy` is put between the product and Slack's Web API. Raises DemoError when one does not
    come up.
    """
    scripts = standins_folder()
    ports = {name: free_port() for name in ("slack", "tls", "plain")}
    slack_url, plain_url = (f"http://127.0.0.1:{ports[name]}" for name in ("slack", "plain"))
    if proxy is not None:
        proxy.target_port = ports["slack"]
    relay = new_socket()
    limits = {
        "FAKE_SLACK_RATE_LIMIT": str(int(is_rate_limited)),
        "FAKE_SLACK_MODE": "socket" if socket_mode else "http",
    }
    children = [
        _child(scripts, folder, "fake_slack", {**_slack_variables(folder, ports, product), **limits}),
        _child(scripts, folder, "fake_pagerduty", _pagerduty_variables(scripts, folder, ports, relay.getsockname()[1])),
    ]
    async with (
        local_client(base_url=slack_url, timeout_s=30) as to_slack,
        local_client(base_url=plain_url, timeout_s=30) as to_pagerduty,
        local_client(timeout_s=10) as to_product,
    ):
        wire = Wire(product=product, client=to_product)
        try:
            await asyncio.gather(*(child.start() for child in children))
            await _until_up(children, [to_slack, to_pagerduty])
            async with listening(wire.app(), relay):
                yield Standins(
                    slack=Slack(client=to_slack),
                    pagerduty=PagerDuty(client=to_pagerduty),
                    wire=wire,
                    events_url=plain_url + "/v2/enqueue",
                    environment=_product_variables(
                        folder, proxy.url if proxy else slack_url, ports["tls"], socket_mode=socket_mode
                    ),
                )
        finally:
            await asyncio.gather(*(child.stop() for child in children))


def _child(scripts: Path, folder: Path, name: str, variables: Mapping[str, str]) -> Child:
    return Child(
        name,
        str(scripts / f"{name}.py"),
        log=folder / f"{name}.log",
        variables={"PYTHONDONTWRITEBYTECODE": "1", **variables},
    )


def _slack_variables(folder: Path, ports: Mapping[str, int], product: str) -> dict[str, str]:
    """Everybody is in the channel; a stranger there sees the card and its buttons."""
    people = {"alice": ALICE, "bob": BOB, "mallory": MALLORY}
    seed = {
        "users": [{"id": id_, "name": name, "email": f"{name}@example.com"} for name, id_ in people.items()],
        "channels": [{"id": CHANNEL, "name": "incidents", "members": [BOT_USER, *people.values()]}],
        "commands": ["/oncall"],
    }
    (folder / "slack-seed.json").write_text(json.dumps(seed), encoding="utf-8")
    return {
        "FAKE_SLACK_PORT": str(ports["slack"]),
        "FAKE_SLACK_BOT_TOKEN": "xoxb-test",
        "FAKE_SLACK_SIGNING_SECRET": SLACK_SECRET,
        "FAKE_SLACK_APP_URL": product + "/slack/events",
        "FAKE_SLACK_SEED": str(folder / "slack-seed.json"),
        "FAKE_SLACK_APP_TOKEN": "xapp-test",
    }


def _pagerduty_variables(scripts: Path, folder: Path, ports: Mapping[str, int], relay: int) -> dict[str, str]:
    return {
        "FAKE_PD_PORT": str(ports["tls"]),
        "FAKE_PD_HTTP_PORT": str(ports["plain"]),
        "FAKE_PD_DIR": str(folder / "pagerduty-tls"),
        "FAKE_PD_API_KEY": API_KEY,
        "FAKE_PD_WEBHOOK_URL": f"http://127.0.0.1:{relay}/webhooks/pagerduty",
        "FAKE_PD_WEBHOOK_SECRETS": f"an-older-secret,{PAGERDUTY_SECRET}",
        "FAKE_PD_OPENAPI": str(scripts / "pagerduty_rest_openapi.json"),
    }


def _product_variables(folder: Path, slack_url: str, tls_port: int, *, socket_mode: bool) -> dict[str, str]:
    return {
        "SLACK_BOT_TOKEN": "xoxb-test",
        "SLACK_SIGNING_SECRET": SLACK_SECRET,
        "SLACK_API_BASE_URL": slack_url + "/api/",
        **({"SOCKET_MODE": "true", "SLACK_APP_TOKEN": "xapp-test"} if socket_mode else {"SOCKET_MODE": "false"}),
        "INCIDENT_CHANNEL": CHANNEL,
        "PAGERDUTY_API_KEY": API_KEY,
        "PAGERDUTY_API_BASE_URL": f"https://127.0.0.1:{tls_port}",
        "PAGERDUTY_FROM": FROM,
        "PAGERDUTY_WEBHOOK_SECRETS": PAGERDUTY_SECRET,
        "SSL_CERT_FILE": str(folder / "pagerduty-tls" / "ca.pem"),
    }


async def _until_up(children: Sequence[Child], clients: Sequence[httpx.AsyncClient]) -> None:
    """Both have their control API under the same path."""
    for child, client in zip(children, clients, strict=True):
        for _ in range(300):
            with contextlib.suppress(httpx.TransportError):
                (await client.get("/_test/violations")).raise_for_status()
                break
            await asyncio.sleep(0.1)
        else:
            raise DemoError(f"{child.name} does not answer:\n{child.tail()}")
