"""Clicks and commands as Slack sends them: signed, over HTTP, through the guard and the real Bolt, to the desk."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bot import narrate
from bot.incidents import AlreadyDecidedError, NotAllowedError, StaleError, StepUpNeededError, StoreUnavailableError
from bot.narrowing import WrongValuesError
from bot.slack.buttons import ACTIONS
from bot.slack.listeners import CLICKS, STILL_AT_IT, ClickListener, CommandListener, EventListener
from bot.slack.values import ValuesForm
from tests.slack_counter import MALLORY, Workspace, open_workspace
from tests.slack_server import TEAM

pytestmark = pytest.mark.integration  # real HTTP


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    async with open_workspace() as place:
        yield place


VALUES = {"settle": "p-1:3", "vote": "p-1:3:more:load"}
DEEDS = {
    "acknowledge": ("acknowledge", "p-1", "bob"),
    "resolve": ("resolve", "p-1", "bob"),
    "rediagnose": ("rediagnose", "p-1", "bob"),
    "approve": ("approve", "p-1", "bob"),
    "deny": ("deny", "p-1", "bob"),
    "revoke": ("revoke", "p-1", "bob"),
    "escalate": ("escalate", "p-1", "bob"),
    "undo": ("undo", "p-1", "bob"),
    "request": ("request", "p-1", "bob"),
    "settle_ran": ("settle", "p-1", 3, "ran", "bob"),
    "settle_not_run": ("settle", "p-1", 3, "did_not_run", "bob"),
    "settle_stop": ("settle", "p-1", 3, "stop", "bob"),
    "vote_helpful": ("vote", "p-1", 3, "more:load", "helpful", "bob"),
    "vote_wrong": ("vote", "p-1", 3, "more:load", "wrong", "bob"),
}


@pytest.mark.parametrize("action", ACTIONS)
async def test_every_button_reaches_its_deed(workspace: Workspace, action: str) -> None:
    """A click becomes exactly one deed of the person who clicked, and they hear so."""
    answer = await workspace.click(action, VALUES.get(action.partition("_")[0], "p-1"))

    assert answer.status_code == 200
    assert workspace.desk.deeds == [DEEDS[action]]
    assert workspace.told() == CLICKS[action].done
    assert workspace.desk.refusals == []


async def test_a_chosen_option_is_a_value_too(workspace: Workspace) -> None:
    """The menu of other fixes sends its value in another place."""
    action = {"type": "static_select", "action_id": "request", "selected_option": {"value": "p-2"}}
    await workspace.click("request", actions=[action])

    assert workspace.desk.deeds == [("request", "p-2", "bob")]


@pytest.mark.parametrize("action", [*ACTIONS, "a_button_of_last_year"])
async def test_a_stranger_is_refused_at_every_button(workspace: Workspace, action: str) -> None:
    """No listener lets a stranger through; the refusal is recorded and told to nobody else."""
    answer = await workspace.click(action, "p-1:0", user=MALLORY)

    assert answer.status_code == 200
    assert workspace.desk.deeds == []
    [refusal] = workspace.desk.refusals
    assert (refusal["who"], refusal["subject"]) == (f"{TEAM}/{MALLORY}", "p-1:0")
    assert workspace.told() == narrate.NOT_A_MEMBER
    assert workspace.slack.asked("chat.postEphemeral")[-1]["user"] == MALLORY


@pytest.mark.parametrize("text", ["", "help", "status", "runbook x", "rm -rf"])
async def test_a_stranger_is_refused_at_every_command(workspace: Workspace, text: str) -> None:
    """Not even the help or the list of incidents."""
    answer = await workspace.command(text, user=MALLORY)

    assert answer.json()["text"] == narrate.NOT_A_MEMBER
    assert workspace.desk.deeds == []
    assert len(workspace.desk.refusals) == 1


async def test_every_listener_is_behind_the_authoriser(workspace: Workspace) -> None:
    """The inventory: Bolt holds no listener, middleware or lazy function but our four guarded kinds."""
    listeners = workspace.bolt._async_listeners

    # every button, buttons of old cards, the form and its button, the command, events
    assert len(listeners) == len(ACTIONS) + 5
    for listener in listeners:
        owner = getattr(listener.ack_function, "__self__", None)
        assert isinstance(owner, ClickListener | ValuesForm | CommandListener | EventListener)
        assert not listener.lazy_functions
    assert set(CLICKS) == set(ACTIONS)


@pytest.mark.parametrize(
    "flags",
    [
        {"deleted": True},
        {"is_bot": True},
        {"is_restricted": True},
        {"is_ultra_restricted": True},
        {"is_stranger": True},
        {"team_id": "T0OTHER"},
        {"team_id": None},
        {"id": "U0SOMEBODY"},
    ],
    ids=str,
)
async def test_who_slack_disowns_is_nobody(workspace: Workspace, flags: dict[str, Any]) -> None:
    """Guests, bots, deleted and foreign accounts may do nothing, even when they are in the configuration."""
    workspace.slack.accounts["U0BOB"] |= flags
    await workspace.click("approve")

    assert workspace.desk.deeds == []
    assert len(workspace.desk.refusals) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"user": {"id": "U0BOB", "team_id": "T0PARTNER"}},
        {"team": {"id": "T0OTHER"}},
        {"team": None},
        {"user": {"id": "U0BOBX"}},
        {"user": {"id": ["U0BOB"]}},
        {"user": {"name": "bob"}},
    ],
    ids=str,
)
async def test_no_field_of_the_payload_makes_somebody_else(workspace: Workspace, more: dict[str, Any]) -> None:
    """Team and user must both be the ones of the configuration; a partner in a shared channel is not."""
    await workspace.click("approve", **more)

    assert workspace.desk.deeds == []


async def test_while_slack_cannot_confirm_somebody_they_are_nobody(workspace: Workspace) -> None:
    """Doubt is refused, and the person is told to try again."""
    workspace.slack.faults["users.info"] = [(500, {}, "")]
    await workspace.click("approve")

    assert workspace.desk.deeds == []
    assert workspace.told() == narrate.CANNOT_CHECK_YOU


async def test_while_the_people_cannot_be_read_everybody_is_nobody(workspace: Workspace) -> None:
    """The same for our own database."""
    workspace.people.fault = StoreUnavailableError("the database is locked")
    await workspace.click("approve")

    assert workspace.desk.deeds == []
    assert workspace.told() == narrate.CANNOT_LOOK_YOU_UP


@pytest.mark.parametrize(
    "refusal",
    [
        NotAllowedError("This fix needs a prompt owner (Bob)."),
        AlreadyDecidedError("Carol decided first."),
        StaleError("This plan has expired."),
        StoreUnavailableError("The decision could not be stored; nothing was decided."),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_refusal_of_the_desk_is_told(workspace: Workspace, refusal: Exception) -> None:
    """The sentence of the error is what the person reads; the click is acknowledged."""
    workspace.desk.fault = refusal
    answer = await workspace.click("approve")

    assert answer.status_code == 200
    assert workspace.told() == str(refusal)


async def test_a_click_that_could_not_be_decided_is_not_acknowledged(workspace: Workspace) -> None:
    """When we break before the commit, Slack shows the person an error; a lost click would look like a good one."""
    workspace.desk.fault = RuntimeError("a bug")
    answer = await workspace.click("approve")

    assert answer.status_code >= 500
    assert workspace.slack.asked("chat.postEphemeral") == []


async def test_a_desk_that_hangs_does_not_hang_slack(workspace: Workspace) -> None:
    """Within Slack's three seconds the person hears that it takes longer; the deed goes on, and they hear the end."""
    workspace.desk.gate.clear()
    began = time.monotonic()
    answer = await workspace.click("approve")

    assert time.monotonic() - began < 3
    assert answer.status_code == 200
    assert workspace.told() == STILL_AT_IT

    await workspace.shut(workspace.desk.gate)
    assert workspace.desk.deeds == [("approve", "p-1", "bob")]
    assert workspace.told() == CLICKS["approve"].done
    assert len(workspace.slack.asked("chat.postEphemeral")) == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [(StaleError("This plan has expired."), "This plan has expired."), (RuntimeError("a bug"), narrate.TOO_SLOW)],
    ids=["refusal", "bug"],
)
async def test_a_late_end_is_told_whatever_it_is(workspace: Workspace, fault: Exception, words: str) -> None:
    """A refusal after Slack's time is told like any other; after a bug the person hears that it is not certain."""
    workspace.desk.gate.clear()
    workspace.desk.fault = fault
    await workspace.click("approve")
    await workspace.shut(workspace.desk.gate)

    assert workspace.told() == words


