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
    log: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "R1", "type": "trigger_log_entry"}])
    raced: list[dict[str, Any]] = field(default_factory=list)  # what others did just before the next write
    open: int = 0
    queries: list[Any] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

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
            text = body if isinstance(body, str) else json.dumps(body)
            return web.Response(status=status, text=text, headers=self.headers)
        return web.json_response(self._found(request))

    def _found(self, request: web.Request) -> dict[str, Any]:
        if request.path.endswith("/alerts"):
            start = int(request.query["offset"])
            page = self.alerts[start : start + int(request.query["limit"])]
            return {"alerts": page, "more": start + len(page) < len(self.alerts)}
        if request.path == "/incidents":
            self.queries.append(request.query)
            rows = [{"id": f"Q{number}"} for number in range(self.open)]
            start = int(request.query["offset"])
            return {"incidents": rows[start : start + 100], "more": start + 100 < self.open}
        return self._of_incident(request)

    def _of_incident(self, request: web.Request) -> dict[str, Any]:
        if request.path.endswith("/log_entries"):
            return {"log_entries": self.log, "more": True}
        if request.path.endswith("/notes"):
            if request.method == "POST":
                self.notes.append(self.calls[-1][3]["note"]["content"])
            return {"notes": [{"content": note} for note in self.notes], "note": {}}
        if request.method == "PUT":
            self.status = self.calls[-1][3]["incident"]["status"]
            self.log = [*self.raced, *self.log]
        return {"incident": {"id": "Q1", "status": self.status}}

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
    client = PagerDutyClient("key", base_url=f"https://127.0.0.1:{runner.addresses[0][1]}", timeout_s=2, pause_s=0.01)
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


async def test_whoever_resolves_it_in_the_same_moment_is_obeyed(server: Pair) -> None:
    """Between our reading and our writing somebody resolved it, and the write re-opened it: it is resolved again."""
    pagerduty, client = server
    pagerduty.raced = [{"id": "R2", "type": "resolve_log_entry"}]

    assert await client.acknowledge("Q1", ALICE) == "resolved"
    assert [body["incident"]["status"] for _, _, body in pagerduty.wrote()] == ["acknowledged", "resolved"]


async def test_an_earlier_resolution_is_no_race(server: Pair) -> None:
    """An incident that was re-opened has one in its log."""
    pagerduty, client = server
    pagerduty.log = [{"id": "R2", "type": "resolve_log_entry"}]

    assert await client.acknowledge("Q1", ALICE) == "acknowledged"
    assert pagerduty.status == "acknowledged"


async def test_a_key_that_may_not_read_the_log_may_acknowledge(server: Pair) -> None:
    """The look for a race is a courtesy."""
    pagerduty, client = server
    pagerduty.faults = [(403, {})]

    assert await client.acknowledge("Q1", ALICE) == "acknowledged"


async def test_open_incidents_are_paged(server: Pair) -> None:
    """All of them, not those of the last month only, which is PagerDuty's default."""
    pagerduty, client = server
    pagerduty.open = 250
    found = await client.open_incidents(["PCHAT01", "PDOCS01"])

    assert len({each["id"] for each in found}) == 250
    first = pagerduty.queries[0]
    assert first.getall("statuses[]") == ["triggered", "acknowledged"]
    assert first.getall("service_ids[]") == ["PCHAT01", "PDOCS01"]
    assert first["date_range"] == "all"


async def test_a_limit_says_how_long_it_lasts(server: Pair) -> None:
    """A second is waited for; a minute is the caller's to plan with."""
    pagerduty, client = server
    pagerduty.headers = {"ratelimit-limit": "960", "ratelimit-remaining": "0", "ratelimit-reset": "0"}
    pagerduty.faults = [(429, {})]
    assert await client.notes("Q1") == []

    pagerduty.headers["ratelimit-reset"] = "41"
    pagerduty.faults = [(429, {})]
    with pytest.raises(PagerDutyError) as raised:
        await client.notes("Q1")

    assert (raised.value.retry_after, raised.value.permanent) == (41.0, False)
    assert client.share_left == 0.0
    assert len(pagerduty.calls) == 3


@pytest.mark.parametrize("odd", ["", "-1", "nan", "²", "soon"])
async def test_odd_limits_say_nothing(server: Pair, odd: str) -> None:
    """The header is a hint; without it there is no limit that we know."""
    pagerduty, client = server
    pagerduty.headers = dict.fromkeys(("ratelimit-limit", "ratelimit-remaining"), odd)
    pagerduty.faults = [(200, {"notes": []})]
    await client.notes("Q1")

    assert client.share_left == 1.0


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
