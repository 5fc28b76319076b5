"""Weights, fallbacks and keys at a LiteLLM gateway, against the lab's strict stand-in over real HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from lab.gateway import ModelDeployment
from runbooks.engine.actions import LiteLLMAccess, build_actions
from runbooks.engine.actions.litellm import SetFallbacksParams, SetWeightParams
from runbooks.engine.actions.litellm_keys import BlockKeyParams, LimitKeyParams
from runbooks.engine.actions.litellm_proxy import LiteLLMProxy
from runbooks.engine.values import Action, ActionError, GuardedAction, Happened, OutcomeUnknownError, Tier, canonical
from tests.runbooks.litellm_server import ADMIN, READ, LiteLLMServer, litellm_server

pytestmark = pytest.mark.integration  # real HTTP

OUT = SetWeightParams(gateway="edge", deployment="overflow-openai", weight=0)
BACK_TO_OURS = SetFallbacksParams(gateway="edge", model_group="chat-overflow", fallbacks=("chat",))
LIMIT = LimitKeyParams(gateway="edge", key="key-tenant-04", tpm=400_000, rpm=120)
BLOCK = BlockKeyParams(gateway="edge", key="key-tenant-04")


def guarded(actions: dict[str, Action], name: str) -> GuardedAction:
    action = actions[name]
    assert isinstance(action, GuardedAction)
    return action


@pytest.fixture
def weigh(actions: dict[str, Action]) -> GuardedAction:
    return guarded(actions, "litellm.set_weight")


@pytest.fixture
def fall_back(actions: dict[str, Action]) -> GuardedAction:
    return guarded(actions, "litellm.set_fallbacks")


@pytest.fixture
def limit(actions: dict[str, Action]) -> GuardedAction:
    return guarded(actions, "litellm.limit_key")


@pytest.fixture
def block(actions: dict[str, Action]) -> GuardedAction:
    return guarded(actions, "litellm.block_key")


async def done(action: Action, params: Any) -> dict[str, Any]:
    """Read, act, and what was read."""
    before = dict(await action.read(params))
    await action.act(params, before, token="t-1")
    return before


# Weights


async def test_a_weight_changes_and_nothing_else(weigh: GuardedAction, gateway: LiteLLMServer) -> None:
    """One PATCH with the weight alone; the others keep theirs, and the token and our name are on the request."""
    before = await done(weigh, OUT)

    assert before["weight"] == 75
    assert {one.id: one.weight for one in gateway.gateway.deployments.values()} == {
        "chat-gpu-1": 10, "chat-gpu-2": 10, "overflow-openai": 0, "overflow-anthropic": 25, "large-openai": 10,
    }  # fmt: skip
    [patch] = gateway.of("PATCH")
    assert patch.path == "/model/overflow-openai/update"
    assert patch.json == {"litellm_params": {"weight": 0}}
    assert (patch.headers["x-request-id"], patch.headers["litellm-changed-by"]) == ("t-1", "watchkeeper")


async def test_the_effect_says_what_goes_where(weigh: GuardedAction) -> None:
    """Gateway, deployment, model, group, both weights; and that 0 means no request."""
    assert weigh.effect(OUT, await weigh.read(OUT)) == (
        "At the gateway edge, the weight of overflow-openai (openai/gpt-4.1-nano) in the model group chat-overflow "
        "goes from 75 to 0, so that it gets no more requests."
    )
    assert weigh.tier is Tier.R1


async def test_a_provider_names_its_only_deployment(weigh: GuardedAction, gateway: LiteLLMServer) -> None:
    """`openai` is enough while the model group has one deployment of it; the plan holds which one that is."""
    by_provider = OUT.model_copy(update={"deployment": "openai", "model_group": "chat-overflow"})
    before = await done(weigh, by_provider)

    assert before["deployment"] == "overflow-openai"
    assert gateway.gateway.deployments["overflow-openai"].weight == 0


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hosted_vllm", "2 deployments.*chat-gpu-1, chat-gpu-2"),
        ("openai", "2 deployments.*large-openai, overflow-openai"),
        ("mistral", "no deployment mistral"),
    ],
)
async def test_a_name_must_mean_one_deployment(weigh: GuardedAction, name: str, why: str) -> None:
    """None or several is no plan, and the message helps to choose."""
    with pytest.raises(ActionError, match=why):
        await weigh.read(OUT.model_copy(update={"deployment": name}))


async def test_the_last_weight_of_a_group_is_never_taken(weigh: GuardedAction, gateway: LiteLLMServer) -> None:
    """With every weight at 0 LiteLLM sends requests to all of them: the opposite of what was meant."""
    gateway.gateway.deployments["overflow-anthropic"].weight = None
    before = await weigh.read(OUT)
    assert "would have a weight left" in (weigh.refusal(OUT, before) or "")
    with pytest.raises(ActionError, match="would have a weight left"):
        await weigh.act(OUT, before, token="t")
    assert gateway.of("PATCH") == []


def test_one_plan_at_a_time_moves_a_gateways_weights(weigh: GuardedAction) -> None:
    """Two could take the last weights of a group together, each having seen the other's; and names are no locks."""
    names = ("openai", "overflow-openai", "anthropic")
    assert len({weigh.target(SetWeightParams(gateway="edge", deployment=name, weight=0)) for name in names}) == 1


