"""Our face over the `pagerduty` package, against an HTTPS server on 127.0.0.1."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from bot.pagerduty_client import PagerDutyClient, PagerDutyError

ALICE = "alice@example.com"


@dataclass
class PagerDutyServer:
    """
    One incident; `faults` are (status, body) to answer first.

    The body `gzip` only says that it is gzip, `cut` breaks the connection after the work was done.
    """

    status: str = "triggered"
    notes: list[str] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    faults: list[tuple[int, Any]] = field(default_factory=list)
    calls: list[tuple[str, str, str | None, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        raw = await request.read()
        self.calls.append((request.method, request.path, request.headers.get("From"), json.loads(raw) if raw else None))
        if self.faults:
            status, body = self.faults.pop(0)
            if body == "cut":
                assert request.transport is not None
                request.transport.close()
            if body == "gzip":
                return web.Response(status=status, body=b"not gzip", headers={"Content-Encoding": "gzip"})
            return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))
        if request.path.endswith("/alerts"):
            start = int(request.query["offset"])
            page = self.alerts[start : start + int(request.query["limit"])]
            return web.json_response({"alerts": page, "more": start + len(page) < len(self.alerts)})
        if request.path.endswith("/notes"):
            if request.method == "POST":
                self.notes.append(self.calls[-1][3]["note"]["content"])
            return web.json_response({"notes": [{"content": note} for note in self.notes], "note": {}})
        if request.method == "PUT":
            self.status = self.calls[-1][3]["incident"]["status"]
        return web.json_response({"incident": {"id": "Q1", "status": self.status}})

    def wrote(self) -> list[tuple[str, str | None, Any]]:
        return [(method, sender, body) for method, _, sender, body in self.calls if method != "GET"]


@pytest.fixture
async def server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[PagerDutyServer, PagerDutyClient]]:
    pagerduty = PagerDutyServer()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", pagerduty.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    client = PagerDutyClient("key", base_url=f"https://127.0.0.1:{runner.addresses[0][1]}", timeout_s=2)
    client._rest.sleep_timer = 0.01  # the package's own sleeps, shortened
    yield pagerduty, client
    await runner.cleanup()


Pair = tuple[PagerDutyServer, PagerDutyClient]


async def test_acknowledge(server: Pair) -> None:
    """A triggered incident is acknowledged in the name of the person."""
    pagerduty, client = server

    assert await client.acknowledge("Q1", ALICE) == "acknowledged"
    assert pagerduty.wrote() == [("PUT", ALICE, {"incident": {"type": "incident_reference", "status": "acknowledged"}})]


@pytest.mark.parametrize("status", ["resolved", "acknowledged"])
async def test_acknowledge_never_reopens(server: Pair, status: str) -> None:
    """PagerDuty would re-open a resolved incident; nothing is written for it."""
    pagerduty, client = server
    pagerduty.status = status

    assert await client.acknowledge("Q1", ALICE) == status
    assert pagerduty.wrote() == []


async def test_resolve(server: Pair) -> None:
    """Once, and again without a second write."""
    pagerduty, client = server
    await client.resolve("Q1", ALICE)
    await client.resolve("Q1", ALICE)

    assert len(pagerduty.wrote()) == 1


async def test_resolved_by_somebody_in_between_is_fine(server: Pair) -> None:
    """PagerDuty's error 1001 is what we wanted."""
    pagerduty, client = server
    error = {"error": {"message": "Incident Already Resolved", "code": 1001}}
    pagerduty.faults = [(200, {"incident": {"status": "triggered"}}), (400, error)]
    await client.resolve("Q1", ALICE)

    assert len(pagerduty.wrote()) == 1


async def test_notes(server: Pair) -> None:
    """A note is redacted, written in somebody's name, and found again."""
    pagerduty, client = server
    await client.add_note("Q1", "verified; password=hunter22", ALICE)

    assert await client.notes("Q1") == ["verified; password=[redacted]"]
    assert pagerduty.wrote()[0][1] == ALICE


