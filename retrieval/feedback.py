"""
What a team found helpful, and its fixes that worked, as a small bounded push on the order of what was found; pure.

For each pair of (alert or cause, runbook) the votes become a prior in log-odds, drawn towards zero (`SHRINKAGE`) and
cut off (`CAP`). It moves runbooks that were found anyway among each other, and never one past another that the alert
links or whose author declared the alert. The floor is applied before, so nothing appears that would not have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from retrieval.candidates import never_surer_than_the_one_above
from retrieval.documents import Hit, Question

SHRINKAGE = 2.0
"""Votes for each side that a pair begins with: one vote moves by 0.41, three by 0.92."""

CAP = 1.0
"""Log-odds: the most that any number of votes and fixes moves one runbook."""

MOST_FIXES = 3
"""Fixes beyond this say nothing new about a runbook: a policy that acts by itself makes hundreds."""

LIKELY = 0.3
"""A cause less likely than this is none that an incident is remembered by."""

_NO_CAUSE = frozenset({"none", "other", "unknown"})
_SUREST = 0.999  # of a probability, so that its log-odds are finite


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """A person's live vote on a runbook in one incident."""

    person: str
    runbook: str
    verdict: Literal["helpful", "wrong"]
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """An incident: what was asked of the runbooks, what people said, and whose steps resolved it."""

    incident: str
    question: Question
    opinions: tuple[Opinion, ...] = ()
    resolved_by: frozenset[str] = frozenset()

    @property
    def right(self) -> frozenset[str]:
        """The runbooks known to be right: whose steps resolved it, and those that more found helpful than wrong."""
        votes: dict[str, int] = {}
        for opinion in self.opinions:
            votes[opinion.runbook] = votes.get(opinion.runbook, 0) + (1 if opinion.verdict == "helpful" else -1)
        return self.resolved_by | {runbook for runbook, balance in votes.items() if balance > 0}


@dataclass(frozen=True, kw_only=True)
class Prior:
    """How many people of a team found a runbook helpful or wrong for one alert or cause, and how often it resolved."""

    runbook: str
    sha256: str  # hex, of the runbook's content that the reviewer saw; another text has no prior
    helpful: int = 0
    wrong: int = 0
    resolved: int = 0

    @property
    def log_odds(self) -> float:
        """Within -CAP..CAP; 0 says nothing."""
        good = self.helpful + min(self.resolved, MOST_FIXES) + SHRINKAGE
        return min(max(math.log(good / (self.wrong + SHRINKAGE)), -CAP), CAP)


Experience = Mapping[str, Mapping[str, Prior]]
"""What one team knows: by alert or cause (`keys_of`), by runbook."""

NOTHING: Experience = {}


def keys_of(question: Question) -> tuple[str, ...]:
    """What an incident is remembered by: its alert, then its likeliest cause; where both know a runbook, the alert."""
    causes = [pair for pair in question.causes if pair[1] >= LIKELY and pair[0] not in _NO_CAUSE]
    cause, _ = max(causes, key=lambda pair: pair[1], default=("", 0.0))
    return (*((f"alert {question.alert}",) if question.alert else ()), *((f"cause {cause}",) if cause else ()))


def learned(lessons: Iterable[Lesson], contents: Mapping[str, str]) -> dict[str, dict[str, Prior]]:
    """
    What these incidents of one team teach about the runbooks that exist now; `contents` are their SHA-256 by id.

    A person counts once for each pair, by their latest vote: a hundred votes of one are one.
    """
    latest: dict[tuple[str, str, str], Opinion] = {}
    fixes: dict[tuple[str, str], int] = {}
    for lesson in lessons:
        for key in keys_of(lesson.question):
            for runbook in lesson.resolved_by:
                fixes[key, runbook] = fixes.get((key, runbook), 0) + 1
            for opinion in lesson.opinions:
                voter = (key, opinion.runbook, opinion.person)
                latest[voter] = max(latest.get(voter, opinion), opinion, key=lambda each: (each.at, each.verdict))
    votes: dict[tuple[str, str], list[str]] = {}
    for (key, runbook, _), opinion in latest.items():
        votes.setdefault((key, runbook), []).append(opinion.verdict)
    found: dict[str, dict[str, Prior]] = {}
    for key, runbook in sorted({*votes, *fixes}):
        if runbook in contents:
            said = votes.get((key, runbook), [])
            found.setdefault(key, {})[runbook] = Prior(
                runbook=runbook,
                sha256=contents[runbook],
                helpful=said.count("helpful"),
                wrong=said.count("wrong"),
                resolved=fixes.get((key, runbook), 0),
            )
    return found


def reordered(hits: Sequence[Hit], question: Question, experience: Experience) -> list[Hit]:
    """
    These hits, best first, as the team's experience would have them; without any they stay as they are.

    A hit never passes one of higher standing that was before it, whatever the votes.
    """
    counted = [_prior(hit, question, experience) for hit in hits]
    if not any(prior for _, prior in counted):
        return list(hits)
    places: list[tuple[float, int, float, int]] = []
    for at, (hit, (_, prior)) in enumerate(zip(hits, counted, strict=True)):
        wished = _logit(hit.score) + (prior.log_odds if prior else 0.0)
        above = [places[before][0] for before in range(at) if hits[before].standing > hit.standing]
        value = min([wished, *(-place for place in above)])
        places.append((-value, -hit.standing, -wished, at))
    told = [_told(hit, key, prior) for hit, (key, prior) in zip(hits, counted, strict=True)]
    return never_surer_than_the_one_above([told[at] for *_, at in sorted(places)])


def _prior(hit: Hit, question: Question, experience: Experience) -> tuple[str, Prior | None]:
    """What counts for this hit, and under which key; nothing for a text that no reviewer saw."""
    for key in keys_of(question):
        prior = experience.get(key, {}).get(hit.doc_id)
        if prior is not None:
            is_known = bool(prior.sha256) and prior.sha256 == hit.origin.sha256
            return key, prior if is_known and prior.log_odds else None
    return "", None


def _told(hit: Hit, key: str, prior: Prior | None) -> Hit:
    return hit if prior is None else replace(hit, reasons=(in_words(key, prior), *hit.reasons))


def in_words(key: str, prior: Prior) -> str:
    """ "3 of your team found it helpful for this alert, its steps resolved 2 incidents"."""
    what = key.partition(" ")[0]
    said = [f"{count} {word}" for count, word in ((prior.helpful, "helpful"), (prior.wrong, "wrong")) if count]
    parts = []
    if said:
        first, *more = said
        count, _, word = first.partition(" ")
        parts.append(", ".join([f"{count} of your team found it {word} for this {what}", *more]))
    if prior.resolved:
        times = "1 incident" if prior.resolved == 1 else f"{prior.resolved} incidents"
        parts.append(f"its steps resolved {times}" + ("" if said else f" with this {what}"))
    return ", ".join(parts)


def _logit(probability: float) -> float:
    held = min(max(probability, 1 - _SUREST), _SUREST)
    return math.log(held / (1 - held))
