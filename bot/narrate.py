"""The words that people read, most of them at 3 a.m.: calm, short, a number with its unit, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from bot.incidents import PlanState
from runbooks.engine.values import Tier

TIER = {
    Tier.R0: "changes nothing",
    Tier.R1: "reversible within five minutes",
    Tier.R2: "reversible at a cost: requests in flight are lost or capacity drops",
    Tier.R3: "cannot be undone",
}

ROLE = {
    "on-call": "on-call",
    "service-owner": "service owner",
    "prompt-owner": "prompt owner",
    "platform": "platform team",
    "security": "security team",
    "budget": "budget owner",
}

PLAN_STATE = {
    PlanState.ALTERNATIVE: "another possible fix",
    PlanState.PROPOSED: "waits for approval",
    PlanState.APPROVED: "approved, starting",
    PlanState.RUNNING: "running",
    PlanState.VERIFIED: "done, and the telemetry confirms it",
    PlanState.DONE: "done",
    PlanState.NOT_VERIFIED: "done, but the telemetry did not recover",
    PlanState.FAILED: "failed; nothing more was changed",
    PlanState.IN_DOUBT: "interrupted: a step may or may not have run",
    PlanState.WAITING: "waits for a person to do a step",
    PlanState.DENIED: "denied",
    PlanState.EXPIRED: "expired before anybody decided",
    PlanState.STALE: "not started: the state it was made for has changed",
    PlanState.STOPPED: "stopped; it will not go on",
    PlanState.SUPERSEDED: "replaced by a newer fix",
}

OUTCOME = {
    "verified": "fixed by “{fix}”, verified",
    "not verified": "“{fix}” did not help",
    "undone": "“{fix}” was undone",
    "by hand": "“{fix}” was done by hand",
    "done, unproven": "“{fix}” was done, and nothing proves that it helped",
    "cut short": "“{fix}” was cut short",
    "none": "no fix ran here",
}
"""What became of a past incident's fix."""

DIAGNOSING = "Diagnosing: reading the telemetry and the recent changes. The verdict usually takes a few seconds."
NOT_CONFIGURED = (
    "This PagerDuty service is not in watchkeeper.toml, so nothing can be diagnosed or fixed here. "
    "Next: work from PagerDuty; to change that, add a [[service]] with its pagerduty_service id."
)
NOTHING_WRONG = "The telemetry looks as it usually does."
CANNOT_TELL = "Nothing can be told: none of the {asked} questions could be answered."
NO_CAUSE = "No known cause fits the evidence. Next: read the evidence in the thread."
OBSERVE_ONLY = "This service is in observe mode: Watchkeeper offers no fix here."
SHOWN_ONLY = "{service} is in mode suggest: its fixes are shown to be done by hand, and nothing runs from here."
NOT_BY_ITSELF = "The fix did not start by itself. {why}"
FOR_PEOPLE = "A fix of this incident was tried, refused or chosen by somebody before, so people decide."
NO_RUNBOOK = "No runbook fits."
QUESTION = {
    PlanState.IN_DOUBT: "Watchkeeper was cut off while this step ran and could not find out whether it took effect. "
    "Next: look at the system itself, then say what you saw.",
    PlanState.WAITING: "This step is for a person. Next: do it as it says, then say so; the rest goes on by itself.",
}
"""What a person is asked, where the plan's next chapter waits for the answer."""
UNDO_OFFER = "Next: undo it, or diagnose again."
TOO_SLOW = (
    "This took too long, so it is not certain that it was recorded. The card shows what counts; try again if not."
)
NOT_A_MEMBER = "Watchkeeper does not know you as somebody who may do this. Ask the service's owner to add you."
CANNOT_CHECK_YOU = "Slack could not confirm who you are just now, so nothing was done. Try again in a moment."
UNCONFIRMED = "for {age} Slack could not confirm that {person} is still a member ({why})"
CANNOT_LOOK_YOU_UP = "Watchkeeper's database cannot be asked just now, so nothing was done. Try again in a moment."
ODD_CLICK = "This button no longer means anything. Use the buttons on the newest card."
NO_OPEN_INCIDENTS = "No open incidents."
SEARCHING = "One moment…"
ASK_FOR_REASON = "Say which plan and why, for example `/oncall break-glass plan-1a2b nobody else answers`."
ASK_FOR_TEXT = "Say what you are looking for, for example `/oncall runbook first token slow`."

