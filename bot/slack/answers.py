"""Answers to `/oncall`, seen only by the person who asked; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bot import narrate
from bot.incidents import IncidentLine
from bot.slack.blocks import SECTION, section
from bot.slack.escape import inline, lines_within, link
from bot.slack.view import Message
from retrieval.documents import Hit


def help_text(commands: Iterable[tuple[str, str]], unknown: str = "") -> Message:
    """`commands` are pairs of usage and description, from the table that also runs them."""
    lines = [f"There is no `{inline(unknown, 40)}`. These exist:"] if unknown else []
    lines += [f"• `/oncall {usage}`  {description}" for usage, description in commands]
    return Message(text="Help for /oncall", blocks=[section("\n".join(lines))])


def elsewhere(text: str, url: str) -> Message:
    """What cannot be done here, with the page where it can; without an address the sentence alone."""
    shown = inline(text, 1000)
    return Message(text=shown, blocks=[section(f"{shown}\n{link(url, 'Open the page')}" if url else shown)])


def status(lines: Sequence[IncidentLine], stopped: str = "") -> Message:
    """Every open incident in a line: what, where, how it stands, and for whom it waits; above them the kill switch."""
    above = [section(f"\u26d4 *{inline(stopped, 600)}*")] if stopped else []
    if not lines:
        return Message(text=narrate.NO_OPEN_INCIDENTS, blocks=[*above, section(narrate.NO_OPEN_INCIDENTS)])
    shown = [_status_line(line) for line in lines]
    title = f"*{len(lines)} open {'incident' if len(lines) == 1 else 'incidents'}*"
    rest = "… ({} more in PagerDuty)"
    return Message(text=f"{len(lines)} open", blocks=[*above, section(lines_within([title, *shown], SECTION, rest))])


def hits(query: str, found: Sequence[Hit]) -> Message:
    """The runbooks that fit, best first, each with its reasons."""
    asked = inline(query, 100)
    if not found:
        text = f"No runbook fits “{asked}”."
        return Message(text=text, blocks=[section(text)])
    lines = [f"*Runbooks for “{asked}”*"]
    for hit in found[:5]:
        heading = f", “{inline(hit.heading, 100)}”" if hit.heading else ""
        reasons = "; ".join(inline(reason, 120) for reason in hit.reasons[:3])
        lines.append(f"• {link(hit.link, hit.title)}{heading}" + (f" · {reasons}" if reasons else ""))
    return Message(text=f"Runbooks for “{asked}”", blocks=[section(lines_within(lines, SECTION))])


def _status_line(line: IncidentLine) -> str:
    cause = f" · {inline(line.cause, 120)}" if line.cause else ""
    waiting = f" · waits for {inline(line.waiting_for, 100)}" if line.waiting_for else ""
    return f"• {link(line.url, line.title)} ({inline(line.service, 60)}, {inline(line.state, 30)}){cause}{waiting}"