async def test_the_first_weight_of_a_group_is_never_set(weigh: GuardedAction, gateway: LiteLLMServer) -> None:
    """As soon as one deployment has a weight, those without get nothing: it would draw every request."""
    for id_ in ("overflow-openai", "overflow-anthropic"):
        gateway.gateway.deployments[id_].weight = None
    some = OUT.model_copy(update={"weight": 5})
    assert "would draw every request" in (weigh.refusal(some, await weigh.read(some)) or "")


async def test_no_change_is_refused(weigh: GuardedAction) -> None:
    """The weight that it has already is no step."""
    same = OUT.model_copy(update={"weight": 75})
    assert "already" in (weigh.refusal(same, await weigh.read(same)) or "")


async def test_the_config_file_is_out_of_reach(weigh: GuardedAction, gateway: LiteLLMServer) -> None:
    """LiteLLM changes only deployments in its database: that is said when the plan is made, not when it runs."""
    gateway.gateway.deployments["overflow-openai"].in_database = False
    with pytest.raises(ActionError, match="config file"):
        await weigh.read(OUT)


async def test_who_came_first_wins(weigh: GuardedAction, gateway: LiteLLMServer) -> None:
    """The state is compared again right before the change."""
    before = await weigh.read(OUT)
    gateway.gateway.deployments["overflow-openai"].weight = 50
    with pytest.raises(ActionError, match="weight was 75 and is 50 by now: nothing was changed"):
        await weigh.act(OUT, before, token="t")
    assert gateway.of("PATCH") == []


async def test_a_weight_goes_back(weigh: GuardedAction, gateway: LiteLLMServer) -> None:
    """The undo is the same action with the weight that was read."""
    undo = weigh.undo(OUT, await done(weigh, OUT))
    assert undo is not None
    await done(weigh, weigh.params.model_validate(undo))
    assert gateway.gateway.deployments["overflow-openai"].weight == 75


# What can go wrong on the way; one action stands for all, since they share the way


@pytest.mark.parametrize("fault", [400, 401, 403, 404, 409, 422, 429, "redirect"])
async def test_a_refusal_changed_nothing(weigh: GuardedAction, gateway: LiteLLMServer, fault: int | str) -> None:
    """4xx and redirects are ActionError; nobody tries again or goes elsewhere."""
    before = await weigh.read(OUT)
    gateway.faults.before["PATCH"] = fault
    gateway.faults.elsewhere = f"{gateway.url}/model/overflow-anthropic/update"
    with pytest.raises(ActionError, match="nothing was changed"):
        await weigh.act(OUT, before, token="t")
    assert len(gateway.of("PATCH")) == 1
    assert await weigh.happened(OUT, before, "t") is Happened.NO