# What the person hears, only they, after a click that counted.
DONE = {
    "acknowledge": "Acknowledged; PagerDuty is being told.",
    "resolve": "Resolved; PagerDuty is being told.",
    "rediagnose": "Diagnosing again; the card follows.",
    "approve": "Your approval is recorded.",
    "deny": "Denied; nothing will run.",
    "revoke": "The approval is taken back; nothing has run. The fix is offered again, as one that nobody approved.",
    "escalate": "PagerDuty is asked to page the secondary. As many people are needed as before.",
    "break_glass": "The fix starts on your word alone. The channel, PagerDuty and the record say so.",
    "undo": "The undo is on its way, made from the state now; the card and the thread follow.",
    "request": "Requested; the card shows the new fix.",
    "narrow": "The fix is made anew with these values; the card follows. Somebody else has to approve it.",
    "settle": "Recorded.",
    "adopt": "Adopted: it counts from the next incident on. `watchkeeper retrieval rollback` takes it back.",
    "vote": "Thank you; your vote is recorded.",
    "stop": "Everything is stopped. A call that was already sent ends; nothing new starts, on any machine.",
    "go": "Fixes may start again. Those from before the stop will not: diagnose again for fresh ones.",
}
OFFERED_ALONE = "Started alone, it is not taken back by itself if it does not verify: its undo is only offered."
OTHER_VALUES = (
    "Other values make a new fix. This one ends with its approvals, and somebody else has to approve the new one."
)
NO_FORM = "The form could not be opened ({why}). Click again, or use `watchkeeper narrow {plan}`."
RANKING_BACK = "Taken back; the ranking {digest} counts again."
NO_RANKING = "Taken back; no learned ranking counts any more."
VOTE = {"helpful": "Helpful", "wrong": "Wrong runbook"}
STOPPED_ALREADY = "Everything was stopped already."
NOTHING_STOPPED = "Nothing is stopped."

STEP_UP = "For this a click is not enough: it needs a one-time code, outside Slack."
NO_STEP_UP = "That is not set up here: whoever keeps the server sets {key}, as docs/security.md says."
NO_CODES = "You have none: have `watchkeeper operator totp set-up {person}` run for you where the server is."
STEP_UP_WHERE = "Type it on the plan's page, or with `watchkeeper {deed} {plan}`."

BREAK_GLASS = "Somebody else has to review it within a day: `watchkeeper audit review {review}`."

_ERRAND = {"undo": "an undo", "narrow": "other values"}


def taken_back(lasting: Sequence[int], *, may_start_itself: bool) -> str:
    """
    To whoever approves what is taken back without a click if it does not verify. `lasting` are the numbers of the steps
    that cannot be undone; `may_start_itself`: the policy may approve it, which covers no undo.
    """
    words = "If it does not verify, Watchkeeper takes it back by itself"
    if lasting:
        steps = f"{'step' if len(lasting) == 1 else 'steps'} {' or '.join(map(str, lasting))}"
        words = f"{words}; once {steps} has run, that and what came before it stay"
    return f"{words}. Where it starts without a person, its undo is only offered." if may_start_itself else f"{words}."


def refused_errand(name: str, what: str, why: str) -> str:
    """In the thread, when what somebody asked for cannot be done; `what` is the errand's kind."""
    return f"{name} asked for {_ERRAND.get(what, what)}, and it was not done. {why}"


STOPPED_LONG = timedelta(hours=1)


