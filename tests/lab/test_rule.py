"""The alert rule and its pages: when it fires, when it calms down, and what PagerDuty is told."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response

from diagnostics.telemetry.model import Matrix, Query, Vector
from diagnostics.telemetry.recorder import Recorder
from lab.alert_rules import HIGH_TTFT
from lab.alertmanager import Alertmanager, event
from lab.conditions import MeanAboveBaseline
from lab.exposition import STEP
from lab.rule import Alert, Rule, RuleState
from tests.lab.played_worlds import CREDENTIALS, LIVE_START, new_world, prepared_world
from tests.real_prometheus import start_prometheus

RULE = Rule(name="Slow", condition=MeanAboveBaseline(metric="m", factor=1.4))
START = LIVE_START


class Pods:
    """Telemetry in which each pod's mean is what the test says, and the past was 1 s."""

    def __init__(self, **now: float) -> None:
        self.now_s = now
        self.asked: list[tuple[Query, datetime]] = []

    async def now(self) -> datetime:
        return START

    async def vector(self, query: Query, at: datetime) -> Vector:
        self.asked.append((query, at))
        if query.by == ("model_name",):
            return {("llama",): 1.0}
        counts = query.metric.endswith("_count")
        return {("llama", pod): 1.0 if counts else mean for pod, mean in self.now_s.items()}

    async def matrix(self, query: Query, start: datetime, end: datetime, step: timedelta) -> Matrix:
        raise AssertionError("a rule asks for instants only")

    async def exported(self, metric: str, at: datetime, where: Mapping[str, str] | None = None) -> bool:
        raise AssertionError("a rule asks for instants only")


async def firing(rule: RuleState, minute: float) -> list[str]:
    return [alert.labels["pod"] for alert in await rule.evaluate(START + timedelta(minutes=minute))]


async def test_an_alert_waits_for_its_for() -> None:
    """Above the threshold for less than five minutes is pending; only then it fires."""
    rule = RuleState(rule=RULE, telemetry=Pods(a=1.5, b=1.39))
    assert await firing(rule, 0) == []
    assert await firing(rule, 4.75) == []
    assert await firing(rule, 5) == ["a"]


async def test_a_short_dip_starts_the_wait_anew() -> None:
    """`for` means without interruption."""
    pods = Pods(a=1.5)
    rule = RuleState(rule=RULE, telemetry=pods)
    await firing(rule, 0)
    pods.now_s = {"a": 1.2}
    await firing(rule, 4)
    pods.now_s = {"a": 1.5}
    assert await firing(rule, 5) == []
    assert await firing(rule, 9.75) == []
    assert await firing(rule, 10) == ["a"]


async def test_a_firing_alert_calms_down_slowly() -> None:
    """It keeps firing for ten minutes after the last excess, and a relapse within them starts those anew."""
    pods = Pods(a=1.5)
    rule = RuleState(rule=RULE, telemetry=pods)
    for minute in (0, 5):
        await firing(rule, minute)
    pods.now_s = {"a": 1.0}
    assert await firing(rule, 6) == ["a"]
    pods.now_s = {"a": 1.5}
    assert await firing(rule, 7) == ["a"]
    pods.now_s = {"a": 1.0}
    assert await firing(rule, 8) == ["a"]
    assert await firing(rule, 17.75) == ["a"]
    assert await firing(rule, 18) == []


async def test_a_pod_without_data_is_no_excess() -> None:
    """Nothing observed is nothing to compare: no alert, and no division by zero."""
    rule = RuleState(rule=RULE, telemetry=Pods())
    assert await firing(rule, 0) == []
    assert await firing(rule, 6) == []


