"""The doors as strangers and PagerDuty meet them: over HTTP, with hostile headers and sizes, and no database."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from bot.incidents import Delivery, OverloadedError, StoreUnavailableError, UnreadableEventError
from bot.web.app import WebSettings, build_web
from bot.web.body import BodyLimits

NOW = datetime(2026, 11, 22, 14, 3, tzinfo=UTC)
STAMP = str(int(NOW.timestamp()))
OLD, NEW, SIGNING = b"whsec-old", b"whsec-new", b"slack-signing"


class FakeIntake:
    """Remembers what it was given; `fault` is raised or waited for instead."""

    def __init__(self) -> None:
        self.delivered: dict[str, Delivery] = {}
        self.dead: dict[str, tuple[bytes, str]] = {}
        self.fault: Exception | None = None
        self.refuses: Exception | None = None
        self.hangs = False

    async def deliver(self, delivery: Delivery) -> bool:
        await self._fail()
        if self.refuses is not None:
            raise self.refuses
        is_new = delivery.event_id not in self.delivered
        self.delivered.setdefault(delivery.event_id, delivery)
        return is_new

    async def dead_letter(self, raw: bytes, why: str, key: str) -> None:
        await self._fail()
        self.dead[key] = (raw, why)

    async def _fail(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.fault is not None:
            raise self.fault


class FakeBolt:
    """Remembers the bodies that came through the guard."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def handle(self, req: Request) -> Response:
        self.bodies.append(await req.body())
        return PlainTextResponse("ok")


class FakeReadiness:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    async def not_ready_because(self) -> Sequence[str]:
        return self.reasons

    async def count(self) -> None:
        return None

    async def details(self) -> Mapping[str, Any]:
        return {"database": "sqlite", "open_incidents": 1}


def encoded(headers: Mapping[str, str | bytes]) -> dict[bytes, bytes]:
    return {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in headers.items()}


class House:
    """The web face with all its neighbours."""

    def __init__(self) -> None:
        self.intake, self.bolt, self.readiness = FakeIntake(), FakeBolt(), FakeReadiness()
        self.registry = CollectorRegistry()
        self.web = build_web(
            intake=self.intake,
            slack_handler=self.bolt,
            readiness=self.readiness,
            registry=self.registry,
            settings=WebSettings(
                pagerduty_secrets=(OLD, NEW), slack_secret=SIGNING, limits=BodyLimits(patience_s=0.2), now=lambda: NOW
            ),
        )
        transport = httpx.ASGITransport(app=self.web, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://watchkeeper")

    async def page(self, raw: bytes, secret: bytes = NEW, **headers: str) -> httpx.Response:
        signature = "v1=" + hmac.new(secret, raw, hashlib.sha256).hexdigest()
        sent = {"X-PagerDuty-Signature": signature, "Content-Type": "application/json", **headers}
        return await self.client.post("/webhooks/pagerduty", content=raw, headers=sent)

    async def click(self, raw: bytes, **headers: str | bytes) -> httpx.Response:
        signature = "v0=" + hmac.new(SIGNING, f"v0:{STAMP}:".encode() + raw, hashlib.sha256).hexdigest()
        sent = {"X-Slack-Request-Timestamp": STAMP, "X-Slack-Signature": signature, **headers}
        return await self.client.post("/slack/events", content=raw, headers=encoded(sent))


@pytest.fixture
async def house() -> AsyncIterator[House]:
    built = House()
    async with built.client:
        yield built


def event(kind: str = "incident.triggered", **more: Any) -> bytes:
    incident = {"id": "Q1", "status": "triggered", "title": "LLMHighTTFT", "created_at": "2026-11-22T14:03:00Z"}
    values = {"id": "01EVENT", "event_type": kind, "occurred_at": "2026-11-22T14:03:00Z", "data": incident}
    return json.dumps({"event": {**values, **more}}).encode()


async def test_a_genuine_event_is_stored_and_accepted(house: House) -> None:
    """202 after the commit, under either of the two live secrets."""
    answers = [(await house.page(event())).status_code, (await house.page(event(), secret=OLD)).status_code]

    assert answers == [202, 202]
    assert list(house.intake.delivered) == ["01EVENT"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"event":' * 100 + b"1" + b"}" * 100,
        event("pagey.ping", data={"message": "Hello", "type": "ping"}),
        event("incident.from_next_year"),
        event(occurred_at="soon"),
        event(data=None),
        event(data={"id": "Q1", "status": "exploded"}),
    ],
    ids=range(10),
)
async def test_a_genuine_event_that_we_cannot_read_is_accepted_and_kept(house: House, raw: bytes) -> None:
    """Any other 4xx would count towards the three that switch the subscription off for a day."""
    first, again = await house.page(raw), await house.page(raw)

    assert (first.status_code, again.status_code) == (202, 202)
    assert list(house.intake.dead) == [hashlib.sha256(raw).hexdigest()]
    assert house.intake.delivered == {}


