"""How good answers are: what the schema check, the users and the judge make of them, and what spoils them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from math import log, sqrt
from statistics import NormalDist

import numpy as np

_ASKS_FOR_JSON = re.compile(r"\bJSON\b", re.IGNORECASE)
_GOES_ON = re.compile(r"^### Assistant:$", re.MULTILINE)
_TURNS_AWAY = re.compile(r"\b(decline|refuse)\b", re.IGNORECASE)

ANSWER_SIGMA = 0.6
"""How widely lengths of answers scatter: sigma of the logarithm."""

_USUAL_MAX_TOKENS = 1024
_BREVITY = 0.23
"""The model is told how long an answer may get, and is briefer for it: by a third with a fifth of the tokens."""


_BROKEN_WHEN_CUT, _ANGRY_WHEN_CUT = 0.55, 0.115


@dataclass(frozen=True, kw_only=True)
class AnswerQuality:
    """
    Shares of answers (0 to 1) that pass the schema check, that users mark down, that refuse, are empty or cut short.

    `judge` is the judge's mean score (0 to 1), `length` a factor on the usual number of tokens.
    """

    valid: float = 0.992
    thumbs_down: float = 0.04
    judge: float = 0.86
    refusal: float = 0.015
    empty: float = 0.002
    truncated: float = 0.03
    length: float = 1.0

    @property
    def outcomes(self) -> dict[str, float]:
        """Shares by outcome; they sum to 1."""
        bad = {"refusal": self.refusal, "empty": self.empty, "truncated": self.truncated}
        whole = max(1.0, sum(bad.values()))
        shares = {outcome: share / whole for outcome, share in bad.items()}
        return {"ok": max(0.0, 1 - sum(shares.values())), **shares}

    def moved(self, towards: AnswerQuality, by: float = 1.0) -> AnswerQuality:
        """This quality, as far from itself as `towards` is from the usual, times `by`."""
        shares = {
            name: min(1.0, max(0.0, getattr(self, name) + by * (getattr(towards, name) - getattr(USUAL, name))))
            for name in _SHARES
        }
        return AnswerQuality(**shares, length=self.length * towards.length**by)

    def capped(self, by: Limit) -> AnswerQuality:
        """With answers cut off at a limit: half of them can still be parsed, and one user in nine minds."""
        return replace(
            self,
            truncated=min(1.0, self.truncated + by.cut),
            valid=max(0.0, self.valid - _BROKEN_WHEN_CUT * by.cut),
            thumbs_down=min(1.0, self.thumbs_down + _ANGRY_WHEN_CUT * by.cut),
            length=self.length * by.length,
        )


_SHARES = tuple(each.name for each in fields(AnswerQuality) if each.name != "length")

USUAL = AnswerQuality()
WITHOUT_A_FORM = AnswerQuality(valid=0.71, thumbs_down=0.07, judge=0.80)
"""
What a model makes of a task that needs JSON and does not say so: by habit and by the history in its prompt most answers
still are, the others are prose that the application cannot show.
"""

TURNED_AWAY = AnswerQuality(refusal=0.17, thumbs_down=0.12, judge=0.74, length=0.43)
"""A prompt that tells the model to decline: it does so more often than was meant, and says little about the rest."""

ENDLESS = AnswerQuality(length=2.5, truncated=0.55, thumbs_down=0.08)
"""A model that does not see where its turn ends, and goes on with the customer's until it is cut off."""

GARBLED = AnswerQuality(valid=0.85, thumbs_down=0.15, judge=0.55, truncated=0.25, length=1.8)
"""A model whose weights or arithmetic are damaged: it rambles on until it is cut off."""

UNFAMILIAR = AnswerQuality(thumbs_down=0.06, judge=0.81)
"""Questions of a kind for which nobody wrote the prompt or the passages."""

WITHOUT_PASSAGES = AnswerQuality(thumbs_down=0.132, judge=0.66)
"""A model that answers out of its own memory what the passages should have told it."""

WITHOUT_TOOLS = AnswerQuality(judge=0.68)
"""An agent that never gets from a tool what it was asked for."""


@dataclass(kw_only=True)
class Answering:
    """
    How much each thing that can spoil answers would spoil them; whether it is there, the rest of the world says.

    `outside` is by model of a provider that changed it without a word, `weights` by what an engine's arguments name
    (a revision, an adapter).
    """

    without_form: AnswerQuality = WITHOUT_A_FORM
    turned_away: AnswerQuality = TURNED_AWAY
    endless: AnswerQuality = ENDLESS
    garbled: AnswerQuality = GARBLED
    unfamiliar: AnswerQuality = UNFAMILIAR
    outside: dict[str, AnswerQuality] = field(default_factory=dict)
    weights: dict[str, AnswerQuality] = field(default_factory=dict)

    def to(self, text: str, *, needs_json: bool) -> AnswerQuality:
        """What becomes of a prompt with this text on a route whose application parses JSON, or does not."""
        quality, (asks_for_json, turns_away, goes_on) = USUAL, _traits(text)
        if needs_json and not asks_for_json:
            quality = quality.moved(self.without_form)
        if turns_away:
            quality = quality.moved(self.turned_away)
        if goes_on:
            quality = quality.moved(self.endless)
        return quality


@cache
def _traits(text: str) -> tuple[bool, bool, bool]:
    """Whether a prompt asks for JSON, turns requests away, and shows the model both sides of the talk."""
    asks, away, on = (pattern.search(text) is not None for pattern in (_ASKS_FOR_JSON, _TURNS_AWAY, _GOES_ON))
    return asks, away, on


def drawn(rng: np.random.Generator, towards: AnswerQuality, strength: float) -> AnswerQuality:
    """`strength` times as far from the usual as `towards`, each figure by up to a fifth more or less."""
    by = {name: strength * float(rng.uniform(0.8, 1.2)) for name in (*_SHARES, "length")}
    moved: Mapping[str, float] = {name: getattr(USUAL.moved(towards, by[name]), name) for name in by}
    return AnswerQuality(**moved)


def without_passages(quality: AnswerQuality, missing: float) -> AnswerQuality:
    """With this share of the passages missing (0 to 1): the first ones missed are those that mattered."""
    return quality.moved(WITHOUT_PASSAGES, sqrt(missing)) if missing > 0 else quality


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a cap on an answer's tokens does: the mean length as a factor, and the share of answers cut off at it."""

    length: float
    cut: float


def limit(max_tokens: int, mean_tokens: float) -> Limit:
    """
    A cap on answers that would have this mean, lognormal in length.

    Who is told a smaller budget plans for less of an answer, so fewer are cut than the cap alone would cut; the mean
    of what is left is that of a lognormal with everything above the cap moved down to it. At the usual cap: no change.
    """
    if max_tokens >= _USUAL_MAX_TOKENS:
        return Limit(length=1.0, cut=0.0)
    planned = mean_tokens * (max_tokens / _USUAL_MAX_TOKENS) ** _BREVITY
    normal = NormalDist(mu=log(planned) - ANSWER_SIGMA**2 / 2, sigma=ANSWER_SIGMA)
    cut = 1 - normal.cdf(log(max_tokens))
    below = NormalDist().cdf((log(max_tokens) - normal.mean - ANSWER_SIGMA**2) / ANSWER_SIGMA)
    return Limit(length=(planned * below + max_tokens * cut) / mean_tokens, cut=cut)