@pytest.mark.parametrize("fault", [500, 503, 408, "reset", "hang", "garbage", "gzip", "deep"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_looked_up(
    weigh: GuardedAction, gateway: LiteLLMServer, fault: int | str, when: str
) -> None:
    """Nobody knows by the answer, and nobody tries again; the probe then says whether it took place."""
    before = await weigh.read(OUT)
    getattr(gateway.faults, when)["PATCH"] = fault
    with pytest.raises(OutcomeUnknownError):
        await weigh.act(OUT, before, token="t")

    assert len(gateway.of("PATCH")) == 1
    happened = await weigh.happened(OUT, before, "t")
    assert happened is (Happened.YES if when == "after" else Happened.NO)


async def test_a_probe_that_sees_something_third_cannot_tell(weigh: GuardedAction, gateway: LiteLLMServer) -> None:
    """Neither the old weight nor the new one, or no answer at all: a person must look."""
    before = await weigh.read(OUT)
    gateway.gateway.deployments["overflow-openai"].weight = 1
    assert await weigh.happened(OUT, before, "t") is Happened.CANNOT_TELL
    gateway.faults.before["GET"] = 500
    assert await weigh.happened(OUT, before, "t") is Happened.CANNOT_TELL


async def test_a_replica_that_lags_behind_is_not_believed(weigh: GuardedAction, gateway: LiteLLMServer) -> None:
    """Half a minute long another replica still tells the old weight: one that knows the new one is enough."""
    before = await weigh.read(OUT)
    gateway.faults.after["PATCH"] = "reset"
    with pytest.raises(OutcomeUnknownError):
        await weigh.act(OUT, before, token="t")
    gateway.stale = litellm_server().api
    assert await weigh.happened(OUT, before, "t") is Happened.YES


async def test_litellms_own_words_reach_the_person(gateway: LiteLLMServer) -> None:
    """A refusal that says why is worth showing."""
    proxy = LiteLLMProxy(LiteLLMAccess(url=gateway.url, key=ADMIN, timeout_s=1.5))
    with pytest.raises(ActionError, match=r"HTTP 404 \(Model nobody not found on proxy\.\)"):
        await proxy.set_weight("nobody", 1, token="t")


async def test_a_key_that_only_looks_changes_nothing() -> None:
    """The wrong credential is 403 and stays out of every message."""
    server = litellm_server()  # not the fixture's: this is the violation that it forbids
    async with server.running():
        actions = build_actions(gateways={"edge": LiteLLMAccess(url=server.url, key=READ, timeout_s=1.5)})
        weigh = actions["litellm.set_weight"]
        with pytest.raises(ActionError, match="HTTP 403: nothing was changed") as refused:
            await weigh.act(OUT, await weigh.read(OUT), token="t")
    assert READ not in str(refused.value)
    assert [one["path"] for one in server.api.violations] == ["/model/overflow-openai/update"]


async def test_a_key_of_nobody_reads_nothing(gateway: LiteLLMServer) -> None:
    """401 is an error of reading, and the key stays out of it."""
    actions = build_actions(gateways={"edge": LiteLLMAccess(url=gateway.url, key="sk-wrong", timeout_s=1.5)})
    with pytest.raises(ActionError, match="HTTP 401") as refused:
        await actions["litellm.set_weight"].read(OUT)
    assert "sk-wrong" not in str(refused.value)
    assert "sk-wrong" not in repr(LiteLLMAccess(url=gateway.url, key="sk-wrong"))


async def test_a_gateway_without_access_is_named() -> None:
    """The action exists everywhere; what is missing is said when it is asked."""
    with pytest.raises(ActionError, match="the gateway edge has no `action_credential`"):
        await build_actions()["litellm.limit_key"].read(LIMIT)


@pytest.mark.parametrize("name", ["", "../v1", "a/../b", "a//b", "x\n", "a?b", "a#b", "ünï", "a" * 201, "{x}", "-a"])
def test_names_that_are_none_never_travel(name: str) -> None:
    """Paths, queries, control characters: refused before anything is sent."""
    for model, rest in (
        (SetWeightParams, {"deployment": name, "weight": 1}),
        (SetFallbacksParams, {"model_group": name, "fallbacks": ["chat"]}),
        (SetFallbacksParams, {"model_group": "chat", "fallbacks": [name]}),
        (LimitKeyParams, {"key": name, "tpm": 1, "rpm": 1}),
        (BlockKeyParams, {"key": name}),
    ):
        with pytest.raises(ValidationError):
            model.model_validate({"gateway": "edge", **rest})


async def test_a_name_with_a_slash_is_one_path_segment(weigh: GuardedAction, gateway: LiteLLMServer) -> None:
    """Ids may hold slashes and blanks; they travel escaped and mean nothing else."""
    openai = gateway.gateway.deployments["overflow-openai"]
    gateway.gateway.deployments["team a/x"] = ModelDeployment(
        id="team a/x", group=openai.group, provider="azure", model="gpt", api_base="https://x.example", weight=5
    )
    params = OUT.model_copy(update={"deployment": "team a/x"})
    before = await weigh.read(params)
    with pytest.raises(ActionError):  # LiteLLM's own route does not match an escaped slash either
        await weigh.act(params, before, token="t")
    assert gateway.of("PATCH")[0].path == "/model/team%20a%2Fx/update"
    gateway.api.violations.clear()


# Fallbacks


async def test_fallbacks_are_set_and_taken_away_again(fall_back: GuardedAction, gateway: LiteLLMServer) -> None:
    """From none to one by POST, back to none by DELETE: LiteLLM refuses an empty list."""
    before = await done(fall_back, BACK_TO_OURS)
    assert before == {"fallbacks": []}
    assert gateway.gateway.fallbacks == {"chat-overflow": ["chat"]}

    undo = fall_back.undo(BACK_TO_OURS, before)
    await done(fall_back, fall_back.params.model_validate(undo))
    assert gateway.gateway.fallbacks == {}
    assert [one.path for one in gateway.of("DELETE")] == ["/fallback/chat-overflow?fallback_type=general"]


async def test_former_fallbacks_come_back_in_their_order(fall_back: GuardedAction, gateway: LiteLLMServer) -> None:
    """The order is the order of preference."""
    gateway.gateway.deployments["third"] = replace(
        gateway.gateway.deployments["overflow-openai"], id="third", group="x"
    )
    gateway.gateway.fallbacks["chat-overflow"] = ["x", "chat"]
    before = await done(fall_back, BACK_TO_OURS)
    assert "go on to chat (before: x, chat)" in fall_back.effect(BACK_TO_OURS, before)

    await done(fall_back, fall_back.params.model_validate(fall_back.undo(BACK_TO_OURS, before)))
    assert gateway.gateway.fallbacks["chat-overflow"] == ["x", "chat"]


async def test_fallbacks_that_are_set_already_are_no_obstacle(fall_back: GuardedAction) -> None:
    """A plan of two steps must not fail since somebody did the first one; the sentence says so."""
    before = await done(fall_back, BACK_TO_OURS)
    again = await fall_back.read(BACK_TO_OURS)
    assert before != again
    assert fall_back.refusal(BACK_TO_OURS, again) is None
    assert "as they do already" in fall_back.effect(BACK_TO_OURS, again)
    await fall_back.act(BACK_TO_OURS, again, token="t")


async def test_groups_must_exist(fall_back: GuardedAction) -> None:
    """Both the group and those to fall back on, when the plan is made."""
    with pytest.raises(ActionError, match="no model group chat-huge"):
        await fall_back.read(BACK_TO_OURS.model_copy(update={"fallbacks": ("chat", "chat-huge")}))
    with pytest.raises(ActionError, match="no model group elsewhere"):
        await fall_back.read(BACK_TO_OURS.model_copy(update={"model_group": "elsewhere"}))


def test_a_group_is_never_its_own_fallback(fall_back: GuardedAction) -> None:
    """LiteLLM would refuse it, too, but after the approval."""
    own = BACK_TO_OURS.model_copy(update={"fallbacks": ("chat-overflow",)})
    assert "its own fallback" in (fall_back.refusal(own, {"fallbacks": []}) or "")


def test_a_list_may_be_a_text() -> None:
    """A placeholder stands only in a text, so names with commas between them are a list."""
    read = SetFallbacksParams.model_validate({"gateway": "edge", "model_group": "a", "fallbacks": "chat, x"})
    assert read.fallbacks == ("chat", "x")
    with pytest.raises(ValidationError, match="twice"):
        SetFallbacksParams.model_validate({"gateway": "edge", "model_group": "a", "fallbacks": "x, x"})


async def test_an_old_litellm_is_not_one_without_fallbacks(gateway: LiteLLMServer) -> None:
    """Both answer 404; to take a missing path for an empty list would make a wrong undo."""
    gateway.faults.before["GET"] = 404
    proxy = LiteLLMProxy(LiteLLMAccess(url=gateway.url, key=ADMIN, timeout_s=1.5))
    with pytest.raises(ActionError, match="no /fallback endpoint"):
        await proxy.fallbacks("chat")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_lost_fallbacks_are_looked_up(fall_back: GuardedAction, gateway: LiteLLMServer, when: str) -> None:
    """The probe reads them back."""
    before = await fall_back.read(BACK_TO_OURS)
    getattr(gateway.faults, when)["POST"] = "reset"
    with pytest.raises(OutcomeUnknownError):
        await fall_back.act(BACK_TO_OURS, before, token="t")
    expected = Happened.YES if when == "after" else Happened.NO
    assert await fall_back.happened(BACK_TO_OURS, before, "t") is expected


# Keys


async def test_a_key_is_limited_by_its_hash(limit: GuardedAction, gateway: LiteLLMServer) -> None:
    """The alias becomes the hash on the wire, and only there."""
    key = gateway.gateway.key("key-tenant-04")
    before = await done(limit, LIMIT)

    assert (key.tpm_limit, key.rpm_limit) == (400_000, 120)
    [post] = gateway.of("POST")
    assert (post.path, post.json) == ("/key/update", {"key": key.token, "tpm_limit": 400_000, "rpm_limit": 120})
    shown = canonical(before).decode() + limit.effect(LIMIT, before) + str(limit.undo(LIMIT, before))
    assert key.token not in shown
    assert f"hash {key.token[:12]}..." in shown
    assert "gets a limit of 400000 tokens and 120 requests per minute (before: no limit)" in shown
    assert limit.undo(LIMIT, before) == {"gateway": "edge", "key": "key-tenant-04", "tpm": "none", "rpm": "none"}


def test_a_limit_above_the_present_one_says_so(limit: GuardedAction) -> None:
    """It stands in a runbook and knows nothing of the key's own; the approver reads that it would hold back less."""
    for now, lets_more in ((("none", "none"), False), ((400_000, 120), False), ((100_000, 500), True)):
        effect = limit.effect(LIMIT, {"hash": "abc", "tpm": now[0], "rpm": now[1]})
        assert effect.endswith("lets more of it through than now.") is lets_more


async def test_limits_go_back_to_none(limit: GuardedAction, gateway: LiteLLMServer) -> None:
    """No limit is an explicit null, which LiteLLM takes for one; a missing field would change nothing."""
    before = await done(limit, LIMIT)
    await done(limit, limit.params.model_validate(limit.undo(LIMIT, before)))
    key = gateway.gateway.key("key-tenant-04")
    assert (key.tpm_limit, key.rpm_limit) == (None, None)
    assert gateway.of("POST")[-1].json == {"key": key.token, "tpm_limit": None, "rpm_limit": None}


async def test_an_alias_must_mean_one_key(limit: GuardedAction, gateway: LiteLLMServer) -> None:
    """Nobody and two are both no key; a longer alias that begins alike is somebody else."""
    with pytest.raises(ActionError, match="no API key with the alias key-tenant-0"):
        await limit.read(LIMIT.model_copy(update={"key": "key-tenant-0"}))
    gateway.gateway.key("key-tenant-05").alias = "key-tenant-04"
    with pytest.raises(ActionError, match="more than one API key"):
        await limit.read(LIMIT)


@pytest.mark.parametrize("name", ["litellm.limit_key", "litellm.block_key"])
async def test_another_key_of_the_same_alias_is_left_alone(
    actions: dict[str, Action], gateway: LiteLLMServer, name: str
) -> None:
    """Between plan and approval a key may be re-issued: the plan meant the old one."""
    action, params = actions[name], LIMIT if name == "litellm.limit_key" else BLOCK
    before = await action.read(params)
    gateway.gateway.key("key-tenant-04").alias = "retired"
    gateway.gateway.key("key-tenant-07").alias = "key-tenant-04"
    with pytest.raises(ActionError, match="names another key by now"):
        await action.act(params, before, token="t")
    assert gateway.of("POST") == []
    assert await action.happened(params, before, "t") is Happened.CANNOT_TELL


@pytest.mark.parametrize("key", ["sk-1234567890abcdef", "sk-x"])
def test_a_key_itself_is_refused_without_repeating_it(key: str) -> None:
    """Whoever writes the key where the alias belongs is told so, in a message that can be shown."""
    with pytest.raises(ValidationError) as refused:
        LimitKeyParams.model_validate({"gateway": "edge", "key": key, "tpm": 1, "rpm": 1})
    [fault] = refused.value.errors(include_url=False, include_input=False)
    assert "rotate it" in fault["msg"]
    assert key not in str(fault)


@pytest.mark.parametrize("wrong", [{"tpm": 0}, {"rpm": -1}, {"tpm": 1.5}, {"tpm": True}, {"tpm": "many"}])
def test_limits_are_whole_and_above_zero(wrong: dict[str, Any]) -> None:
    """0 would be a block, which needs the approval of a block."""
    with pytest.raises(ValidationError):
        LimitKeyParams.model_validate({"gateway": "edge", "key": "a", "tpm": 1, "rpm": 1, **wrong})


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["litellm.limit_key", "litellm.block_key"])
async def test_a_lost_answer_about_a_key_is_looked_up(
    actions: dict[str, Action], gateway: LiteLLMServer, name: str, when: str
) -> None:
    """The probe reads the key's row."""
    action, params = actions[name], LIMIT if name == "litellm.limit_key" else BLOCK
    before = await action.read(params)
    getattr(gateway.faults, when)["POST"] = 502
    with pytest.raises(OutcomeUnknownError):
        await action.act(params, before, token="t")
    assert await action.happened(params, before, "t") is (Happened.YES if when == "after" else Happened.NO)


async def test_a_key_is_blocked_and_let_in_again(block: GuardedAction, gateway: LiteLLMServer) -> None:
    """R2, since all of its requests are lost meanwhile; the undo unblocks."""
    key = gateway.gateway.key("key-tenant-04")
    before = await done(block, BLOCK)
    assert key.blocked
    assert block.tier is Tier.R2
    assert "is blocked: all of its requests are refused" in block.effect(BLOCK, before)

    await done(block, block.params.model_validate(block.undo(BLOCK, before)))
    assert not key.blocked
    assert [one.path for one in gateway.of("POST")] == ["/key/block", "/key/unblock"]


async def test_a_blocked_key_is_not_blocked_twice(block: GuardedAction) -> None:
    """Somebody was quicker: there is nothing to approve."""
    await done(block, BLOCK)
    assert "blocked already" in (block.refusal(BLOCK, await block.read(BLOCK)) or "")
