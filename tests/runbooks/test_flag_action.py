"""Switching a feature flag, against servers that behave like LaunchDarkly and Unleash."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

import pytest
from pydantic import ValidationError

from runbooks.engine.actions import FlagAccess, build_actions
from runbooks.engine.actions.flags import SetFlag, SetFlagParams
from runbooks.engine.values import ActionError, Happened, OutcomeUnknownError, Tier
from tests.runbooks.flag_servers import TOKEN, FlagServer, LaunchDarkly, Unleash

pytestmark = pytest.mark.integration  # real HTTP

OFF = SetFlagParams(flag="chat-new-prompt", on=False)
FLAGS = {"chat-new-prompt": True, "chat-spare": False}


@pytest.fixture
async def launchdarkly() -> AsyncIterator[LaunchDarkly]:
    server = LaunchDarkly(flags=dict(FLAGS), versions={"chat-new-prompt": 4})
    async with server.running():
        yield server


@pytest.fixture
async def unleash() -> AsyncIterator[Unleash]:
    server = Unleash(flags=dict(FLAGS), strategies={"chat-new-prompt": [False, True]})
    async with server.running():
        yield server


@pytest.fixture(params=["launchdarkly", "unleash"])
def server(request: pytest.FixtureRequest) -> FlagServer:
    found: FlagServer = request.getfixturevalue(request.param)
    return found


def on(server: FlagServer, *patterns: str) -> SetFlag:
    return SetFlag({"flags": access_to(server, *patterns)})


def access_to(server: FlagServer, *patterns: str) -> FlagAccess:
    kind: Literal["launchdarkly", "unleash"] = "launchdarkly" if isinstance(server, LaunchDarkly) else "unleash"
    return FlagAccess(
        kind=kind,
        url=server.url,
        authorization=TOKEN,
        project="default",
        environment="production",
        flags=patterns,
        timeout_s=1.5,
    )


async def test_the_flag_is_switched_in_its_environment(server: FlagServer) -> None:
    """One request with our token; the other flag stays."""
    action = on(server)
    before = await action.read(OFF)
    assert action.refusal(OFF, before) is None
    assert await action.act(OFF, before, token="t-1") == {"on": False}

    assert before["on"] is True
    assert server.flags == {"chat-new-prompt": False, "chat-spare": False}
    [change] = server.changes
    assert change.headers["x-request-id"] == "t-1"
    assert action.tier is Tier.R1


async def test_the_effect_names_place_and_both_states(launchdarkly: LaunchDarkly) -> None:
    """Who approves sees which environment of which project changes, and from what to what."""
    action = on(launchdarkly)
    assert action.effect(OFF, await action.read(OFF)) == (
        "In LaunchDarkly, the flag chat-new-prompt of the project default is turned off in the environment production "
        "(before: on)."
    )
    assert action.target(OFF) == "flag/default/production/chat-new-prompt"


async def test_launchdarkly_gets_a_semantic_patch(launchdarkly: LaunchDarkly) -> None:
    """One instruction for one environment, with a comment by which its audit log finds us."""
    action = on(launchdarkly)
    await action.act(OFF, await action.read(OFF), token="t-1")

    assert launchdarkly.changes[0].json == {
        "environmentKey": "production",
        "instructions": [{"kind": "turnFlagOff"}],
        "comment": "Watchkeeper t-1",
    }


async def test_undo_restores_what_was(server: FlagServer) -> None:
    """Back on, by the same action."""
    action = on(server)
    before = await action.read(OFF)
    await action.act(OFF, before, token="t-1")
    back = SetFlagParams.model_validate(action.undo(OFF, before))
    await action.act(back, await action.read(back), token="t-2")

    assert server.flags == FLAGS


async def test_what_would_change_nothing_or_too_much_is_refused(launchdarkly: LaunchDarkly, unleash: Unleash) -> None:
    """A state that is there already, an archived flag, and one that Unleash would open for everybody."""
    spare = SetFlagParams(flag="chat-spare", on=False)
    action = on(launchdarkly)
    assert "off already" in (action.refusal(spare, await action.read(spare)) or "")
    launchdarkly.archived.add("chat-new-prompt")
    assert "archived" in (action.refusal(OFF, await action.read(OFF)) or "")

    action = on(unleash)
    opened = SetFlagParams(flag="chat-spare", on=True)
    unleash.strategies["chat-spare"] = [True, True]
    before = await action.read(opened)
    assert "no active strategy" in (action.refusal(opened, before) or "")
    with pytest.raises(ActionError, match="no active strategy"):
        await action.act(opened, before, token="t")
    assert unleash.changes == []


async def test_a_flag_that_was_on_without_a_strategy_has_no_undo(unleash: Unleash) -> None:
    """Turning it on again would not restore it, so the plan does not offer that."""
    unleash.strategies["chat-new-prompt"] = []
    action = on(unleash)

    assert action.undo(OFF, await action.read(OFF)) is None


@pytest.mark.parametrize("fault", [400, 401, 403, 404, 405, 409, 429, "redirect"])
async def test_a_refusal_changed_nothing(server: FlagServer, fault: int | str) -> None:
    """A required approval, a missing right, a redirect: the flag stays, and nobody tries again or goes elsewhere."""
    action = on(server)
    before = await action.read(OFF)
    server.faults.before |= {"PATCH": fault, "POST": fault}
    server.faults.elsewhere = f"{server.url}/elsewhere"
    with pytest.raises(ActionError, match="nothing was changed"):
        await action.act(OFF, before, token="t")

    assert server.flags == FLAGS
    assert len(server.changes) == 1


@pytest.mark.parametrize("fault", [500, 503, 408, "reset", "hang", "gzip"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_in_doubt_and_the_probe_tells(server: FlagServer, fault: int | str, when: str) -> None:
    """After a time-out, a reset or a 5xx nothing is called again; the probe finds out."""
    action = on(server)
    before = await action.read(OFF)
    faults = server.faults.before if when == "before" else server.faults.after
    faults |= {"PATCH": fault, "POST": fault}
    with pytest.raises(OutcomeUnknownError):
        await action.act(OFF, before, token="t")

    assert len(server.changes) == 1
    assert await action.happened(OFF, before, "t") is (Happened.YES if when == "after" else Happened.NO)


async def test_an_answer_without_the_change_is_in_doubt(server: FlagServer) -> None:
    """A server that says yes and does nothing is caught by reading back."""
    server.forgetful = True
    action = on(server)
    with pytest.raises(OutcomeUnknownError, match="the flag is on"):
        await action.act(OFF, await action.read(OFF), token="t")


async def test_the_probe_can_be_unable_to_tell(launchdarkly: LaunchDarkly) -> None:
    """On as before, but written to since; or nobody answers."""
    action = on(launchdarkly)
    before = await action.read(OFF)
    launchdarkly.versions["chat-new-prompt"] += 2
    assert await action.happened(OFF, before, "t") is Happened.CANNOT_TELL

    launchdarkly.faults.before["GET"] = 500
    assert await action.happened(OFF, before, "t") is Happened.CANNOT_TELL


async def test_somebody_was_faster(launchdarkly: LaunchDarkly, unleash: Unleash) -> None:
    """Rules that changed after the plan was made are a reason to look again, even where the flag is on as before."""
    read = [(server, await on(server).read(OFF)) for server in (launchdarkly, unleash)]
    launchdarkly.versions["chat-new-prompt"] = 5
    unleash.strategies["chat-new-prompt"] = [False, False]
    for server, before in read:
        with pytest.raises(ActionError, match="somebody changed the flag"):
            await on(server).act(OFF, before, token="t")
        assert server.changes == []


@pytest.mark.parametrize("fault", [500, "reset", "garbage", "gzip", "deep"])
async def test_what_cannot_be_read_is_a_refusal(server: FlagServer, fault: int | str) -> None:
    """Reading changes nothing, so an unreadable answer is ActionError; the plan is not made, or the step not run."""
    server.faults.before["GET"] = fault
    with pytest.raises(ActionError):
        await on(server).read(OFF)


async def test_reading_says_what_is_missing(server: FlagServer) -> None:
    """A flag that is not there, one that the configuration does not count, and a source without access."""
    with pytest.raises(ActionError, match="no flag `other` in default, production"):
        await on(server).read(SetFlagParams(flag="other", on=True))
    with pytest.raises(ActionError, match="lets only search-\\* be switched"):
        await on(server, "search-*").read(OFF)
    with pytest.raises(ActionError, match="action_credential"):
        await build_actions()["flag.set"].read(OFF)
    with pytest.raises(ActionError, match="eu, us"):
        await SetFlag({"eu": access_to(server), "us": access_to(server)}).read(OFF)
    assert (await on(server, "chat-*").read(OFF))["on"] is True


@pytest.mark.parametrize(
    "bad",
    [
        {"flag": ".."},
        {"flag": "a/b"},
        {"flag": "a?env=x"},
        {"flag": "chat\n"},
        {"flag": "-x"},
        {"flag": ""},
        {"flag": "a%2e"},
        {"on": "perhaps"},
        {"on": None},
        {"source": "x\n"},
        {"environment": "staging"},
    ],
)
def test_parameters_match_whole_or_not_at_all(bad: dict[str, object]) -> None:
    """No key leaves its place in the path, and no runbook names an environment or a project."""
    with pytest.raises(ValidationError):
        SetFlagParams.model_validate(OFF.model_dump() | bad)


def test_the_token_is_not_in_the_repr() -> None:
    """A log line that prints the access must not print it."""
    shown = repr(FlagAccess(kind="unleash", url="http://x", authorization=TOKEN, project="p", environment="e"))
    assert TOKEN not in shown