async def test_recognising_has_no_patience_of_its_own(workspace: Workspace) -> None:
    """While it takes long to find out who clicked, Slack is answered in time, and nothing is done before."""
    workspace.people.gate.clear()
    answer = await workspace.click("approve")

    assert answer.status_code == 200
    assert workspace.told() == STILL_AT_IT
    assert workspace.desk.deeds == []

    await workspace.shut(workspace.people.gate)
    assert workspace.desk.deeds == [("approve", "p-1", "bob")]
    assert workspace.told() == CLICKS["approve"].done


async def test_waiting_for_the_end_has_an_end(workspace: Workspace) -> None:
    """A deed that never ends does not hold up the end of the program; neither is it cancelled before."""
    workspace.desk.gate.clear()
    await workspace.click("approve")
    await workspace.stragglers.finish(0.01)
    assert workspace.desk.deeds == []

    await workspace.shut(workspace.desk.gate)
    assert workspace.desk.deeds == [("approve", "p-1", "bob")]


async def test_a_stranger_who_is_recognised_late_is_refused(workspace: Workspace) -> None:
    """Slow is not lenient: no deed and no search, one record each."""
    workspace.people.gate.clear()
    await workspace.click("approve", user=MALLORY)
    first = (await workspace.command("status", user=MALLORY)).json()
    await workspace.shut(workspace.people.gate)

    assert first["text"] == narrate.SEARCHING
    assert workspace.desk.deeds == []
    assert len(workspace.desk.refusals) == 2
    assert workspace.told() == narrate.NOT_A_MEMBER
    assert workspace.slack.asked("response_url")[-1]["text"] == narrate.NOT_A_MEMBER


