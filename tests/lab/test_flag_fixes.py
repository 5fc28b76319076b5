"""What flags do to the simulated fleet, switched by the product's own action: the right one heals, others do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from diagnostics.changes.flags import LaunchDarklyFlags
from diagnostics.target import Target
from lab.gateway import OwnAccord
from lab.launchdarkly import ENVIRONMENT, PROJECT, LaunchDarklyApi
from lab.listening import listening, local_client, new_socket
from lab.switches import Switches
from lab.tools import USUAL_ERRORS
from runbooks.engine.actions import FlagAccess, build_actions
from tests.lab.mended_worlds import BrokenWorld, carry_out

pytestmark = pytest.mark.integration  # real HTTP

READ, WRITE = "api-reads", "api-writes"


class Flagged(BrokenWorld):
    """A broken world with its flags behind a port."""

    def __init__(self, id_: str, **how: Any) -> None:
        super().__init__(id_, **how)
        self.switches = Switches(stage=self.stage)
        self.api = LaunchDarklyApi(
            switches=self.switches, now=lambda: self.small.fleet.now, read_token=READ, write_token=WRITE
        )
        self.break_it()
        self.switches.observe(self.small.fleet.now)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        async with listening(self.api.app(), new_socket()) as url:
            yield url


async def switch(url: str, flag: str, *, on: bool = False) -> None:
    access = FlagAccess(
        kind="launchdarkly", url=url, authorization=WRITE, project=PROJECT, environment=ENVIRONMENT, flags=()
    )
    await carry_out(build_actions(flags={"flags": access})["flag.set"], flag=flag, on=on)


def _prompt(world: Flagged) -> float:
    return world.growth().mean("vllm:request_prompt_tokens")


def _cut(world: Flagged) -> float:
    return world.growth().share("llm_app_responses_total", {"outcome": "truncated"})


def _hit(world: Flagged) -> float:
    grown = world.growth()
    return grown.of("vllm:prefix_cache_hits_total") / grown.of("vllm:prefix_cache_queries_total")


def _retries(world: Flagged) -> float:
    return world.growth().signals()["retry"]


def _refused(world: Flagged) -> float:
    return world.growth().share("llm_app_requests_total", {"status": "4xx"}, route="chat")


def _writes(world: Flagged) -> float:
    grown = world.growth()
    return grown.of("llm_app_tool_calls_total", verb="write") / grown.of("llm_app_requests_total")


def _tool_errors(world: Flagged) -> float:
    return world.growth().share("llm_app_tool_calls_total", {"outcome": "error"})


CASES: list[tuple[str, dict[str, Any], str, str, Callable[[Flagged], float], Callable[[float], bool]]] = [
    ("S02", {"tenant": ""}, "chat-more-passages", "tool-calendar", _prompt, lambda tokens: tokens < 3400),
    ("S04", {"is_salted": True, "kept": 0.1}, "chat-cache-salt", "tool-calendar", _hit, lambda hit: hit > 0.3),
    ("Q05", {}, "chat-short-answers", "agent-writes-support", _cut, lambda cut: cut < 0.06),
    ("I10", {"is_by_flag": True}, "chat-quick-retries", "tool-calendar", _retries, lambda tries: tries < 1.3),
    ("I12", {"kind": "flag"}, "chat-whole-documents", "tool-calendar", _refused, lambda share: share < 0.03),
    (
        "I08", {"tool": "search_orders"}, "tool-search_orders", "tool-calendar", _tool_errors,
        lambda errors: errors < 3 * USUAL_ERRORS,
    ),
    (
        "X06", {"agent": "support", "change": None}, "agent-writes-support", "agent-writes-planner", _writes,
        lambda writes: writes < 0.2,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("id_", "how", "right", "wrong", "reading", "is_well"), CASES, ids=[case[0] for case in CASES])
async def test_the_right_flag_heals_and_another_does_not(
    id_: str,
    how: dict[str, Any],
    right: str,
    wrong: str,
    reading: Callable[[Flagged], float],
    is_well: Callable[[float], bool],
) -> None:
    """The telemetry follows; a flag that has nothing to do with it leaves everything as it was."""
    world = Flagged(id_, **how)
    async with world.served() as url:
        assert not is_well(reading(world))
        await switch(url, wrong, on=not world.switches.is_on(wrong))
        assert not is_well(reading(world))
        await switch(url, right)
        world.small.pass_time(timedelta(minutes=1))
        assert is_well(reading(world))
    assert world.api.violations == []


@pytest.mark.parametrize(("id_", "how", "flag"), [
    ("S02", {"tenant": "tenant-02"}, "chat-more-passages"),
    ("I10", {"is_by_flag": False}, "chat-quick-retries"),
    ("I12", {"kind": "config"}, "chat-whole-documents"),
])  # fmt: skip
async def test_what_no_flag_did_no_flag_takes_back(id_: str, how: dict[str, Any], flag: str) -> None:
    """The same trouble by other ways: the flag is off, so that the action refuses."""
    world = Flagged(id_, **how)
    async with world.served() as url:
        with pytest.raises(AssertionError, match="off already"):
            await switch(url, flag)


async def test_an_undo_brings_the_trouble_back() -> None:
    """The flag on again has the value that it had, and the agent goes on with its work."""
    world = Flagged("X06", agent="support", change=None)
    jobs = list(world.stage.gateway.jobs)
    async with world.served() as url:
        await switch(url, "agent-writes-support")
        assert not [job for job in world.stage.gateway.jobs if isinstance(job, OwnAccord)]
        await switch(url, "agent-writes-support", on=True)
    assert world.stage.gateway.jobs == jobs
    limited = Flagged("Q05", max_tokens=200)
    async with limited.served() as url:
        await switch(url, "chat-short-answers")
        assert limited.stage.flags.max_tokens == 1024
        await switch(url, "chat-short-answers", on=True)
    assert limited.stage.flags.max_tokens == 200


async def test_the_audit_log_names_who_switched_it() -> None:
    """Read by the product's own source of changes: the team's flag at its onset, then our switch."""
    world = Flagged("Q05")
    async with world.served() as url, httpx.AsyncClient(base_url=url, headers={"Authorization": READ}) as client:
        await switch(url, "chat-short-answers")
        source = LaunchDarklyFlags(name="flags", url=url, client=client, project=PROJECT, environment=ENVIRONMENT)
        now = world.small.fleet.now
        told = await source.changes(Target(service="chat"), now - timedelta(hours=1), now + timedelta(seconds=1))
    assert [(each.author, each.summary.partition(" (")[0]) for each in told] == [
        ("frank", "flag chat-short-answers: turned on the flag"),
        ("watchkeeper", "flag chat-short-answers: turned off the flag"),
    ]
    assert told[0].at == world.stage.log[-1].at


async def test_it_refuses_what_launchdarkly_refuses() -> None:
    """A reader may not patch, nobody may patch in another form; each refusal is remembered."""
    world = Flagged("Q05")
    flag = f"/api/v2/flags/{PROJECT}/chat-short-answers"
    patch = {"environmentKey": "production", "instructions": [{"kind": "turnFlagOff"}]}
    semantic = {"content-type": "application/json; domain-model=launchdarkly.semanticpatch"}
    async with world.served() as url, local_client(base_url=url) as client:
        for authorization, headers, body, status in (
            ("api-nobody", semantic, patch, 401),
            (READ, semantic, patch, 403),
            (WRITE, {}, patch, 400),
            (WRITE, semantic, {**patch, "instructions": [{"kind": "archiveFlag"}]}, 400),
            (WRITE, semantic, {**patch, "force": True}, 400),
        ):
            sent = {"Authorization": authorization, **headers}
            assert (await client.patch(flag, json=body, headers=sent)).status_code == status
        unknown = f"/api/v2/flags/{PROJECT}/chat-nobody"
        assert (await client.get(unknown, headers={"Authorization": READ})).status_code == 404
        assert (await client.delete(flag, headers={"Authorization": WRITE})).status_code == 404
    assert world.switches.is_on("chat-short-answers")
    assert len(world.api.violations) == 5