def stopped(who: str, reason: str, at: datetime | None, now: datetime | None = None) -> str:
    """
    While the kill switch is on: on every card, in the channel, and to whoever is refused; with `now` also a reminder
    when it has been for long.
    """
    when = f" since {clock(at)}" if at else ""
    by = f", by {who}" if who else ""
    why = f" ({reason})" if reason else ""
    is_long = now is not None and at is not None and now - at > STOPPED_LONG
    reminder = " That was more than an hour ago: is it still needed?" if is_long else ""
    return f"Everything is stopped{when}{by}{why}. No fix starts until somebody says /oncall go.{reminder}"


def frozen(service: str, name: str, reason: str, until: datetime) -> str:
    """In a freeze: on the card, and to whoever approves."""
    return (
        f"Fixes for {service} rest until {until.astimezone(UTC):%a %d %b %Y, %H:%M} UTC ({name}: {reason}). "
        "Until then break-glass is the only way."
    )


def released(who: str, _: str, at: datetime | None) -> str:
    """In the channel, when somebody turned it back."""
    when = f" at {clock(at)}" if at else ""
    return f"{who} ended the stop{when}. Fixes from before it will not start; diagnose again for fresh ones."


def second_person(name: str, plan_id: str) -> str:
    """What the secondary is paged with."""
    return f"{name} asks for a second person to look at a fix for this incident: {plan_id}."


def glass_broken(who: str, effects: Sequence[str], reason: str, review: int) -> str:
    """In the channel and in PagerDuty, as soon as somebody starts a fix alone."""
    return (
        f"{who} broke the glass and starts this alone: {' '.join(effects)} Reason: {reason}. "
        f"{BREAK_GLASS.format(review=review)}"
    )


def step_up_refused(why: str, locked_until: datetime | None) -> str:
    """Why a code did not count, and what to do; `why` is a word of the store's Verdict."""
    until = f" After five of them in a row nothing is taken before {clock(locked_until)}." if locked_until else ""
    if why == "locked":
        return f"Too many wrong codes. The next one is taken after {clock(locked_until)}." if locked_until else ""
    if why == "used":
        return f"This code was used already; wait for the next one.{until}"
    return f"This code does not count; type the one that is shown now.{until}"


def seconds(value: float) -> str:
    """A duration as a person says it: 466 ms, 1.2 s, 45 s, 12 min, 3.5 h, 2 d."""
    size = abs(value)
    if size >= 172_800:
        return f"{value / 86_400:.0f} d"
    if size >= 7_200:
        return f"{value / 3_600:.1f} h".replace(".0 h", " h")
    if size >= 120:
        return f"{value / 60:.0f} min"
    if size >= 10:
        return f"{value:.0f} s"
    if size >= 0.9995:
        return f"{value:.1f} s"
    return f"{value * 1000:.0f} ms" if size >= 0.01 else f"{value * 1000:.2g} ms"


def known_cause(cause: str, probability: float, *, is_confirmed: bool) -> str:
    """A past incident's cause, and how it is known."""
    if not cause:
        return "no cause found"
    return f"{cause}, {'confirmed by its fix' if is_confirmed else f'only diagnosed ({percent(probability)})'}"


def seen(name: str, earlier_s: float, cause: str, outcome: str, took_s: float) -> str:
    """One past incident in a line."""
    return f"{name}, {seconds(earlier_s)} earlier, {cause}, {outcome}, over after {seconds(took_s)}"


def amount(value: float | None, unit: str) -> str:
    """A number with its unit; `unit` is one of Measure's ("s", "ratio", "1/s", "tokens", "usd/h", or a plain word)."""
    if value is None or not math.isfinite(value):
        return "unknown"
    if unit == "s":
        return seconds(value)
    if unit == "ratio":
        return percent(value)
    if unit == "1/s":
        return f"{value:,.3g}/s"
    if unit == "usd/h":
        return f"{value:,.2f} USD/h"
    shown = f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
    return f"{shown} {unit}".strip()


def percent(ratio: float) -> str:
    """0.034 -> "3.4 %"; one decimal only where it matters."""
    value = ratio * 100
    return f"{value:.1f} %" if 0 < abs(value) < 10 and round(value, 1) != round(value) else f"{value:.0f} %"