@pytest.mark.parametrize(
    "value", ["p-1", "p-1:", ":0", "p-1:-1", "p-1:x", "p-1:99999", "", None, 7, ["p-1:0"], "x" * 999]
)
async def test_a_forged_value_settles_nothing(workspace: Workspace, value: Any) -> None:
    """A value that we never put on a button is an answer to no question."""
    await workspace.click("settle_ran", value)

    assert workspace.desk.deeds == []
    assert workspace.told() == narrate.ODD_CLICK


@pytest.mark.parametrize("value", ["p-1", "p-1:1", "p-1:1:", "p-1:x:load", ":1:load", "p-1::load"])
async def test_a_forged_value_votes_for_nothing(workspace: Workspace, value: str) -> None:
    """A vote names an incident, a diagnosis of it and a runbook."""
    await workspace.click("vote_wrong", value)

    assert workspace.desk.deeds == []
    assert workspace.told() == narrate.ODD_CLICK


@pytest.mark.parametrize("actions", [[], None, "x", [None], [{}], [{"action_id": 7}]], ids=str)
async def test_an_odd_payload_does_nothing(workspace: Workspace, actions: Any) -> None:
    """Signed but senseless payloads reach no deed."""
    await workspace.send({"payload": json.dumps({"type": "block_actions", "team": {"id": TEAM}, "actions": actions})})

    assert [deed for deed in workspace.desk.deeds if deed[1]] == []


