"""
Which buttons a card has, by state; a button whose time is over is not shown.

Values carry ids only (an incident's, a plan's, "<plan>:<step>", or "<incident>:<diagnosis>:<runbook>"); who may
click, and whether it still makes sense, is decided by the server when the click comes.
"""

from __future__ import annotations

from typing import Any

from bot import narrate
from bot.incidents import ASKS_A_PERSON, PlanState
from bot.slack.escape import plain
from bot.slack.view import CardState, CardView, PlanLine, RunbookLine
from runbooks.engine.values import Tier

Block = dict[str, Any]

ACKNOWLEDGE = "acknowledge"
RESOLVE = "resolve"
REDIAGNOSE = "rediagnose"
APPROVE = "approve"
DENY = "deny"
REVOKE = "revoke"
ESCALATE = "escalate"
UNDO = "undo"
REQUEST = "request"
CHANGE = "change_values"
SETTLE_RAN = "settle_ran"
SETTLE_NOT_RUN = "settle_not_run"
SETTLE_STOP = "settle_stop"
VOTE_HELPFUL = "vote_helpful"
VOTE_WRONG = "vote_wrong"

ACTIONS = (
    ACKNOWLEDGE, RESOLVE, REDIAGNOSE, APPROVE, DENY, REVOKE, ESCALATE, UNDO, REQUEST, SETTLE_RAN, SETTLE_NOT_RUN,
    SETTLE_STOP, VOTE_HELPFUL, VOTE_WRONG,
)  # fmt: skip

_UNDOABLE = (PlanState.NOT_VERIFIED, PlanState.FAILED, PlanState.STOPPED, PlanState.VERIFIED)
_CONFIRM_TEXT = 300
_MOST_CHOICES = 20
MOST_VALUE = 200  # characters of a button's value that we read back
_MOST_UNDOS = 20  # a message has 50 blocks, and the rest of the card needs less than 30


def buttons(view: CardView) -> list[Block]:
    """Rows of buttons: first what happens to the fix, then to earlier fixes, then to the incident."""
    rows = [_row("fix", _for_plan(view)), *_for_earlier_plans(view), _row("incident", _for_incident(view))]
    return [row for row in rows if row["elements"]]


def votes(view: CardView, book: RunbookLine) -> list[Block]:
    """The row beneath a suggested runbook; none where its name is too long for a button."""
    value = f"{view.incident_id}:{view.run}:{book.doc_id}"
    if not book.doc_id or len(value) > MOST_VALUE:
        return []
    both = [(VOTE_HELPFUL, narrate.VOTE["helpful"]), (VOTE_WRONG, narrate.VOTE["wrong"])]
    return [_row(f"vote:{book.doc_id}"[:255], [_button(action, label, value) for action, label in both])]


def _row(name: str, elements: list[Block]) -> Block:
    return {"type": "actions", "block_id": name, "elements": elements}


def _for_plan(view: CardView) -> list[Block]:
    elements: list[Block] = []
    plan = view.plan
    if plan is not None and view.offers_fixes:
        if plan.state is PlanState.PROPOSED and not view.is_over:
            elements += _for_proposal(plan)
        elif plan.state is PlanState.APPROVED:
            elements.append(_button(REVOKE, "Revoke approval", plan.plan_id))
            if plan.params:
                elements.append(_button(CHANGE, "Change values", plan.plan_id))
        elif _may_be_undone(plan):
            elements.append(_undo(plan, "Undo"))
        elif plan.state is PlanState.WAITING and plan.doubt_step is not None:
            value = f"{plan.plan_id}:{plan.doubt_step}"
            elements.append(_button(SETTLE_RAN, "I did it", value))
            elements.append(_button(SETTLE_STOP, "Stop here", value))
        elif plan.state is PlanState.IN_DOUBT and plan.doubt_step is not None:
            value = f"{plan.plan_id}:{plan.doubt_step}"
            elements.append(_button(SETTLE_RAN, "It ran", value))
            elements.append(_button(SETTLE_NOT_RUN, "It did not run", value))
            elements.append(_button(SETTLE_STOP, "Stop here", value))
    if _may_request(view):
        elements.append(_request(view))
    return elements