async def test_a_dead_letter_is_cleaned_and_says_why(house: House) -> None:
    """What is kept can be read by people, and holds no secret."""
    token = "xoxb-" + "123456789012-abcdefghijkl"
    await house.page(event("incident.new_kind", note=f"{token} \\u0000"))

    [(raw, why)] = house.intake.dead.values()
    assert token.encode() not in raw
    assert b"incident.new_kind" in raw
    assert why == "unknown event type 'incident.new_kind'"


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"v1=",
        b"v1=" + b"0" * 64,
        b"v1=\xc3\xa4",
        b"\xff" * 70,
        b"v1=" * 3000,
        b"v2=" + b"0" * 64,
        b"," * 5000,
    ],
    ids=range(9),
)
async def test_a_forged_event_is_refused_in_constant_words(house: House, header: bytes | None) -> None:
    """401 for every wrong header; the answer tells nothing, and nothing is stored."""
    headers = encoded({} if header is None else {"X-PagerDuty-Signature": header})
    answer = await house.client.post("/webhooks/pagerduty", content=event(), headers=headers)

    assert (answer.status_code, answer.json()) == (401, {"status": "unauthorized"})
    assert not house.intake.delivered
    assert not house.intake.dead


def forged(dice: random.Random) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and a body that nobody signed: near misses of a real signature, and noise."""
    raw = dice.choice([event(), b"", b"{}", dice.randbytes(dice.randrange(200)), event()[: dice.randrange(1, 100)]])
    digest = hmac.new(dice.choice([b"", b"guess", OLD + b" "]), raw, hashlib.sha256).hexdigest()
    near = hmac.new(NEW, raw, hashlib.sha256).hexdigest()
    spoilt = near[:-1] + dice.choice("ghxyzGÄ"[:5])
    values = [
        f"v1={digest}", f"v1={spoilt}", f"v0={near}", near, f"V1={near}", f"v1={near[:-1]}", f"v1 ={near}",
        f"v1={near}0", "v1=" + near.upper().replace("0", "O") + "!", "v1=", ",", "v1", "\x00", "v1=" + "9" * 70,
        ",".join(["v1=" + digest] * 9),
    ]  # fmt: skip
    count = dice.choice([0, 1, 1, 1, 2])
    headers = [(b"x-pagerduty-signature", dice.choice(values).encode()) for _ in range(count)]
    if dice.random() < 0.2:
        headers.append((b"x-pagerduty-signature", dice.randbytes(dice.randrange(90))))
    if dice.random() < 0.3:
        headers.append((b"content-length", dice.choice([b"-1", b"9" * 30, b"abc", b"\xff", str(len(raw)).encode()])))
    return headers, raw


async def test_ten_thousand_forgeries(house: House) -> None:
    """None is accepted, none makes an error of ours, nothing is stored: A1 of our reliability bar."""
    dice, statuses = random.Random(1), Counter[int]()
    for _ in range(10_000):
        headers, raw = forged(dice)
        statuses[await asked(house.web, headers, raw)] += 1

    assert statuses.keys() == {401, 413}
    assert statuses[401] > 9_000
    assert not house.intake.delivered
    assert not house.intake.dead


async def asked(web: Any, headers: list[tuple[bytes, bytes]], raw: bytes) -> int:
    """One request without a client, which would correct what is wrong with it."""
    scope = {
        "type": "http", "method": "POST", "path": "/webhooks/pagerduty", "raw_path": b"", "query_string": b"",
        "headers": headers, "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("h", 80),
        "root_path": "", "state": {},
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": raw, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await web(scope, receive, send)
    return int(sent[0]["status"])


async def test_what_can_wait_is_put_off(house: House) -> None:
    """429 is the one 4xx that PagerDuty repeats."""
    house.intake.fault = OverloadedError("behind")
    answer = await house.page(event("incident.annotated", data={"incident": {"id": "Q1"}}))

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")


async def test_what_the_database_refuses_is_kept_as_a_dead_letter(house: House) -> None:
    """It was understood, and does not fit: its bytes wait for a person, and PagerDuty is not asked to repeat it."""
    house.intake.refuses = UnreadableEventError("the database does not take it: DataError")
    answer = await house.page(event())

    assert (answer.status_code, house.intake.delivered) == (202, {})
    [(raw, why)] = house.intake.dead.values()
    assert b"01EVENT" in raw
    assert why == "the database does not take it: DataError"


async def test_signatures_in_two_headers_count_both(house: House) -> None:
    """A proxy may split the list."""
    good = "v1=" + hmac.new(NEW, event(), hashlib.sha256).hexdigest()
    headers = [("X-PagerDuty-Signature", "v1=" + "0" * 64), ("X-PagerDuty-Signature", good)]

    assert (await house.client.post("/webhooks/pagerduty", content=event(), headers=headers)).status_code == 202


async def endless(sent: list[int], parts: int) -> AsyncIterator[bytes]:
    for _ in range(parts):
        sent.append(1)
        yield b"x" * 65_536


@pytest.mark.parametrize("path", ["/webhooks/pagerduty", "/slack/events"])
async def test_a_large_body_is_refused(house: House, path: str) -> None:
    """1 MiB with an honest length, and a stream without one: 413 for both, read no further than the cap."""
    honest = await house.client.post(path, content=b"x" * 1_048_576)
    sent: list[int] = []
    streamed = await house.client.post(path, content=endless(sent, 1000))

    assert (honest.status_code, streamed.status_code) == (413, 413)
    assert len(sent) <= 6


@pytest.mark.parametrize("length", ["-1", "1e9", "abc", "٣", "9" * 400], ids=range(5))
async def test_an_odd_content_length_crashes_nothing(house: House, length: str) -> None:
    """The header is a stranger's claim; the stream is what counts."""
    headers = encoded({"Content-Length": length})
    answer = await house.client.post("/webhooks/pagerduty", content=b"x", headers=headers)

    assert answer.status_code in {401, 413}