async def test_an_answer_goes_into_the_thread_of_the_click(workspace: Workspace) -> None:
    """A click in a thread is answered there; one on the card, in the channel."""
    await workspace.click("approve", container={"channel_id": "C0INCIDENT", "message_ts": "1.3", "thread_ts": "1.2"})
    await workspace.click("deny")

    first, second = workspace.slack.asked("chat.postEphemeral")
    assert (first.get("thread_ts"), second.get("thread_ts")) == ("1.2", None)


@pytest.mark.parametrize("text", ["", "help", "HELP", "  help  "])
async def test_help_comes_from_the_commands(workspace: Workspace, text: str) -> None:
    """Every command is in the help; no command at all is a question for help."""
    body = json.dumps((await workspace.command(text)).json())

    for usage in ("/oncall help", "/oncall status", "/oncall runbook TEXT", "/oncall stop [REASON]", "/oncall go"):
        assert usage in body
    assert '"ephemeral"' in body


async def test_an_unknown_command_gets_the_help(workspace: Workspace) -> None:
    """With the word that was not understood, as text."""
    body = (await workspace.command("<!here> now")).json()

    assert "There is no `&lt;!here&gt;`" in body["blocks"][0]["text"]["text"]


async def test_status_lists_open_incidents(workspace: Workspace) -> None:
    """Each with its service, state, cause and whom it waits for; titles are escaped."""
    text = (await workspace.command("status")).json()["blocks"][0]["text"]["text"]

    assert "*1 open incident*" in text
    assert "<https://acme.pagerduty.com/incidents/Q1|LLMHighTTFT &lt;!here&gt;>" in text
    assert "waits for an approval" in text


async def test_runbook_search(workspace: Workspace) -> None:
    """The words go to the desk's search; without words there is a hint."""
    found = (await workspace.command("runbook first token slow")).json()
    hint = (await workspace.command("runbook")).json()

    assert workspace.desk.deeds == [("search", "first token slow")]
    assert "Prefix cache collapse" in found["blocks"][0]["text"]["text"]
    assert "Say what you are looking for" in hint["text"]


async def test_the_kill_switch_is_turned_by_command(workspace: Workspace) -> None:
    """With the reason as it was typed, in the name of who typed it; whoever may not hears why."""
    stopped = (await workspace.command("stop wrong <cluster>")).json()
    released = (await workspace.command("GO")).json()
    workspace.desk.fault = NotAllowedError("Only who may approve an R2 fix may end the stop.")
    refused = (await workspace.command("go")).json()

    assert workspace.desk.deeds == [("stop", "wrong <cluster>", "bob"), ("go", "bob")]
    assert (stopped["text"], released["text"]) == (narrate.DONE["stop"], narrate.DONE["go"])
    assert refused["text"] == "Only who may approve an R2 fix may end the stop."


async def test_what_needs_a_code_is_answered_with_a_link(workspace: Workspace) -> None:
    """No code is typed into Slack: breaking the glass there leads to the page that asks for it; approving, too."""
    broken = (await workspace.command("break-glass p-1 nobody <else> answers")).json()
    unclear = (await workspace.command("break-glass p-1")).json()
    workspace.desk.fault = StepUpNeededError("It needs a one-time code.", url="https://watch.example.com/plans/p-1")
    await workspace.click("approve", "p-1")

    link = "<https://watch.example.com/plans/p-1|Open the page>"
    assert workspace.desk.deeds == [("break_glass", "p-1", "bob")]
    assert link in broken["blocks"][0]["text"]["text"]
    assert "nobody &lt;else&gt; answers" in broken["text"]
    assert "which plan and why" in unclear["text"]
    assert link in json.dumps(workspace.slack.asked("chat.postEphemeral")[-1])


async def test_a_slow_search_is_acknowledged_first(workspace: Workspace) -> None:
    """The answer then follows by the response_url."""
    workspace.desk.gate.clear()
    first = (await workspace.command("runbook x")).json()
    await workspace.shut(workspace.desk.gate)

    assert first["text"] == narrate.SEARCHING
    assert "Prefix cache collapse" in json.dumps(workspace.slack.asked("response_url"))