async def test_alerts_are_paged(server: Pair) -> None:
    """More than a hundred alerts take more than one request."""
    pagerduty, client = server
    pagerduty.alerts = [{"id": f"QA{n}", "summary": "Disk full", "body": {}} for n in range(130)]

    assert len(await client.alerts("Q1")) == 130
    assert len(pagerduty.calls) == 2


@pytest.mark.parametrize(
    ("status", "body", "permanent"),
    [
        (400, {"error": {"message": "Requester User Not Found", "code": 1008}}, True),
        (400, {"error": {"message": "x", "errors": 7}}, True),
        (401, {"error": {"message": "Unauthorized"}}, False),
        (402, {}, False),
        (403, {"error": {"message": "Forbidden", "code": 2010}}, False),
        (404, {"error": {"message": "Not Found", "code": 2100}}, True),
        (404, "<html>", True),
        (500, "oops", False),
        (503, {"error": "x"}, False),
        (200, "not json", False),
        (200, [], False),
        (200, "[" * 100_000, False),
        (200, "gzip", False),
        (500, "gzip", False),
        (302, "", False),
    ],
    ids=range(15),
)
async def test_errors_say_whether_to_try_again(server: Pair, status: int, body: Any, *, permanent: bool) -> None:
    """A 4xx stays what it is, unless a person can mend it (key, plan, rights); everything else may pass."""
    pagerduty, client = server
    pagerduty.faults = [(status, body)]
    with pytest.raises(PagerDutyError) as raised:
        await client.notes("Q1")

    assert raised.value.permanent is permanent


async def test_a_lost_answer_is_not_asked_for_again_here(server: Pair) -> None:
    """The package would send the note a second time; whether it was written is for the caller to look up."""
    pagerduty, client = server
    pagerduty.faults = [(200, "cut")]
    with pytest.raises(PagerDutyError) as raised:
        await client.add_note("Q1", "verified", ALICE)

    assert raised.value.permanent is False
    assert len(pagerduty.wrote()) == 1


@pytest.mark.parametrize("odd", [7, "x", {"a": 1}, [7, None, "x"], None], ids=str)
async def test_odd_lists_are_empty(server: Pair, odd: Any) -> None:
    """What should be a list of objects and is not holds nothing."""
    pagerduty, client = server
    pagerduty.faults = [(200, {"notes": odd}), (200, {"alerts": odd})]

    assert await client.notes("Q1") == []
    assert await client.alerts("Q1") == []


async def test_rate_limits_end(server: Pair) -> None:
    """The package would retry a 429 without end; ours gives up and says that it may pass."""
    pagerduty, client = server
    pagerduty.faults = [(429, {"error": {"message": "Rate Limit Exceeded", "code": 2020}})] * 50
    with pytest.raises(PagerDutyError) as raised:
        await client.notes("Q1")

    assert raised.value.permanent is False
    assert len(pagerduty.calls) == 3


async def test_nobody_there() -> None:
    """A refused connection may pass; an address without TLS never will."""
    gone = PagerDutyClient("key", base_url="https://127.0.0.1:9", timeout_s=1)
    gone._rest.sleep_timer = 0.01
    with pytest.raises(PagerDutyError) as raised:
        await gone.notes("Q1")
    assert raised.value.permanent is False

    with pytest.raises(PagerDutyError, match="https://") as raised:
        PagerDutyClient("key", base_url="http://127.0.0.1:9")
    assert raised.value.permanent is True


@pytest.mark.parametrize("odd", ["", "Q1/../../users", "Q1?x", "Q 1", "Q1#", "ä", "Q1\x00"])
async def test_an_id_is_one_segment_of_a_path(server: Pair, odd: str) -> None:
    """No id, wherever it came from, can address another resource."""
    pagerduty, client = server
    with pytest.raises(PagerDutyError):
        await client.incident(odd)

    assert pagerduty.calls == []
