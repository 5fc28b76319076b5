"""Telling people and bringing them in, against the lab's PagerDuty over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from lab.people import ALICE, BOB, DANA, WATCHKEEPER_EMAIL, WATCHKEEPER_PAGERDUTY
from runbooks.engine.actions import AutomationAccess, PagerDutyAccess, WorkflowAccess, build_actions
from runbooks.engine.lint import Vocabulary, lint
from runbooks.engine.plan import fresh, plan
from runbooks.engine.values import Action, ActionError, CannotPlanError, Happened, OutcomeUnknownError, Tier
from tests.runbooks.pagerduty_server import PagerDutyServer, pagerduty_server
from tests.runbooks.test_plan import CONTEXT, runbook

pytestmark = pytest.mark.integration  # real HTTP

WORKFLOWS = {"bridge": WorkflowAccess(workflow_id="PLABWFL", tier=Tier.R1), "gone": WorkflowAccess(workflow_id="P0")}
AUTOMATIONS = {
    "logs": AutomationAccess(action_id="01LABACTION", tier=Tier.R1),
    "gone": AutomationAccess(action_id="01GONE"),
}
STEPS: dict[str, dict[str, Any]] = {
    "pagerduty.note": {"text": "Rolled the prompt back."},
    "pagerduty.status_update": {"message": "Answers are slow. We know why."},
    "pagerduty.escalate": {"level": 2},
    "pagerduty.add_responders": {"users": [DANA.pagerduty], "message": "Please join: chat is slow."},
    "pagerduty.start_workflow": {"workflow": "bridge"},
    "pagerduty.start_automation": {"automation": "logs"},
}
READ_BACK = ("pagerduty.note", "pagerduty.escalate", "pagerduty.add_responders", "pagerduty.start_automation")
ONLY_YES = "pagerduty.start_automation"
"""Its absence from the list proves nothing: a request that is still on its way would start a second job."""


@pytest.fixture
async def pagerduty() -> AsyncIterator[PagerDutyServer]:
    server = pagerduty_server()
    async with server.running():
        yield server


def built(server: PagerDutyServer, **access: Any) -> dict[str, Action]:
    known = {"key": server.account.api_key, "from_email": WATCHKEEPER_EMAIL, "url": server.url, "timeout_s": 5.0}
    return build_actions(pagerduty=PagerDutyAccess(**{**known, **access}), workflows=WORKFLOWS, automations=AUTOMATIONS)


@pytest.fixture
def pages(pagerduty: PagerDutyServer) -> dict[str, Action]:
    return built(pagerduty)


def params_of(action: Action, server: PagerDutyServer, **more: Any) -> Any:
    return action.params.model_validate({"incident": server.incident.id, **STEPS[action.name], **more})


async def done(action: Action, server: PagerDutyServer, **more: Any) -> dict[str, Any]:
    """The step planned and carried out; what was read before."""
    params = params_of(action, server, **more)
    before = dict(await action.read(params))
    await action.act(params, before, "t-1")
    return before


async def test_a_note_is_written_and_found_again(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """As it was approved, with a mark below it; in the name of the configured user."""
    action = pages["pagerduty.note"]
    await done(action, pagerduty)

    [note] = pagerduty.incident.notes
    assert note["content"] == "Rolled the prompt back.\n\n(Watchkeeper t-1)"
    assert pagerduty.of("POST")[0].headers["from"] == WATCHKEEPER_EMAIL
    assert await action.happened(params_of(action, pagerduty), {}, "t-1") is Happened.YES
    assert await action.happened(params_of(action, pagerduty), {}, "t-2") is Happened.NO


async def test_a_status_update_is_sent_and_cannot_be_found_again(
    pages: dict[str, Action], pagerduty: PagerDutyServer
) -> None:
    """Nobody can list them, so its probe never says that it may be sent again."""
    action = pages["pagerduty.status_update"]
    before = await done(action, pagerduty)

    assert [each["message"] for each in pagerduty.incident.status_updates] == ["Answers are slow. We know why."]
    assert await action.happened(params_of(action, pagerduty), before, "t-1") is Happened.CANNOT_TELL


async def test_an_escalation_to_a_level_says_whom_it_pages(
    pages: dict[str, Action], pagerduty: PagerDutyServer
) -> None:
    """The person is in the sentence; the request has no status, which could re-open the incident."""
    action = pages["pagerduty.escalate"]
    before = await done(action, pagerduty)

    assert "level 2 of Default: Bob Brandt gets paged" in action.effect(params_of(action, pagerduty), before)
    assert [user.id for user in pagerduty.incident.assigned_to] == [BOB.pagerduty]
    [put] = pagerduty.of("PUT")
    assert put.json == {"incident": {"type": "incident_reference", "escalation_level": 2}}


async def test_an_escalation_to_another_policy(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """Its first level is paged, and once it holds the incident it is not handed to it again."""
    action = pages["pagerduty.escalate"]
    params = action.params.model_validate({"incident": pagerduty.incident.id, "escalation_policy": "PLABOWN"})
    before = await action.read(params)
    await action.act(params, before, "t-1")

    assert "escalated to Service owners: Dana Duarte gets paged" in action.effect(params, before)
    assert pagerduty.incident.policy == ("PLABOWN", "Service owners")
    assert await action.happened(params, before, "t-1") is Happened.YES
    assert "holds the incident already" in str(action.refusal(params, await action.read(params)))  # type: ignore[attr-defined]


async def test_somebody_elses_escalation_is_not_ours(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """Alice escalates by hand meanwhile: the step is stale, and a lost answer of ours stays in doubt."""
    action = pages["pagerduty.escalate"]
    params = params_of(action, pagerduty)
    before = await action.read(params)
    by_hand = {"escalation_level": 2}
    pagerduty.account.change(pagerduty.incident.id, by_hand, pagerduty.account.user_of(ALICE.email))

    with pytest.raises(ActionError, match=r"last_move.*nobody was told"):
        await action.act(params, before, "t-1")
    assert await action.happened(params, before, "t-1") is Happened.CANNOT_TELL
    assert pagerduty.writes() == []


async def test_a_level_that_is_not_there_is_refused(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """Before anybody approves it."""
    action = pages["pagerduty.escalate"]
    params = params_of(action, pagerduty, level=3)

    assert action.refusal(params, await action.read(params)) == "Default has 2 levels only"  # type: ignore[attr-defined]


async def test_responders_are_asked_by_name_and_once(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """The sentence has their names; whoever was asked is not paged a second time."""
    action = pages["pagerduty.add_responders"]
    params = params_of(action, pagerduty, users=f"{DANA.pagerduty}, {BOB.pagerduty}")
    before = await action.read(params)
    await action.act(params, before, "t-1")

    assert "pages Dana Duarte (PDANA01), Bob Brandt (PBOB001)" in action.effect(params, before)
    assert [each["user"]["id"] for each in pagerduty.incident.responders] == [DANA.pagerduty, BOB.pagerduty]
    assert pagerduty.of("POST")[0].json["requester_id"] == WATCHKEEPER_PAGERDUTY
    assert action.refusal(params, await action.read(params)) == "Dana Duarte, Bob Brandt was asked already"  # type: ignore[attr-defined]


async def test_whoever_declined_may_be_asked_again(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """And the probe sees by the changed answer whether that happened."""
    action = pages["pagerduty.add_responders"]
    params = params_of(action, pagerduty)
    await done(action, pagerduty)
    pagerduty.incident.responders[0]["state"] = "declined"
    before = await action.read(params)

    assert action.refusal(params, before) is None  # type: ignore[attr-defined]
    assert await action.happened(params, before, "t-2") is Happened.NO
    await action.act(params, before, "t-2")
    assert await action.happened(params, before, "t-2") is Happened.YES


async def test_one_of_two_who_was_asked_is_in_doubt(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """Neither yes nor no."""
    action = pages["pagerduty.add_responders"]
    both = params_of(action, pagerduty, users=[DANA.pagerduty, BOB.pagerduty])
    before = await action.read(both)
    await done(action, pagerduty)

    assert await action.happened(both, before, "t-1") is Happened.CANNOT_TELL


async def test_somebody_elses_request_is_not_ours(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """Alice asks Dana by hand while our answer is lost: Dana is asked, and nobody can say that we did."""
    action = pages["pagerduty.add_responders"]
    params = params_of(action, pagerduty)
    before = await action.read(params)
    await action.act(params, before, "t-1")
    pagerduty.incident.responders[0]["requester"] = pagerduty.account.user_of(ALICE.email).reference()

    assert await action.happened(params, before, "t-1") is Happened.CANNOT_TELL


async def test_a_note_may_come_after_the_end(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """The incident was resolved between plan and start; what was done is written down all the same."""
    action = pages["pagerduty.note"]
    params = params_of(action, pagerduty)
    before = await action.read(params)
    pagerduty.account.change(pagerduty.incident.id, {"status": "resolved"}, pagerduty.account.user_of(ALICE.email))
    await action.act(params, before, "t-1")

    assert (len(pagerduty.incident.notes), pagerduty.incident.status) == (1, "resolved")


async def test_an_account_that_cannot_add_responders_says_so(pagerduty: PagerDutyServer) -> None:
    """The feature is a plan's; without it PagerDuty leaves the field out."""
    action = built(pagerduty)["pagerduty.add_responders"]
    pagerduty.leave_out = ("incidents_responders",)
    with pytest.raises(ActionError, match="cannot add responders"):
        await action.read(params_of(action, pagerduty))