def _for_proposal(plan: PlanLine) -> list[Block]:
    elements: list[Block] = []
    if plan.may_approve:
        elements.append(_approve(plan))
    elements.append(_button(DENY, "Deny", plan.plan_id))
    if 0 < len(plan.approved_by) < plan.needed:
        elements.append(_button(ESCALATE, "Escalate to the secondary", plan.plan_id))
    if plan.params:
        elements.append(_button(CHANGE, "Change values", plan.plan_id))
    return elements


def _for_earlier_plans(view: CardView) -> list[Block]:
    """
    A row for each fix that can still be taken back, also while another one is on the table.

    In one row Slack takes an action only once, so each undo has a row of its own.
    """
    if not view.offers_fixes:
        return []
    undoable = {plan.plan_id: plan for plan in view.earlier_plans if _may_be_undone(plan)}
    newest = list(undoable.values())[-_MOST_UNDOS:]
    return [_row(f"{UNDO}:{plan.plan_id}", [_undo(plan, f"Undo: {plan.title}")]) for plan in newest]


def _may_be_undone(plan: PlanLine) -> bool:
    return plan.state in _UNDOABLE and plan.can_undo


def _may_request(view: CardView) -> bool:
    busy = view.plan is not None and view.plan.state in {PlanState.APPROVED, PlanState.RUNNING, *ASKS_A_PERSON}
    return bool(view.other_fixes) and view.offers_fixes and not view.is_over and not busy


def _for_incident(view: CardView) -> list[Block]:
    elements: list[Block] = []
    if view.is_over:
        return elements
    if view.state in {CardState.OPEN, CardState.DIAGNOSING} and not view.acknowledged_by:
        elements.append(_button(ACKNOWLEDGE, "Acknowledge", view.incident_id))
    elements.append(_button(RESOLVE, "Resolve", view.incident_id))
    if view.is_configured and view.state is not CardState.DIAGNOSING:
        elements.append(_button(REDIAGNOSE, "Diagnose again", view.incident_id))
    return elements


def _button(action: str, text: str, value: str, **more: Any) -> Block:
    label = {"type": "plain_text", "text": text, "emoji": False}
    return {"type": "button", "action_id": action, "text": label, "value": value, **more}


def _approve(plan: PlanLine) -> Block:
    effects = [f"{step.index + 1}. {step.effect}" for step in plan.steps]
    ending = f"Risk {plan.tier.name}: {narrate.TIER[plan.tier]}."
    if plan.on_failure:
        ending = f"{ending} {plan.on_failure}"
    confirm = _confirm("Run this now?", effects, ending, "Approve", "Not yet")
    style = "danger" if plan.tier >= Tier.R2 else "primary"
    return _button(
        APPROVE, "Approve undo" if plan.is_undo else "Approve fix", plan.plan_id, style=style, confirm=confirm
    )


def _undo(plan: PlanLine, label: str) -> Block:
    effects = [f"{step.index + 1}. {step.undo}" for step in reversed(plan.steps) if step.undo]
    confirm = _confirm("Undo this now?", effects, "This takes the fix back.", "Undo", "Keep it")
    return _button(UNDO, plain(label, 75), plan.plan_id, style="danger", confirm=confirm)


def _confirm(title: str, effects: list[str], ending: str, yes: str, no: str) -> Block:
    """Exactly what will run, as far as 300 characters go; what is left out is counted, and stands on the card."""
    room = _CONFIRM_TEXT - len(ending) - len("\n… (00 more steps on the card)\n")
    kept: list[str] = []
    for effect in effects:
        shown = plain(effect, room if not kept else _CONFIRM_TEXT)
        if len(shown) + 1 > room + (0 if kept else 1):
            break
        kept.append(shown)
        room -= len(shown) + 1
    if left_out := len(effects) - len(kept):
        kept.append(f"… ({left_out} more {'step' if left_out == 1 else 'steps'} on the card)")
    return {
        "title": {"type": "plain_text", "text": title},
        "text": {"type": "plain_text", "text": "\n".join([*kept, ending])},
        "confirm": {"type": "plain_text", "text": yes},
        "deny": {"type": "plain_text", "text": no},
    }


def _request(view: CardView) -> Block:
    options = [
        {"text": {"type": "plain_text", "text": plain(f"{c.title} ({c.tier.name})", 75)}, "value": c.plan_id}
        for c in view.other_fixes[:_MOST_CHOICES]
    ]
    placeholder = {"type": "plain_text", "text": "Request another fix"}
    return {"type": "static_select", "action_id": REQUEST, "placeholder": placeholder, "options": options}