async def slow() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


async def test_a_sender_who_never_ends_is_left(house: House) -> None:
    """After the patience the door answers 503, which PagerDuty repeats."""
    answer = await house.client.post("/webhooks/pagerduty", content=slow())

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize("raw", [event(), b"unreadable"], ids=["event", "dead letter"])
@pytest.mark.parametrize("fault", [StoreUnavailableError("disk full"), RuntimeError("a bug"), None], ids=repr)
async def test_what_cannot_be_stored_is_sent_again(house: House, fault: Exception | None, raw: bytes) -> None:
    """Database down, hanging, or anything unexpected: 503 with Retry-After, never a 4xx, never a trace."""
    house.intake.fault, house.intake.hangs = fault, fault is None
    answer = await house.page(raw)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json() == {"status": "try again"}


async def test_slack_gets_through_when_it_is_slack(house: House) -> None:
    """Bolt sees the very bytes that were signed."""
    answer = await house.click(b"payload=%7B%7D")

    assert (answer.status_code, house.bolt.bodies) == (200, [b"payload=%7B%7D"])


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Slack-Request-Timestamp": "abc"},
        {"X-Slack-Request-Timestamp": "nan"},
        {"X-Slack-Request-Timestamp": "9" * 300},
        {"X-Slack-Request-Timestamp": b"\xc3\xa4"},
        {"X-Slack-Request-Timestamp": ""},
        {"X-Slack-Request-Timestamp": "1"},
        {"X-Slack-Signature": b"v0=\xff\xfe"},
        {"X-Slack-Signature": ""},
        {"X-Slack-Signature": "v0=" + "0" * 64},
    ],
    ids=range(9),
)
async def test_hostile_slack_headers_never_reach_bolt(house: House, headers: dict[str, str | bytes]) -> None:
    """Bolt itself would answer 500 to some of these."""
    answer = await house.click(b"payload=%7B%7D", **headers)

    assert (answer.status_code, house.bolt.bodies) == (401, [])


