"""
A card as Slack's Block Kit JSON; pure. One message per incident, edited in place, its buttons chosen by state.

Limits are kept by construction (sections 3,000 characters, header 150, confirm 300, 50 blocks): lines are left out
whole and counted, and the thread has them all. Every mrkdwn object is `verbatim`: Slack adds no link of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bot import narrate
from bot.incidents import PlanState
from bot.slack.buttons import buttons
from bot.slack.escape import code, inline, is_web_address, lines_within, link, plain
from bot.slack.view import (
    BlindLine,
    CardState,
    CardView,
    CauseLine,
    EvidenceLine,
    Message,
    PlanLine,
    RunbookLine,
    SeenLine,
    SuspectLine,
    newest,
)
from diagnostics.findings import Status

Block = dict[str, Any]

SECTION = 2900
_CLOSE = 0.25  # of the first cause's probability, from which a second one is worth a line
_GRAPH = 800  # a longer address would cost a section its sentences
_NOTHING = "(no text)"  # Slack refuses an empty one
_EMOJI = {
    CardState.DIAGNOSING: "\U0001f534",
    CardState.OPEN: "\U0001f534",
    CardState.ACKNOWLEDGED: "\U0001f7e0",
    CardState.RESOLVED: "\U0001f7e2",
}
_MARK = {Status.BAD: "\U0001f538", Status.OK: "▫️", Status.UNKNOWN: "❔"}


def card(view: CardView) -> Message:
    """The whole card. It reads top to bottom: what, since when, how sure, why, what to do, who may."""
    blocks = [
        header(f"{_EMOJI[view.state]} {view.service}: {view.title}"),
        context(_facts(view)),
        *([section(f"\u26d4 *{inline(view.stopped, 600)}*")] if view.stopped else []),
        section(_verdict(view)),
    ]
    if evidence := _evidence(view.evidence):
        blocks.append(section(evidence))
    if view.suspect is not None:
        blocks.append(section(suspect_text(view.suspect)))
    if view.next_check and not view.is_over:
        blocks.append(section(f"*Check next*  {inline(view.next_check[:1].upper() + view.next_check[1:], 600)}"))
    if view.runbook is not None or (view.causes and view.is_configured):
        blocks.append(section(_runbook(view)))
    if view.plan is not None:
        blocks += [{"type": "divider"}, section(plan_text(view.plan))]
    elif view.is_configured and not view.is_over and view.state is not CardState.DIAGNOSING:
        blocks.append(section(_no_plan(view)))
    blocks += buttons(view)
    blocks += [context(text) for text in _small_print(view)]
    return Message(text=summary(view), blocks=blocks)


def summary(view: CardView) -> str:
    """One line for notifications and screen readers."""
    parts = [f"{inline(view.service, 60)}: {inline(view.title, 150)}"]
    if view.state is CardState.RESOLVED:
        parts.append(f"merged into {inline(view.merged_into, 60)}" if view.merged_into else "resolved")
    elif view.causes:
        parts.append(f"{inline(view.causes[0].title, 120)} ({narrate.how_sure(view.causes[0].probability)})")
    elif view.state is CardState.DIAGNOSING:
        parts.append("diagnosing")
    if view.plan is not None:
        parts.append(f"Fix: {narrate.PLAN_STATE[view.plan.state]}")
    return ". ".join(parts) + "."


def header(text: str) -> Block:
    return {"type": "header", "text": {"type": "plain_text", "text": plain(text, 150), "emoji": True}}


def section(text: str) -> Block:
    """`text` is mrkdwn that was escaped by its parts."""
    return {"type": "section", "text": {"type": "mrkdwn", "text": text or _NOTHING, "verbatim": True}}


def context(text: str) -> Block:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text or _NOTHING, "verbatim": True}]}


def sentence(text: str) -> Message:
    """A message of one sentence, which may hold words from outside."""
    shown = inline(text, 1000) or _NOTHING
    return Message(text=shown, blocks=[section(shown)])


def cause_text(cause: CauseLine) -> str:
    name = f"*{inline(cause.title[:1].upper() + cause.title[1:], 200)}*"
    return f"{name} ({inline(cause.cause, 20)}), {narrate.how_sure(cause.probability)}"


def evidence_text(line: EvidenceLine) -> str:
    text = f"{_MARK[line.status]} {inline(line.summary)}"
    if line.now is not None:
        label = f"{inline(line.label, 60)} " if line.label else ""
        text += f" · {label}*{inline(narrate.change(line.now, line.baseline, line.unit), 80)}*"
    return f"{text} · {link(line.url, 'graph')}" if is_web_address(line.url) and len(line.url) <= _GRAPH else text


def suspect_text(suspect: SuspectLine, diff_limit: int = 900, diff_lines: int = 10) -> str:
    when = narrate.clock(suspect.at)
    if suspect.before_onset_s is not None and suspect.before_onset_s >= 0:
        when += f", {narrate.seconds(suspect.before_onset_s)} before the trouble began"
    who = f", by {inline(suspect.author, 60)}" if suspect.author else ""
    where = f" · {link(suspect.url, 'read it there')}" if suspect.url else ""
    lines = [f"*Suspect*  {inline(suspect.summary, 250)}", f"{when}{who}{where}"]
    lines += [f"• {inline(reason, 200)}" for reason in suspect.reasons[:3]]
    text = lines_within(lines, SECTION - diff_limit - 100)
    return f"{text}\n{code(suspect.diff, diff_limit, diff_lines)}" if suspect.diff.strip() else text


def plan_text(plan: PlanLine) -> str:
    """What will change, exactly; how risky; how far it is; who may decide."""
    title = "Undo" if plan.is_undo else "Fix"
    lines = [f"*{title}*  {inline(plan.title, 150)} · {narrate.PLAN_STATE[plan.state]}"]
    for step in plan.steps:
        lines.append(f"{step.index + 1}. {inline(step.effect, 400)}{_step_state(step.state.value, step.note)}")
        if step.undo and plan.state in {PlanState.PROPOSED, PlanState.NOT_VERIFIED}:
            lines.append(f"      undo: {inline(step.undo, 300)}")
    lines += _decision(plan)
    return lines_within(lines, SECTION, "… ({} more lines in the thread)")


def _step_state(state: str, note: str) -> str:
    shown = "" if state == "waiting" else f" · _{state.replace('_', ' ')}_"
    return shown + (f" · {inline(note, 200)}" if note else "")


def _decision(plan: PlanLine) -> list[str]:
    lines: list[str] = []
    if plan.state is PlanState.PROPOSED:
        lines += _asked(plan)
    elif plan.approved_by:
        lines.append(f"Approved by {inline(', '.join(plan.approved_by), 200)}.")
    if plan.state is PlanState.DENIED and plan.decided_by:
        lines.append(f"Denied by {inline(plan.decided_by, 60)}.")
    if plan.why:
        lines.append(inline(plan.why, 400))
    if plan.state is PlanState.NOT_VERIFIED and plan.can_undo:
        lines.append(narrate.UNDO_OFFER)
    if plan.state in narrate.QUESTION:
        lines.append(narrate.QUESTION[plan.state])
    return lines


def _asked(plan: PlanLine) -> list[str]:
    """What whoever may approve has to know."""
    lines: list[str] = []
    if plan.params:
        lines.append(f"With {inline(', '.join(f'{name} = {value}' for name, value in plan.params), 400)}.")
    lines.append(f"Risk {plan.tier.name}: {narrate.TIER[plan.tier]}.")
    if plan.on_failure:
        lines.append(plan.on_failure)
    who = narrate.approvals_needed(plan.may_approve, plan.needed, plan.approved_by)
    lines.append(f"*{inline(plan.hold, 400)}*" if plan.hold else inline(who, 500))
    if plan.requester:
        lines.append(f"Requested by {inline(plan.requester, 60)}, who may not approve it.")
    if plan.expires_at is not None:
        lines.append(f"The offer ends at {narrate.clock(plan.expires_at)}.")
    return lines


def _facts(view: CardView) -> str:
    number = f"PagerDuty #{view.number}" if view.number is not None else "PagerDuty"
    facts = [link(view.url, number) if is_web_address(view.url) else number]
    facts += [
        inline(fact, 60) for fact in (view.environment, f"{view.urgency} urgency" if view.urgency else "") if fact
    ]
    facts.append(f"paged {narrate.clock(view.paged_at)}")
    if view.merged_into:
        name = inline(view.merged_into, 60)
        where = link(view.merged_url, view.merged_into) if is_web_address(view.merged_url) else name
        facts.append(f"*merged into* {where}")
    elif view.state is CardState.RESOLVED:
        facts.append(f"*resolved*{_by(view.resolved_by)}")
    elif view.state is CardState.ACKNOWLEDGED:
        facts.append(f"*acknowledged*{_by(view.acknowledged_by)}")
    elif view.assignees:
        facts.append(f"paging {inline(', '.join(view.assignees), 150)}")
    return " · ".join(facts)


def _by(name: str) -> str:
    return f" by {inline(name, 60)}" if name else ""


def _verdict(view: CardView) -> str:
    if not view.is_configured:
        return inline(narrate.NOT_CONFIGURED, 500)
    if view.state is CardState.DIAGNOSING and not view.causes:
        return narrate.DIAGNOSING
    if not view.causes:
        return narrate.NO_CAUSE
    if view.asked and view.unanswered == view.asked:
        return f"*{narrate.CANNOT_TELL.format(asked=view.asked)}*"
    first = view.causes[0]
    lines = [
        cause_text(first)
        if first.cause != "none"
        else f"*{narrate.NOTHING_WRONG}* ({narrate.how_sure(first.probability)}){_open_questions(view)}"
    ]
    if view.since is not None:
        lead = (view.paged_at - view.since).total_seconds()
        before = f", {narrate.seconds(lead)} before the page" if lead >= 60 else ""
        lines.append(f"Since {narrate.clock(view.since)}{before}.{_felt(view)}")
    elif felt := _felt(view):
        lines.append(felt.strip())
    if view.scope:
        lines.append(f"Where: {inline(view.scope, 200)}")
    if view.impact:
        lines.append(f"Who is hurt: {inline(view.impact, 400)}")
    if rivals := [cause for cause in view.causes[1:3] if cause.probability >= _CLOSE * first.probability]:
        others = ", ".join(f"{inline(cause.title, 100)} ({narrate.percent(cause.probability)})" for cause in rivals)
        lines.append(f"It may also be: {others}")
    return lines_within(lines, SECTION)


def _open_questions(view: CardView) -> str:
    """Calm is only as good as what was asked."""
    return f" {view.unanswered} of {view.asked} questions stayed open." if view.unanswered else ""


def _felt(view: CardView) -> str:
    """In a word, where it was not measured in numbers."""
    if view.impact:
        return ""
    return {True: " Users feel it.", False: " Users do not feel it.", None: ""}[view.user_impact]


def _evidence(evidence: tuple[EvidenceLine, ...], most: int = 5) -> str:
    """The bad findings first; what is fine is for the thread."""
    bad = [line for line in evidence if line.status is Status.BAD]
    lines = [evidence_text(line) for line in bad[:most]]
    if sum(map(len, lines)) > SECTION - 100:  # the sentences matter more than their graphs
        lines = [evidence_text(replace(line, url="")) for line in bad[:most]]
    if len(bad) > most:
        lines.append(f"… ({len(bad) - most} more in the thread)")
    return lines_within(lines, SECTION)


def _runbook(view: CardView) -> str:
    if view.runbook is None:
        return f"*Runbook*  {narrate.NO_RUNBOOK}"
    lines = [f"*Runbook*  {runbook_text(view.runbook)}"]
    if view.other_runbooks:
        lines.append("Also possible: " + ", ".join(link(book.url, book.title, 100) for book in view.other_runbooks[:2]))
    return lines_within(lines, SECTION)


def runbook_text(book: RunbookLine) -> str:
    heading = f", “{inline(book.heading, 100)}”" if book.heading else ""
    reasons = "; ".join(inline(reason, 120) for reason in book.reasons[:3])
    told = [link(book.url, book.title) + heading, reasons, narrate.tally(book.helpful, book.wrong)]
    return " · ".join(part for part in told if part)


def _no_plan(view: CardView) -> str:
    if not view.shows_fixes:
        return narrate.OBSERVE_ONLY
    why = inline(view.no_plan_because, 300) or "no runbook step fits the evidence."
    return f"*No fix offered:* {why}"


def _not_checked(spots: Sequence[BlindLine], most: int = 3) -> str:
    lines = [f"Not checked: {inline(spot.sentence, 220)}" for spot in spots[:most]]
    if more := sum(len(spot.checks) for spot in spots[most:]):
        lines.append(f"… and {more} more in the thread")
    return "\n".join(lines)


def seen_text(line: SeenLine) -> str:
    """A past incident; the number leads to it in PagerDuty."""
    rest = line.sentence.removeprefix(line.name)
    return f"{link(line.url, line.name)}{inline(rest)}"


def _seen(incident_id: str, lines: Sequence[SeenLine]) -> str:
    more = f" · {len(lines) - 1} more: watchkeeper similar {inline(incident_id, 60)}" if len(lines) > 1 else ""
    return f"Seen before: {seen_text(lines[0])}{more}"


def _small_print(view: CardView) -> list[str]:
    texts = [_seen(view.incident_id, view.seen)] if view.seen else []
    texts += [f"⚠️ {inline(trouble, 300)}" for trouble in view.troubles[:3]]
    texts += [
        f"{'Undo' if plan.is_undo else 'Earlier fix'}: {inline(plan.title, 120)}, {narrate.PLAN_STATE[plan.state]}."
        for plan in view.earlier_plans[-2:]
    ]
    if view.blind_spots:
        texts.append(_not_checked(view.blind_spots))
    if view.deeds:
        done = [
            f"{narrate.clock(deed.at)} {inline(deed.who, 60)} {inline(deed.did, 120)}" for deed in newest(view.deeds, 4)
        ]
        texts.append(" · ".join(done))
    return texts
