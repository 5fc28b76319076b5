"""
What goes wrong, in the words of names and of sentences: "VirtApiDown" and "no running pods were detected" say the same.

Rule authors name an alert by component and trouble, and its runbook by the same; the sentence that pages says the
trouble in other words, which neither BM25 nor a small embedding model takes for the same. A percentage, too, says
which of two siblings is meant ("75 % full", "85 % full").
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_WORDS: Mapping[str, str] = {
    "down": r"""down|absent|missing|disappeared|(?:not|no|none)\ running|unavailable|not\ available|unreachable|lost
        |gone|offline|cannot\ be\ scraped|could\ not\ scrape
        |no\ \w+(?:\ \w+){0,4}\ (?:was|were|is|are|has|have)\ (?:been\ )?(?:detected|running|found|up)""",
    "low": r"""low|insufficient|few|fewer|less\ than|below|not\ enough|under|too\ few|only\ \d+
        |more\ than\ one\ [\w]+(?:\ \w+){0,3}\ should""",
    "high": r"""high|exceed(?:s|ed|ing)?|too\ many|excessive(?:ly)?|above|more\ than|greater\ than|over\ \d|crossed
        |large|elevated|using\ more""",
    "not ready": r"not\ ready|unready|ready",
    "no leader": r"lead|leader|leading|leadership",
    "full": r"full|filling|fills?|run(?:s|ning)?\ out|out\ of\ space|capacity|exhausted|exhaustion",
    "slow": r"slow(?:ly)?|latency|latencies|too\ long|longer|delay(?:ed)?|lag|lagging|duration",
    "failing": r"errors?|failed|fails?|failing|failures?|unsuccessful|unable",
    "restarting": r"crash(?:es|ing)?|crash ?loop(?:ing)?|restart(?:s|ing|ed)?",
    "differing": r"""inconsisten(?:t|cy)|mismatch(?:ed)?|out\ of\ sync|(?:not\ )?in\ sync|differ(?:s|ent)?|skew
        |divergent|drift""",
    "expiring": r"expir(?:e|es|ing|ed|y|ation)",
    "stuck": r"stuck|pending|hang(?:ing)?|hung|blocked|no(?:t)?\ progress\w*|stalled",
    "stale": r"stale|outdated|old|not\ (?:\w+\ )?(?:synced|synchronized|updated)|obsolete|deprecated",
    "changed": r"modifi(?:ed|cation|cations)|changed|reverted|edited|out\ of\ band",
    "throttled": r"throttl\w+|rate\ limit\w*|limited",
    "dropped": r"drop(?:s|ped|ping)?|discard\w*|lost\ packets",
}
_TROUBLES = {trouble: re.compile(rf"\b(?:{words})\b", re.VERBOSE) for trouble, words in _WORDS.items()}
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BETWEEN = re.compile(r"[^a-z0-9%]+")
_PERCENT = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,4})?)\s?%")
_NAMED_PERCENT = re.compile(r"\D(\d{2,3})$")  # CapacityWarning85


def troubles(text: str) -> frozenset[str]:
    """The kinds of trouble that a name or a sentence speaks of."""
    said = _BETWEEN.sub(" ", _CAPITAL.sub(" ", text).lower())
    return frozenset(trouble for trouble, words in _TROUBLES.items() if words.search(said))


def percentages(text: str) -> frozenset[str]:
    """The percentages in a text, as written: {"85", "99.9"}."""
    return frozenset(_PERCENT.findall(text))


def named_percentage(name: str) -> frozenset[str]:
    """The percentage at the end of a name, if there is one: "CapacityWarning85" has {"85"}."""
    return frozenset(_NAMED_PERCENT.findall(name.strip()))