async def test_two_timestamps_are_one_too_many(house: House) -> None:
    """We and Bolt might each read another one."""
    raw = b"payload=%7B%7D"
    signature = "v0=" + hmac.new(SIGNING, f"v0:{STAMP}:".encode() + raw, hashlib.sha256).hexdigest()
    headers = [
        ("X-Slack-Request-Timestamp", STAMP),
        ("X-Slack-Request-Timestamp", "1"),
        ("X-Slack-Signature", signature),
    ]

    assert (await house.client.post("/slack/events", content=raw, headers=headers)).status_code == 401


async def test_a_signed_body_that_is_not_utf8_never_reaches_bolt(house: House) -> None:
    """400, since Slack itself never sends one."""
    assert (await house.click(b"\xff\xfe")).status_code == 400
    assert house.bolt.bodies == []


@pytest.mark.parametrize("path", ["/webhooks/pagerduty", "/slack/events"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_doors_open_to_post_only(house: House, path: str, method: str) -> None:
    """No other method is routed, and no cross-origin request is answered."""
    assert (await house.client.request(method, path)).status_code == 405


async def test_probes(house: House) -> None:
    """/livez asks nobody; /readyz and /healthz tell why no traffic should come."""
    ready = await house.client.get("/readyz")
    house.readiness.reasons = ["the schema is old: run watchkeeper migrate"]
    not_ready, health, alive = [await house.client.get(path) for path in ("/readyz", "/healthz", "/livez")]

    assert (ready.status_code, not_ready.status_code, health.status_code, alive.status_code) == (200, 503, 503, 200)
    assert not_ready.json()["because"] == ["the schema is old: run watchkeeper migrate"]
    assert health.json()["because"] == ["the schema is old: run watchkeeper migrate"]


async def test_only_this_machine_sees_the_state_of_every_part(house: House) -> None:
    """A proxy may pass every path on; strangers hear whether it is ready, and no names or counts."""
    here = await house.client.get("/healthz", headers={"host": "127.0.0.1:8080"})
    proxied = await house.client.get("/healthz", headers={"host": "127.0.0.1:8080", "x-forwarded-for": "203.0.113.7"})
    elsewhere = await house.client.get("/healthz", headers={"host": "wk.example.com"})

    assert here.json()["details"]["open_incidents"] == 1
    assert "details" not in proxied.json()
    assert "details" not in elsewhere.json()


async def test_metrics_count_answers(house: House) -> None:
    """Refusals and successes are told apart by door and status; the registry is our own."""
    await house.page(event())
    await house.client.post("/webhooks/pagerduty", content=b"forged")
    text = (await house.client.get("/metrics")).text

    assert 'watchkeeper_door_answers_total{door="pagerduty",status="202"} 1.0' in text
    assert 'watchkeeper_door_answers_total{door="pagerduty",status="401"} 1.0' in text
    assert "python_info" not in text


async def test_nothing_else_is_served(house: House) -> None:
    """The inventory of routes: no documentation pages, no forgotten endpoint."""
    paths = {getattr(route, "path", "") for route in house.web.routes}

    assert paths == {"/webhooks/pagerduty", "/slack/events", "/livez", "/readyz", "/healthz", "/metrics"}


async def test_empty_secrets_open_nothing() -> None:
    """A deployment that forgot its secrets refuses everybody."""
    house = House()
    house.web = build_web(
        intake=house.intake,
        slack_handler=house.bolt,
        readiness=house.readiness,
        settings=WebSettings(pagerduty_secrets=(b"",), slack_secret=b"", now=lambda: NOW),
    )
    transport = httpx.ASGITransport(app=house.web)
    async with httpx.AsyncClient(transport=transport, base_url="http://watchkeeper") as client:
        signature = "v1=" + hmac.new(b"", event(), hashlib.sha256).hexdigest()
        answer = await client.post("/webhooks/pagerduty", content=event(), headers={"X-PagerDuty-Signature": signature})

    assert answer.status_code == 401