async def test_the_form_shows_what_may_be_chosen_and_within_slacks_limits(workspace: Workspace) -> None:
    """Every parameter is a field with its limits, filled with what the plan has; the form knows which plan was read."""
    await workspace.click("change_values")

    [opened] = workspace.slack.asked("views.open")
    view = opened["view"]
    fields = {block["block_id"]: block["element"] for block in view["blocks"] if block["type"] == "input"}
    assert opened["trigger_id"] == "1.2.3"
    assert json.loads(view["private_metadata"]) == {"plan": "p-1", "digest": "d" * 64}
    assert len(view["private_metadata"]) <= 3000
    assert len(view["title"]["text"]) <= 24
    assert fields["param:replicas"] | {"action_id": "value"} == {
        "type": "number_input",
        "action_id": "value",
        "is_decimal_allowed": False,
        "min_value": "1",
        "max_value": "8",
        "initial_value": "4",
    }
    assert (fields["param:ratio"]["is_decimal_allowed"], fields["param:ratio"]["min_value"]) == (True, "0.5")
    assert (fields["param:tenant"]["initial_value"], fields["param:tenant"]["max_length"]) == ("acme", 200)
    assert [option["value"] for option in fields["param:pool"]["options"]] == ["spot", "reserved"]
    assert fields["param:force"]["initial_option"]["value"] == "false"


async def test_the_form_becomes_one_deed(workspace: Workspace) -> None:
    """Of whoever sent it, for the plan that was read; the form says what happens next."""
    answer = await workspace.submit({"param:replicas": "2", "param:tenant": "globex", "other": "x"})

    assert workspace.desk.deeds == [("narrow", "p-1", {"replicas": "2", "tenant": "globex"}, "d" * 64, "bob")]
    assert answer.json()["response_action"] == "update"
    assert narrate.DONE["narrow"] in answer.text


async def test_a_wrong_value_is_told_beneath_its_field(workspace: Workspace) -> None:
    """The form stays open; a fault of something that it does not show takes its place."""
    workspace.desk.fault = WrongValuesError({"replicas": "must be at most 8"})
    beneath = (await workspace.submit({"param:replicas": "9"})).json()
    workspace.claims.claims.clear()
    instead = (await workspace.submit({"param:tenant": "acme"})).json()

    assert beneath == {"response_action": "errors", "errors": {"param:replicas": "It must be at most 8."}}
    assert (instead["response_action"], workspace.desk.deeds) == ("update", [])


@pytest.mark.parametrize(
    "view",
    [{"private_metadata": "{"}, {"private_metadata": "[]"}, {"state": {}}, {"state": {"values": {"param:x": 1}}}],
)
async def test_an_odd_form_changes_nothing(workspace: Workspace, view: dict[str, Any]) -> None:
    """Only Slack can sign; what is broken all the same is answered with a sentence."""
    answer = await workspace.submit({"param:replicas": "2"}, **view)

    assert (answer.status_code, workspace.desk.deeds) == (200, [])
    assert narrate.ODD_CLICK in answer.text


async def test_a_stranger_is_refused_at_the_form_and_its_button(workspace: Workspace) -> None:
    """Neither opens nor sends it; both are on record."""
    await workspace.click("change_values", user=MALLORY)
    answer = await workspace.submit({"param:replicas": "2"}, user=MALLORY)

    assert workspace.slack.asked("views.open") == []
    assert workspace.desk.deeds == []
    assert narrate.NOT_A_MEMBER in answer.text
    assert len(workspace.desk.refusals) == 2


async def test_a_form_that_does_not_open_is_told(workspace: Workspace) -> None:
    """Slack's trigger ends after three seconds; the person hears that, and the other way."""
    workspace.slack.faults["views.open"] = [(200, {}, '{"ok": false, "error": "expired_trigger_id"}')]
    await workspace.click("change_values")

    assert "watchkeeper narrow p-1" in workspace.told()
