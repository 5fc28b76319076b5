"""Messages in the card's thread: all the evidence, what happens to a fix, and short notes; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bot import narrate
from bot.slack.blocks import (
    SECTION,
    Block,
    cause_text,
    evidence_text,
    plan_text,
    runbook_text,
    section,
    sentence,
    suspect_text,
)
from bot.slack.buttons import votes
from bot.slack.escape import inline, lines_within
from bot.slack.view import CardView, CauseLine, Message, PlanLine

_WORTH_A_REASON = 0.01  # what speaks against a cause that nobody considers is known from the others
_MOST_SECTIONS = 40  # Slack takes 50 blocks
_MOST_RUNBOOKS = 3


def evidence(view: CardView) -> Message:
    """Everything behind the verdict, in full: causes with evidence for and against, findings, suspects, blind spots."""
    parts = [
        [f"*Who is hurt*  {inline(view.impact, 600)}"] if view.impact else [],
        _titled("What it may be", [line for cause in view.causes[:5] for line in _cause(cause)]),
        _titled("What was measured", [evidence_text(line) for line in view.evidence]),
    ]
    suspects = [view.suspect, *view.other_suspects] if view.suspect else list(view.other_suspects)
    parts += [[suspect_text(suspect, diff_limit=1800, diff_lines=40)] for suspect in suspects[:4]]
    parts.append(_titled("Not checked", [f"• {inline(spot.sentence, 400)}" for spot in view.blind_spots]))
    if view.next_check:
        parts.append([f"*Check next*  {inline(view.next_check)}"])
    sections = [section(text) for part in parts for text in _pages(part)][:_MOST_SECTIONS]
    took = f" The diagnosis took {narrate.seconds(view.diagnosis_s)}." if view.diagnosis_s is not None else ""
    title = f"Evidence for diagnosis {view.run} of {inline(view.service, 60)}.{took}"
    return Message(text=title, blocks=[section(title), *sections, *_runbooks(view)])


def _runbooks(view: CardView) -> Iterable[Block]:
    """Each with the buttons beneath it that say whether it helped."""
    books = [view.runbook, *view.other_runbooks] if view.runbook else list(view.other_runbooks)
    for place, book in enumerate(books[:_MOST_RUNBOOKS]):
        title = "" if place else "*Runbooks*\n"
        yield section(f"{title}• {runbook_text(replace(book, helpful=0, wrong=0))}")  # votes come later, on the card
        yield from votes(view, book)


def progress(plan: PlanLine) -> Message:
    """What a fix did, or is doing, step by step."""
    title = "Undo" if plan.is_undo else "Fix"
    text = f"{title} {inline(plan.title, 150)}: {narrate.PLAN_STATE[plan.state]}."
    return Message(text=text, blocks=[section(plan_text(plan))])


def note(text: str) -> Message:
    """A sentence of ours that may hold words from outside."""
    return sentence(text)


def _cause(cause: CauseLine) -> Iterable[str]:
    yield f"• {cause_text(cause)}"
    if cause.probability < _WORTH_A_REASON:
        return
    for fact in cause.evidence_for[:8]:
        yield f"      for: {inline(fact)}"
    for fact in cause.evidence_against[:8]:
        yield f"      against: {inline(fact)}"


def _titled(title: str, lines: Sequence[str]) -> list[str]:
    return [f"*{title}*", *lines] if lines else []


def _pages(lines: Sequence[str]) -> list[str]:
    """Lines in as many sections as they need: the thread leaves nothing out but what exceeds Slack's own limits."""
    pages: list[str] = []
    page: list[str] = []
    size = 0
    for line in lines:
        if page and size + len(line) + 1 > SECTION:
            pages.append("\n".join(page))
            page, size = [], 0
        page.append(line if len(line) <= SECTION else lines_within(line.split("\n"), SECTION, "… ({} more lines)"))
        size += len(line) + 1
    return [*pages, "\n".join(page)] if page else pages
