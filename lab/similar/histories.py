"""
Made-up histories: incidents that are over, and one that has just begun, of the alert texts and their diagnoses.

Each history is one organisation's: a dozen of the catalogue's causes befall it, a few of them often. No text of the
past is the question's own. Half of all incidents are paged by the lab's rule for their cause, which other causes share,
and half by the alert that the text's tool would send; half of the past causes were confirmed by a fix, the others were
only diagnosed, and some of those are wrong.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from lab.alert_texts.evaluate import cause_title
from lab.alert_texts.texts import FAMILIES, NO_FAULT, UNCOVERED, AlertText, AlertTexts, Ranked
from lab.scenarios import scenario
from retrieval.documents import Question
from retrieval.similar import Past

SIZE = 40
"""Past incidents of one history."""

CAUSES = 12
NEW = 0.3
"""The share of questions whose cause has not befallen the organisation, or is none of the catalogue's."""

_NOW = datetime(2026, 11, 23, tzinfo=UTC)
_YEAR_MINUTES = 525_600


@dataclass(frozen=True, kw_only=True)
class Happened:
    """One incident: what was paged, what the diagnosis said, and the truth."""

    text: AlertText
    ranked: Ranked
    page: Question
    truth: str


@dataclass(frozen=True, kw_only=True)
class History:
    """What was, newest first, and what is asked; `truths` are the past incidents' causes by id."""

    past: Sequence[Past]
    truths: dict[str, str]
    asked: Happened

    @property
    def recurs(self) -> bool:
        """Did the cause of what is asked befall them before?"""
        return self.asked.truth in self.truths.values()


def histories(texts: AlertTexts, count: int, seed: int, families: Sequence[str] = FAMILIES) -> Iterator[History]:
    """The same for the same seed; of these families of causes."""
    by_cause: dict[str, list[AlertText]] = {}
    for family in families:
        for text in texts.families[family]:
            by_cause.setdefault(str(text.cause), []).append(text)
    for number in range(count):
        yield _history(random.Random(f"{seed}:{number}"), texts, by_cause)


def _history(dice: random.Random, texts: AlertTexts, by_cause: dict[str, list[AlertText]]) -> History:
    theirs = dice.sample(sorted(by_cause), CAUSES)
    often = [1 / rank for rank in range(1, CAUSES + 1)]
    text = _asked(dice, texts, by_cause, theirs, often)
    past, truths = [], {}
    minutes = sorted(dice.sample(range(60, _YEAR_MINUTES), SIZE))
    for number, ago in enumerate(minutes):
        cause = dice.choices(theirs, often)[0]
        happened = _happened(dice, texts, dice.choice([each for each in by_cause[cause] if each != text]))
        item = _past(dice, f"past-{number:02}", happened, _NOW - timedelta(minutes=ago))
        past.append(item)
        truths[item.incident_id] = cause
    return History(past=past, truths=truths, asked=_happened(dice, texts, text))


def _asked(
    dice: random.Random,
    texts: AlertTexts,
    by_cause: dict[str, list[AlertText]],
    theirs: Sequence[str],
    often: Sequence[float],
) -> AlertText:
    """Mostly what befalls them anyway; else half and half a cause that is new to them, and none that we know."""
    if dice.random() >= NEW:
        return dice.choice(by_cause[dice.choices(theirs, often)[0]])
    if dice.random() < 0.5:
        return dice.choice(by_cause[dice.choice(sorted(set(by_cause) - set(theirs)))])
    return dice.choice(texts.families[UNCOVERED])


def _happened(dice: random.Random, texts: AlertTexts, text: AlertText) -> Happened:
    ranked = dice.choice(texts.diagnoses[text.cause or NO_FAULT])
    alert, said = text.alert, text.text
    if text.cause is not None and dice.random() < 0.5:
        alert = scenario(text.cause).rules[0].name
        said = f"[FIRING:1] {alert} {text.service}\n{text.text.replace(text.alert, alert) if text.alert else text.text}"
    page = Question(text=said, alert=alert, service=text.service)
    return Happened(text=text, ranked=ranked, page=page, truth=text.cause or "")


def _past(dice: random.Random, incident_id: str, happened: Happened, began: datetime) -> Past:
    asked = diagnosed(happened.page, happened.ranked)
    cause, certainty = happened.ranked[0]
    if dice.random() < 0.5:  # a fix for the true cause was verified
        cause, certainty = happened.truth, 1.0
    elif cause in ("none", "other"):
        cause, certainty = "", 0.0
    return Past(
        incident_id=incident_id,
        began=began,
        title=happened.page.text.partition("\n")[0],
        text=asked.text,
        alert=asked.alert,
        service=asked.service,
        cause=cause,
        certainty=certainty,
    )


def diagnosed(page: Question, ranked: Ranked) -> Question:
    """As the product asks: the page, the title of the first cause, and the causes."""
    first = ranked[0][0]
    said = page.text if first in ("none", "other") else f"{page.text}\n{cause_title(first)}"
    return replace(page, text=said, causes=ranked)