async def test_the_expression_asks_what_it_says() -> None:
    """Rates over 5 m by pod now, and over 6 h by model half an hour ago."""
    pods = Pods(a=1.0)
    await RuleState(rule=RULE, telemetry=pods).evaluate(START)
    asked = {(q.metric, q.by, q.window, at) for q, at in pods.asked}
    assert asked == {
        (f"m_{part}", by, window, at)
        for part in ("sum", "count")
        for by, window, at in (
            (("model_name", "pod"), timedelta(minutes=5), START),
            (("model_name",), timedelta(hours=6), START - timedelta(minutes=30)),
        )
    }


async def test_the_story_is_pending_when_the_drill_begins() -> None:
    """On the fleet's own history: nothing fires before the onset or for minutes after; pages arise live."""
    recorder = Recorder(clock="samples", history=prepared_world()._rule_history_path)
    await recorder.open()
    rule = RuleState(rule=HIGH_TTFT, telemetry=recorder)
    at = LIVE_START - timedelta(minutes=20)
    while at <= LIVE_START:
        assert await rule.evaluate(at) == []
        at += STEP
    assert len(await HIGH_TTFT.condition.exceeding(recorder, LIVE_START)) == 4


@pytest.mark.integration
async def test_prometheus_finds_the_same_excess() -> None:
    """The rule's expression in PromQL, asked of a real Prometheus over the same history, agrees pod by pod."""
    recorder = Recorder(clock="samples", history=prepared_world()._rule_history_path)
    await recorder.open()
    expression = HIGH_TTFT.condition.promql()
    with start_prometheus(prepared_world().history_path) as url:
        for minutes in (30, 3, 0):
            at = LIVE_START - timedelta(minutes=minutes)
            query: dict[str, str | float] = {"query": expression, "time": at.timestamp()}
            async with httpx.AsyncClient(trust_env=False) as prometheus:
                answer = (await prometheus.get(f"{url}/api/v1/query", params=query)).json()
            theirs = {row["metric"]["pod"]: float(row["value"][1]) for row in answer["data"]["result"]}
            found = await HIGH_TTFT.condition.exceeding(recorder, at)
            ours = {pod: excess.value for (_, pod), excess in found.items()}
            assert ours == pytest.approx(theirs, rel=0.01)
    assert len(ours) == 4