async def test_a_workflow_is_the_operators(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """By the name that the configuration gives it, with the tier that it says; R3 where it says none."""
    action = pages["pagerduty.start_workflow"]
    before = await done(action, pagerduty)

    assert pagerduty.incident.workflows[0]["workflow"] == "PLABWFL"
    assert "starts the incident workflow Open a bridge (PLABWFL)" in action.effect(params_of(action, pagerduty), before)
    tiers = [action.tier_of(params_of(action, pagerduty, workflow=name)) for name in ("bridge", "gone", "unknown")]  # type: ignore[attr-defined]
    assert tiers == [Tier.R1, Tier.R3, Tier.R3]
    assert await action.happened(params_of(action, pagerduty), before, "t-1") is Happened.CANNOT_TELL
    for name, words in (("gone", "has no /incident_workflows/P0"), ("unknown", "no workflow unknown")):
        with pytest.raises(ActionError, match=words):
            await action.read(params_of(action, pagerduty, workflow=name))


async def test_an_automation_is_the_operators(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """By its name and with its tier; on the plan's incident, and not while it runs there already."""
    action = pages["pagerduty.start_automation"]
    params = params_of(action, pagerduty)
    before = await action.read(params)
    answer = await action.act(params, before, "t-1")

    [begun] = pagerduty.incident.invocations
    assert answer == {"invocation": begun["id"], "state": "created"}
    [post] = pagerduty.of("POST")
    assert post.path == "/automation_actions/actions/01LABACTION/invocations"
    assert post.json == {"invocation": {"metadata": {"incident_id": pagerduty.incident.id}}}
    assert "starts the Automation Action Collect engine logs (01LABACTION)" in action.effect(params, before)
    tiers = [action.tier_of(params_of(action, pagerduty, automation=name)) for name in ("logs", "gone", "unknown")]  # type: ignore[attr-defined]
    assert tiers == [Tier.R1, Tier.R3, Tier.R3]
    assert "runs for this incident already" in str(action.refusal(params, await action.read(params)))  # type: ignore[attr-defined]
    begun["state"] = "completed"
    assert action.refusal(params, await action.read(params)) is None  # type: ignore[attr-defined]
    for name, words in (("gone", "has no /automation_actions/actions/01GONE"), ("unknown", "no automation_action")):
        with pytest.raises(ActionError, match=words):
            await action.read(params_of(action, pagerduty, automation=name))


async def test_somebody_elses_start_is_not_ours(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """Alice starts it by hand meanwhile: the step is stale, and a lost answer of ours stays in doubt."""
    action = pages["pagerduty.start_automation"]
    params = params_of(action, pagerduty)
    before = await action.read(params)
    await action.act(params, before, "t-1")
    pagerduty.incident.invocations[0]["metadata"]["agent"] = pagerduty.account.user_of(ALICE.email).reference()

    assert await action.happened(params, before, "t-1") is Happened.CANNOT_TELL
    with pytest.raises(ActionError, match="begun"):
        await action.act(params, before, "t-2")
    assert len(pagerduty.writes()) == 1


@pytest.mark.parametrize("name", [name for name in STEPS if name != "pagerduty.note"])
async def test_a_resolved_incident_pages_nobody(
    pages: dict[str, Action], pagerduty: PagerDutyServer, name: str
) -> None:
    """Refused when it is planned, and when it was resolved between plan and start."""
    action = pages[name]
    params = params_of(action, pagerduty)
    before = await action.read(params)
    pagerduty.account.change(pagerduty.incident.id, {"status": "resolved"}, pagerduty.account.user_of(ALICE.email))

    assert "is resolved" in str(action.refusal(params, await action.read(params)))  # type: ignore[attr-defined]
    with pytest.raises(ActionError, match="open"):
        await action.act(params, before, "t-1")
    assert pagerduty.writes() == []
    assert pagerduty.incident.status == "resolved"


@pytest.mark.parametrize("name", STEPS)
async def test_an_acknowledgement_in_between_changes_nothing(
    pages: dict[str, Action], pagerduty: PagerDutyServer, name: str
) -> None:
    """On call acknowledges while the plan waits for its approval; that is no reason to plan anew."""
    action = pages[name]
    params = params_of(action, pagerduty)
    before = await action.read(params)
    pagerduty.account.change(pagerduty.incident.id, {"status": "acknowledged"}, pagerduty.account.user_of(ALICE.email))

    await action.act(params, before, "t-1")
    assert len(pagerduty.writes()) == 1


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("fault", [500, "reset", "garbage"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_never_sent_again(
    pages: dict[str, Action], pagerduty: PagerDutyServer, name: str, fault: int | str, when: str
) -> None:
    """Whether it was done the probe reads back where PagerDuty lets it; where not it cannot tell, never "no"."""
    action = pages[name]
    params = params_of(action, pagerduty)
    before = await action.read(params)
    getattr(pagerduty.faults, when).update({"POST": fault, "PUT": fault})
    with pytest.raises(OutcomeUnknownError):
        await action.act(params, before, "t-1")

    assert len(pagerduty.writes()) == 1
    if when == "after":
        told = Happened.YES if name in READ_BACK else Happened.CANNOT_TELL
    else:
        told = Happened.NO if name in READ_BACK and name != ONLY_YES else Happened.CANNOT_TELL
    assert await action.happened(params, before, "t-1") is told


@pytest.mark.parametrize("fault", [408, "hang"])
async def test_an_answer_that_does_not_come_is_lost(pagerduty: PagerDutyServer, fault: int | str) -> None:
    """The time limit is the action's own."""
    action = built(pagerduty, timeout_s=2.0)["pagerduty.note"]
    params = params_of(action, pagerduty)
    before = await action.read(params)
    pagerduty.faults.after["POST"] = fault
    with pytest.raises(OutcomeUnknownError):
        await action.act(params, before, "t-1")
    assert await action.happened(params, before, "t-1") is Happened.YES


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("fault", [400, 402, 429, "redirect"])
async def test_a_refusal_told_nobody(
    pages: dict[str, Action], pagerduty: PagerDutyServer, name: str, fault: int | str
) -> None:
    """4xx, with a plan that lacks the feature (402) among them, and redirects; one try."""
    action = pages[name]
    params = params_of(action, pagerduty)
    before = await action.read(params)
    pagerduty.faults.before.update({"POST": fault, "PUT": fault})
    pagerduty.faults.elsewhere = f"{pagerduty.url}/incidents/{pagerduty.incident.id}/notes"
    with pytest.raises(ActionError, match="nothing was changed"):
        await action.act(params, before, "t-1")

    assert len(pagerduty.writes()) == 1
    assert pagerduty.incident.notes == []


@pytest.mark.parametrize("name", STEPS)
async def test_what_cannot_be_read_is_a_refusal(
    pages: dict[str, Action], pagerduty: PagerDutyServer, name: str
) -> None:
    """A wrong key and an unreadable answer: nothing is planned and nothing is sent; the probe cannot tell."""
    action = pages[name]
    params = params_of(action, pagerduty)
    before = await action.read(params)
    for fault in (401, 500, "garbage", "deep"):
        pagerduty.faults.before["GET"] = fault
        with pytest.raises(ActionError):
            await action.read(params)
        with pytest.raises(ActionError):
            await action.act(params, before, "t-1")
        assert await action.happened(params, before, "t-1") is Happened.CANNOT_TELL
    assert pagerduty.writes() == []


async def test_without_a_key_it_says_what_is_missing() -> None:
    """All of them are listed without one, so that runbooks can be checked."""
    for name, action in build_actions(workflows=WORKFLOWS, automations=AUTOMATIONS).items():
        if name in STEPS:
            with pytest.raises(ActionError, match="PAGERDUTY_API_KEY"):
                await action.read(action.params.model_validate({"incident": "Q1", **STEPS[name]}))


async def test_a_sender_whom_pagerduty_does_not_know_is_named(pagerduty: PagerDutyServer) -> None:
    """PagerDuty wants every write to be a user's."""
    action = built(pagerduty, from_email="nobody@example.com")["pagerduty.add_responders"]
    params = params_of(action, pagerduty)
    with pytest.raises(ActionError, match=r"no user nobody@example\.com"):
        await action.act(params, await action.read(params), "t-1")


async def test_the_incident_is_always_the_plans_own(pages: dict[str, Action], pagerduty: PagerDutyServer) -> None:
    """Left out it is filled in; another one is refused, whatever a runbook writes."""
    own = replace(CONTEXT, incident_id=pagerduty.incident.id)
    made = await plan(runbook("action: pagerduty.escalate\nwith: {level: 2}"), own, pages)

    [step] = made.steps
    assert step.params["incident"] == pagerduty.incident.id
    assert (step.tier, step.target, step.undo) == (Tier.R1, f"pagerduty/escalate/{pagerduty.incident.id}", None)
    assert await fresh(made, pages) == []
    for other in (pagerduty.incident.id, str(pagerduty.incident.number)):
        with pytest.raises(CannotPlanError, match="is not this plan's own"):
            await plan(runbook(f"action: pagerduty.note\nwith: {{text: hi, incident: '{other}'}}"), CONTEXT, pages)


def test_no_check_has_to_verify_that_people_were_told() -> None:
    """Lint asks for `verify` where something runs differently afterwards, and says that none can be undone."""
    vocabulary = Vocabulary(checks={"queue"}, causes=set(), actions=build_actions())
    for name, step in STEPS.items():
        if name == "pagerduty.start_automation":
            continue  # a job may change what runs
        book = runbook(f"action: {name}\nwith: {step!r}\nundo: previous")
        words = " ".join(problem.message for problem in lint(book, vocabulary))
        assert "verifies" not in words
        assert f"`{name}` cannot be undone" in words


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("pagerduty.note", {"text": " "}),
        ("pagerduty.note", {"text": "x" * 1001}),
        ("pagerduty.note", {"text": "bell\x07"}),
        ("pagerduty.note", {"incident": "Q1/../P2"}),
        ("pagerduty.note", {"incident": "Q1\n"}),
        ("pagerduty.note", {"status": "resolved"}),
        ("pagerduty.escalate", {"level": 0}),
        ("pagerduty.escalate", {"level": True}),
        ("pagerduty.escalate", {"level": None}),
        ("pagerduty.escalate", {"escalation_policy": "PLABOWN"}),
        ("pagerduty.add_responders", {"users": []}),
        ("pagerduty.add_responders", {"users": ["a/b"]}),
        ("pagerduty.add_responders", {"users": [f"P{number}" for number in range(11)]}),
        ("pagerduty.add_responders", {"users": "P1, P1"}),
        ("pagerduty.start_workflow", {"workflow": "../x"}),
    ],
)
def test_parameters_match_whole_or_not_at_all(name: str, bad: dict[str, object]) -> None:
    """Ids cannot leave their place in a path, texts can be read by people, and nothing else is taken."""
    with pytest.raises(ValidationError):
        build_actions()[name].params.model_validate({"incident": "Q1", **STEPS[name], **bad})