def change(now: float | None, baseline: float | None, unit: str) -> str:
    """ "740 ms (normally 466 ms)"."""
    shown = amount(now, unit)
    return shown if baseline is None or now is None else f"{shown} (normally {amount(baseline, unit)})"


def clock(at: datetime) -> str:
    """ "14:03 UTC"; one clock for everybody, the one of the graphs."""
    return f"{at.astimezone(UTC):%H:%M} UTC"


def how_sure(probability: float) -> str:
    """A word beside the number, since 60 % reads like "yes" at night."""
    share = percent(min(max(probability, 0.0), 1.0))
    if probability >= 0.8:
        return f"{share} sure"
    if probability >= 0.1:
        return f"{share}, likely" if probability >= 0.5 else f"{share}, a guess"
    return f"{share}, unlikely"


def roles(names: tuple[str, ...]) -> str:
    """ "prompt owner or service owner"; names of people stay as they are."""
    words = [ROLE.get(name, name) for name in names]
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def approvals_needed(may_approve: tuple[str, ...], needed: int, approved_by: tuple[str, ...]) -> str:
    """Who may approve, and how many still have to."""
    if not may_approve:
        return "Nobody may approve this here: no policy in watchkeeper.toml allows it."
    who = f"May approve: {roles(may_approve)}."
    if needed > 1:
        so_far = f" So far: {', '.join(approved_by)}." if approved_by else ""
        return f"{who} {needed} different people are needed.{so_far}"
    return who


def verdict_note(service: str, causes: Sequence[tuple[str, float]], run: int) -> str:
    """The verdict as a PagerDuty note; the run number keeps the notes of two diagnoses apart."""
    if not causes:
        return f"Watchkeeper, diagnosis {run}: no cause found for {service}. The evidence is in Slack."
    title, probability = causes[0]
    return f"Watchkeeper, diagnosis {run}: {title} ({how_sure(probability)}). The evidence and the fix are in Slack."


def slack_down_opening(run: int) -> str:
    """How the next note begins, by which it is found again."""
    return f"Watchkeeper, diagnosis {run}: Slack cannot be reached, so this is not shown there."


def slack_down_note(
    run: int, verdict: str, *, effects: Sequence[str], plan_id: str, may_approve: Sequence[str], needed: int, page: str
) -> str:
    """What people need who cannot see the card: the verdict, the fix, and how to approve it elsewhere."""
    lines = [slack_down_opening(run), verdict]
    if plan_id:
        count = "" if needed == 1 else f"{needed} of: "
        lines.append(f"Proposed fix: {' '.join(effects)} It may be approved by: {count}{', '.join(may_approve)}.")
        ways = [f"on {page}"] if page else []
        lines.append(f"To approve it without Slack: {' or '.join([*ways, f'with `watchkeeper approve {plan_id}`'])}.")
    elif page:
        lines.append(f"No fix waits for approval. The evidence is on {page}")
    return "\n".join(lines)


def outcome_note(effects: Sequence[str], state: str, approved_by: Sequence[str], plan_id: str) -> str:
    """How a fix ended, as a PagerDuty note."""
    who = f" Approved by {', '.join(approved_by)}." if approved_by else ""
    return f"Watchkeeper, {plan_id}: {state}. {' '.join(effects)}{who}"


def tally(helpful: int, wrong: int) -> str:
    """Votes on a runbook: "2 found it helpful, 1 wrong"; "" without any."""
    if helpful and wrong:
        return f"{helpful} found it helpful, {wrong} wrong"
    return f"{helpful} found it helpful" if helpful else f"{wrong} found it wrong" if wrong else ""


def voted(verdict: str, helpful: int, wrong: int) -> str:
    """To whoever voted; "" for a vote that was taken back."""
    begun = (
        f"Recorded: {VOTE[verdict].lower()}. The same click takes it back." if verdict else "Your vote is taken back."
    )
    now = tally(helpful, wrong)
    return f"{begun} In this incident {now}." if now else begun