class Duty:
    """PagerDuty's Events API, remembering what came; `answers` are given in order, then 202."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.events: list[dict[str, Any]] = []

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        status = self.answers.pop(0) if self.answers else 202
        if status == 0:
            raise httpx.ConnectError("nobody there", request=request)
        if status == 202:
            self.events.append(json.loads(request.content))
        return httpx.Response(status, json={"status": "success"})


def alert(pod: str) -> Alert:
    labels = {"alertname": "LLMHighTTFT", "model_name": "llama", "pod": pod, "severity": "warning"}
    return Alert(labels=labels, annotations={"summary": f"{pod} is slow"}, starts_at=START)


def manager(duty: Duty) -> Alertmanager:
    return Alertmanager(client=duty.client(), url="http://events.lab/v2/enqueue", routing_key="R" * 32)


async def test_pods_are_told_of_together() -> None:
    """The group waits half a minute for company, then one page names both pods; nothing is said twice."""
    duty = Duty()
    pages = manager(duty)
    await pages.flush([alert("a")], START)
    await pages.flush([alert("a"), alert("b")], START + timedelta(seconds=15))
    assert duty.events == []
    for seconds in (30, 45, 300):
        await pages.flush([alert("a"), alert("b")], START + timedelta(seconds=seconds))
    [page] = duty.events
    assert page["event_action"] == "trigger"
    assert page["payload"]["custom_details"]["num_firing"] == "2"


async def test_a_pod_more_is_told_later_and_a_pod_less_is_not() -> None:
    """A grown group is worth another event, a shrunken one is not; an empty one resolves, with the same key."""
    duty = Duty()
    pages = manager(duty)
    for minute, pods in ((0, "a"), (1, "a"), (1.5, "ab"), (2, "ab"), (4, "a"), (6, ""), (8, "")):
        await pages.flush([alert(pod) for pod in pods], START + timedelta(minutes=minute))
    actions = [(e["event_action"], e["payload"]["custom_details"]["num_firing"]) for e in duty.events]
    assert actions == [("trigger", "1"), ("trigger", "2"), ("resolve", "0")]
    assert len({e["dedup_key"] for e in duty.events}) == 1


@pytest.mark.parametrize("trouble", [0, 429, 500])
async def test_a_page_that_did_not_arrive_is_sent_again(trouble: int) -> None:
    """PagerDuty may be away or busy; the page comes with the next flush."""
    duty = Duty(trouble)
    pages = manager(duty)
    for seconds in (0, 30, 45, 60):
        await pages.flush([alert("a")], START + timedelta(seconds=seconds))
    assert len(duty.events) == 1


async def test_an_invalid_page_is_not_repeated() -> None:
    """What PagerDuty calls invalid stays invalid."""
    duty = Duty(400)
    pages = manager(duty)
    for seconds in (0, 30, 45, 60):
        await pages.flush([alert("a")], START + timedelta(seconds=seconds))
    assert duty.events == []


def test_the_event_looks_like_alertmanagers() -> None:
    """All details are strings, labels stand in the text, and the summary holds what the alerts share."""
    body = event("R" * 32, [alert("a"), alert("b")], [])
    assert re.fullmatch(r"[0-9a-f]{64}", body["dedup_key"])
    assert (body["client"], body["payload"]["source"]) == ("Alertmanager", "Alertmanager")
    assert body["payload"]["summary"] == "[FIRING:2] LLMHighTTFT (llama warning)"
    details = body["payload"]["custom_details"]
    assert all(isinstance(value, str) for value in details.values())
    assert details["firing"].startswith("Labels:\n - alertname = LLMHighTTFT\n - model_name = llama\n - pod = a\n")
    assert "Annotations:\n - summary = a is slow\nSource: http" in details["firing"]
    assert event("R" * 32, [], [alert("a")])["payload"]["summary"] == "[RESOLVED] LLMHighTTFT (llama a warning)"


@pytest.mark.integration
async def test_a_drill_pages_and_ends_when_the_right_thing_is_changed(tmp_path: Path) -> None:
    """The whole world at 400 times: the telemetry pages, the wrong rollback heals nothing, the right one resolves."""
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    actions: list[str] = []
    app = FastAPI()

    @app.post("/v2/enqueue", status_code=202)
    async def enqueue(request: Request) -> Response:
        body = await request.json()
        actions.append(body["event_action"])
        events.put_nowait(body)
        return Response(status_code=202)

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    world = new_world(tmp_path, events_url=f"http://127.0.0.1:{port}/v2/enqueue", pace=400)
    await world.prepare()
    running = asyncio.create_task(world.run())
    try:
        async with asyncio.timeout(60):
            page = await events.get()
            lab_time = world.fleet.now - world.onset
            assert timedelta(minutes=8) <= lab_time <= timedelta(minutes=14)
            assert page["routing_key"] == CREDENTIALS.pagerduty_routing_key
            assert page["payload"]["summary"].startswith("[FIRING:")
            assert world.truth()["healed"] is False

            langfuse = httpx.AsyncClient(
                transport=httpx.ASGITransport(app=world.langfuse_app),
                base_url="http://langfuse.lab/api/public/v2/prompts",
                auth=httpx.BasicAuth(*CREDENTIALS.langfuse_write.split(":")),
            )
            production = {"newLabels": ["production"]}
            await langfuse.patch("/chat-summary/versions/3", json=production)
            await world.clock.sleep_until(world.fleet.now + timedelta(minutes=7))
            assert world.truth()["healed"] is False
            assert set(actions) == {"trigger"}

            await langfuse.patch("/chat-system/versions/7", json=production)
            assert world.truth()["healed"] is True
            while page["event_action"] != "resolve":
                page = await events.get()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        server.should_exit = True
        await serving
