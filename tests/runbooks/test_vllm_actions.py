"""LoRA adapters, the prefix cache and sleep, against a server that answers like vLLM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from runbooks.engine.actions import EngineAccess, build_actions
from runbooks.engine.plan import fresh, plan, undo_plan
from runbooks.engine.values import (
    Action,
    ActionError,
    CannotPlanError,
    Happened,
    OutcomeUnknownError,
    PatientAction,
    Tier,
)
from tests.runbooks.test_plan import CONTEXT, NOW, runbook
from tests.runbooks.vllm_server import KEY, VllmServer

pytestmark = pytest.mark.integration  # real HTTP

ENGINE = {"engine": "chat-0", "service": "chat"}
STEPS: dict[str, dict[str, Any]] = {
    "vllm.load_lora": {**ENGINE, "name": "sql", "path": "/adapters/sql-v7"},
    "vllm.unload_lora": {**ENGINE, "name": "old"},
    "vllm.reset_prefix_cache": ENGINE,
    "vllm.sleep": ENGINE,
    "vllm.wake_up": {**ENGINE, "engine": "chat-1"},
}
READ_BACK = [name for name in STEPS if name != "vllm.reset_prefix_cache"]


@pytest.fixture
async def awake() -> AsyncIterator[VllmServer]:
    server = VllmServer(adapters={"old": "/adapters/old-v1"})
    async with server.running():
        yield server


@pytest.fixture
async def asleep() -> AsyncIterator[VllmServer]:
    server = VllmServer(sleeping=True)
    async with server.running():
        yield server


def built(awake: VllmServer, asleep: VllmServer, **more: Any) -> dict[str, Action]:
    known: dict[str, Any] = {"services": ("chat",), "lora_paths": ("/adapters/[a-z0-9-]+",), "token": KEY} | more
    return build_actions(
        engines={"chat-0": EngineAccess(url=awake.url, **known), "chat-1": EngineAccess(url=asleep.url, **known)}
    )


@pytest.fixture
def actions(awake: VllmServer, asleep: VllmServer) -> dict[str, Action]:
    return built(awake, asleep)


def server_of(name: str, awake: VllmServer, asleep: VllmServer) -> VllmServer:
    return asleep if name == "vllm.wake_up" else awake


def params_of(action: Action, **more: Any) -> Any:
    return action.params.model_validate({**STEPS[action.name], **more})


async def test_an_adapter_is_loaded_and_taken_back(actions: dict[str, Action], awake: VllmServer) -> None:
    """As a plan and its undo, which is the other action; the path is in the sentence."""
    step = "action: vllm.load_lora\nwith: {engine: chat-0, name: sql, path: /adapters/sql-v7}\nundo: previous"
    made = await plan(runbook(step), CONTEXT, actions)
    load = actions["vllm.load_lora"]
    await load.act(params_of(load), made.steps[0].before, "t-1")

    assert made.steps[0].effect == "The engine chat-0 loads the LoRA adapter sql from /adapters/sql-v7."
    assert awake.adapters == {"old": "/adapters/old-v1", "sql": "/adapters/sql-v7"}
    assert awake.of("POST")[0].json == {"lora_name": "sql", "lora_path": "/adapters/sql-v7"}
    back = await undo_plan(made, [0], actions, now=NOW, policy_version="p")
    assert (back.steps[0].action, back.steps[0].tier) == ("vllm.unload_lora", Tier.R2)
    unload = actions["vllm.unload_lora"]
    await unload.act(unload.params.model_validate(back.steps[0].params), back.steps[0].before, "t-2")
    assert awake.adapters == {"old": "/adapters/old-v1"}


async def test_an_unloaded_adapter_comes_back_from_where_it_was(
    actions: dict[str, Action], awake: VllmServer, asleep: VllmServer
) -> None:
    """The undo loads exactly what was read; where the configuration does not allow that path there is none."""
    unload = actions["vllm.unload_lora"]
    params = params_of(unload)
    before = await unload.read(params)
    await unload.act(params, before, "t-1")

    assert awake.adapters == {}
    assert unload.undo(params, before) == {**ENGINE, "name": "old", "path": "/adapters/old-v1"}
    elsewhere = built(awake, asleep, lora_paths=("/other/.*",))["vllm.unload_lora"]
    assert elsewhere.undo(params, before) is None


async def test_an_engine_sleeps_and_is_woken_up(actions: dict[str, Action], awake: VllmServer) -> None:
    """Level 1, which it wakes up from by itself; the undo of either is the other."""
    for name, sleeps in (("vllm.sleep", True), ("vllm.wake_up", False)):
        action = actions[name]
        params = action.params.model_validate(ENGINE)
        before = await action.read(params)
        await action.act(params, before, "t-1")
        assert awake.sleeping is sleeps
        assert action.undo(params, before) == ENGINE
        assert action.undone_by == ("vllm.wake_up" if sleeps else "vllm.sleep")  # type: ignore[attr-defined]
        assert action.refusal(params, await action.read(params)) is not None  # type: ignore[attr-defined]
    assert awake.writes() == ["/sleep?level=1", "/wake_up"]


async def test_an_empty_cache_is_not_emptied(actions: dict[str, Action], awake: VllmServer) -> None:
    """The cache of an engine that is awake is; nothing takes that back, and nobody can tell later."""
    reset = actions["vllm.reset_prefix_cache"]
    params = params_of(reset)
    before = await reset.read(params)
    await reset.act(params, before, "t-1")

    assert awake.emptied == 1
    assert reset.undo(params, before) is None
    assert await reset.happened(params, before, "t-1") is Happened.CANNOT_TELL
    other = params_of(reset, engine="chat-1")
    assert "its cache is empty" in str(reset.refusal(other, await reset.read(other)))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("vllm.load_lora", {"path": "/etc/secrets"}, "does not allow /etc/secrets"),
        ("vllm.load_lora", {"path": "/adapters/sql-v7/deep"}, "does not allow"),
        ("vllm.load_lora", {"name": "chat"}, "is a model of this engine"),
        ("vllm.sleep", {"engine": "search-0"}, r"no engine search-0 \(it has: chat-0, chat-1\)"),
        ("vllm.sleep", {"service": "search"}, "serves chat and not search"),
    ],
)
async def test_what_is_not_allowed_is_not_planned(
    actions: dict[str, Action], awake: VllmServer, name: str, more: dict[str, str], words: str
) -> None:
    """A path that does not match as a whole, a model, an engine of nobody's or of another service."""
    with pytest.raises(ActionError, match=words):
        await actions[name].read(params_of(actions[name], **more))
    assert awake.writes() == []


async def test_a_runbook_cannot_name_another_service(actions: dict[str, Action]) -> None:
    """Its owners would not have been asked."""
    step = "action: vllm.sleep\nwith: {engine: chat-0, service: search}"
    with pytest.raises(CannotPlanError, match="the service search is not this plan's own, which is chat"):
        await plan(runbook(step), CONTEXT, actions)


async def test_a_loaded_name_is_not_loaded_over(actions: dict[str, Action], awake: VllmServer) -> None:
    """And one that is not loaded is not unloaded."""
    load, unload = actions["vllm.load_lora"], actions["vllm.unload_lora"]
    again, gone = params_of(load, name="old"), params_of(unload, name="gone")

    assert "from /adapters/old-v1" in str(load.refusal(again, await load.read(again)))  # type: ignore[attr-defined]
    assert unload.refusal(gone, await unload.read(gone)) == "gone is not loaded"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", STEPS)
async def test_a_world_that_moved_stops_it(
    actions: dict[str, Action], awake: VllmServer, asleep: VllmServer, name: str
) -> None:
    """Somebody did it, or the contrary, between the plan and its start."""
    action, server = actions[name], server_of(name, awake, asleep)
    book = ", ".join(f"{key}: {value}" for key, value in STEPS[name].items())
    made = await plan(runbook(f"action: {name}\nwith: {{{book}}}"), CONTEXT, actions)
    server.sleeping = not server.sleeping
    server.adapters = {"sql": "/adapters/elsewhere"}

    assert len(await fresh(made, actions)) == 1
    with pytest.raises(ActionError, match="nothing was changed"):
        await action.act(params_of(action), made.steps[0].before, "t-1")
    assert server.writes() == []


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("fault", [500, 408, "reset", "hang"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_in_doubt_and_the_probe_tells(
    awake: VllmServer, asleep: VllmServer, name: str, fault: int | str, when: str
) -> None:
    """One call, and then the engine itself is asked; only of its cache it says nothing."""
    action, server = built(awake, asleep, timeout_s=1.0 if fault == "hang" else 20.0)[name], None
    server = server_of(name, awake, asleep)
    params = params_of(action)
    before = await action.read(params)
    getattr(server.faults, when)["POST"] = fault
    with pytest.raises(OutcomeUnknownError):
        await action.act(params, before, "t-1")

    assert len(server.writes()) == 1
    told = (Happened.YES if when == "after" else Happened.NO) if name in READ_BACK else Happened.CANNOT_TELL
    assert await action.happened(params, before, "t-1") is told


@pytest.mark.parametrize("name", ["vllm.sleep", "vllm.wake_up"])
async def test_an_engine_that_answers_before_it_is_done_is_in_doubt(
    actions: dict[str, Action], awake: VllmServer, asleep: VllmServer, name: str
) -> None:
    """Some releases do; the probe, a little later, sees it."""
    action, server = actions[name], server_of(name, awake, asleep)
    server.slow = True
    params = params_of(action)
    before = await action.read(params)
    with pytest.raises(OutcomeUnknownError, match="took it"):
        await action.act(params, before, "t-1")
    server.sleeping = not server.sleeping

    assert await action.happened(params, before, "t-1") is Happened.YES


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("fault", [400, 403, 429, "redirect"])
async def test_a_refusal_changed_nothing(
    actions: dict[str, Action], awake: VllmServer, asleep: VllmServer, name: str, fault: int | str
) -> None:
    """4xx and redirects; one try."""
    action, server = actions[name], server_of(name, awake, asleep)
    params = params_of(action)
    before = await action.read(params)
    server.faults.before["POST"] = fault
    server.faults.elsewhere = f"{server.url}/reset_prefix_cache"
    with pytest.raises(ActionError, match="nothing was changed"):
        await action.act(params, before, "t-1")
    assert len(server.writes()) == 1


async def test_the_engines_own_words_are_told(actions: dict[str, Action]) -> None:
    """An adapter that is not where the runbook says."""
    load = actions["vllm.load_lora"]
    params = params_of(load, path="/adapters/missing")
    with pytest.raises(ActionError, match="No adapter found for /adapters/missing"):
        await load.act(params, await load.read(params), "t-1")


@pytest.mark.parametrize("name", STEPS)
async def test_what_cannot_be_read_is_a_refusal(
    actions: dict[str, Action], awake: VllmServer, asleep: VllmServer, name: str
) -> None:
    """A wrong key, an engine out of development mode, garbage: nothing is changed, and the probe cannot tell."""
    action, server = actions[name], server_of(name, awake, asleep)
    params = params_of(action)
    before = await action.read(params)
    for fault in (401, 404, 500, "garbage", "deep"):
        server.faults.before["GET"] = fault
        with pytest.raises(ActionError):
            await action.read(params)
        with pytest.raises(ActionError):
            await action.act(params, before, "t-1")
        assert await action.happened(params, before, "t-1") is Happened.CANNOT_TELL
    assert server.writes() == []


async def test_an_engine_out_of_development_mode_says_what_to_do(actions: dict[str, Action], awake: VllmServer) -> None:
    """Its admin API is off unless it was started for it."""
    awake.dev_mode = False
    with pytest.raises(ActionError, match="VLLM_SERVER_DEV_MODE=1"):
        await actions["vllm.sleep"].read(params_of(actions["vllm.sleep"]))


def test_they_wait_as_long_as_the_engine_may_take(actions: dict[str, Action]) -> None:
    """Loading and sleeping move gigabytes."""
    for name in STEPS:
        action = actions[name]
        assert isinstance(action, PatientAction)
        assert action.patience_s(params_of(action)) >= 60.0


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("vllm.load_lora", {"path": "/adapters/../etc"}),
        ("vllm.load_lora", {"path": "/adapters/sql\n"}),
        ("vllm.load_lora", {"path": ""}),
        ("vllm.load_lora", {"name": "a b"}),
        ("vllm.load_lora", {"name": "x\n"}),
        ("vllm.sleep", {"level": 2}),
        ("vllm.sleep", {"engine": "http://evil"}),
        ("vllm.wake_up", {"service": "a/b"}),
    ],
)
def test_parameters_match_whole_or_not_at_all(name: str, bad: dict[str, object]) -> None:
    """A level that drops the weights cannot even be said."""
    with pytest.raises(ValidationError):
        build_actions()[name].params.model_validate({**STEPS[name], **bad})
