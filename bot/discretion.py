"""
What of a changed text leaves the diagnosis: its diff without credentials; of a prompt, as much as its service allows.

The diagnosis reads whole prompts and manifests to judge them. This stands right behind it, before anything is stored,
drawn or printed, so whatever comes later cannot show what was never passed on.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal

from pydantic import TypeAdapter

from bot.redact import clean_text, safe_text, safe_values
from diagnostics.changes.change import Change, ChangeSource
from diagnostics.changes.diff import new_variable_at_start
from diagnostics.changes.ranking import diff_of
from diagnostics.diagnosis import Diagnosis, Suspect
from diagnostics.runner import Diagnoser
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.traces.model import TraceSource

PromptDiff = Literal["full", "redacted", "link"]
_DIAGNOSIS = TypeAdapter(Diagnosis)

# Names that steps and people need as they are: no sentence is among them. Not the scope, which is labels' values: some
# exporters write an API key itself into one.
_IDENTITIES = frozenset({"id", "undo", "culprit_change", "cause", "check", "signal", "kind", "service", "url"})

_LONGEST_ID = 512

_MASK = "\N{MEDIUM SHADE}"
_A_DATE = "[a date]"
_WORD = re.compile(r"[\w\u0080-\U0010ffff]+")
_WORDS = re.compile(rf"{_MASK}(?: {_MASK})+")
_DATE = re.compile(rf"\d{{4}}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?|{re.escape(_A_DATE)}")
# Names in template brackets; a bracket that holds more than a name and filters is prose.
_TEMPLATE = re.compile(
    r"(\{\{\s*[#/^]?[A-Za-z_][\w.]{0,60}(?:\s*\|\s*[A-Za-z_]\w{0,30})*\s*\}\}|\{[A-Za-z_][\w.]{0,60}\}"
    r"|\$\{[A-Za-z_]\w{0,60}\}|<%=?\s*[A-Za-z_][\w.]{0,60}\s*%>)",
    re.ASCII,
)
_OPENING = re.compile(r"\s*(?:#{1,6} |[-*+] |\d{1,3}[.)] |(?:system|developer|user|assistant|tool): )?")


class DiscreetDiagnoser(Diagnoser):
    """A service's diagnoser; `stores` are the addresses where people read prompts, by the names of their sources."""

    def __init__(
        self,
        telemetry: Telemetry,
        sources: Sequence[ChangeSource] = (),
        *,
        prompt_diff: PromptDiff,
        stores: Mapping[str, str],
        traces: TraceSource | None = None,
    ) -> None:
        super().__init__(telemetry, sources, traces=traces)
        self._prompt_diff = prompt_diff
        self._stores = dict(stores)

    async def diagnose(self, target: Target, *, at: datetime | None = None, alert: str = "") -> Diagnosis:
        """The diagnosis as it may be kept and shown."""
        found = await super().diagnose(target, at=at, alert=alert)
        return await asyncio.to_thread(discreet, found, self._prompt_diff, self._stores)


def discreet(found: Diagnosis, prompt_diff: PromptDiff, stores: Mapping[str, str] | None = None) -> Diagnosis:
    """
    The same diagnosis without credentials and without the texts before and after a change; their diff is left.

    `full` keeps the words of a prompt's diff, `redacted` masks them and leaves template variables, dates as such and
    the lines' structure, `link` leaves who made which version and where to read it.
    """
    suspects = tuple(_suspect(suspect, prompt_diff, stores or {}) for suspect in found.suspects)
    plain = _DIAGNOSIS.dump_python(replace(found, suspects=suspects), mode="json")
    return _DIAGNOSIS.validate_python(safe_values(plain, _IDENTITIES))


def _suspect(suspect: Suspect, prompt_diff: PromptDiff, stores: Mapping[str, str]) -> Suspect:
    change, diff = _without_texts(suspect)
    if change.kind != "prompt":
        return replace(suspect, change=change, diff=diff)
    change = replace(change, url=change.url or stores.get(change.source, ""))
    if prompt_diff == "full":
        return replace(suspect, change=change, diff=diff)
    variable = new_variable_at_start(suspect.change.before or "", suspect.change.after or "")
    if prompt_diff == "redacted":
        reasons = tuple(
            reason.replace(variable, masked(variable)) if variable else reason for reason in suspect.reasons
        )
        return replace(suspect, change=change, diff=masked_diff(diff), reasons=reasons)
    reasons = tuple(reason.removesuffix(f": {variable}") for reason in suspect.reasons)
    return replace(suspect, change=replace(change, summary=_bare_summary(change)), diff="", reasons=reasons)


def _without_texts(suspect: Suspect) -> tuple[Change, str]:
    """
    The change without its texts, and the diff between what is left of them without credentials.

    Redacting comes first: a diff shows single lines, and one line of a private key looks like nothing in particular.
    """
    change = suspect.change
    bare = replace(change, before=None, after=None)
    if change.before is None or change.after is None:
        return bare, suspect.diff
    cleaned = replace(change, before=safe_text(change.before), after=safe_text(change.after))
    diff = diff_of(cleaned)
    if not diff and change.before != change.after:
        diff = "only credentials or invisible characters differ"
    return bare, diff


def keepable(change: Change, prompt_diff: PromptDiff) -> Change:
    """
    A change as the journal may keep it: without credentials, and of a prompt as much as its service allows.

    A prompt's words are masked one by one, so that its length and its template variables can still be compared. Where
    two texts would look the same masked, none is kept: equal ones would clear a change that is not innocent.
    """
    kept = replace(
        change,
        id=_short(clean_text(change.id)),
        summary=safe_text(change.summary),
        author=None if change.author is None else safe_text(change.author),
        before=None if change.before is None else safe_text(change.before),
        after=None if change.after is None else safe_text(change.after),
        scope={name: tuple(safe_text(value) for value in values) for name, values in change.scope.items()},
        url=safe_text(change.url),
    )
    if change.kind != "prompt" or prompt_diff == "full":
        return kept
    if prompt_diff == "link":
        return replace(kept, before=None, after=None, summary=_bare_summary(kept))
    before, after = (None if text is None else masked_text(text) for text in (kept.before, kept.after))
    if before == after and change.before != change.after:
        before = after = None
    return replace(kept, before=before, after=after)


def _short(identity: str) -> str:
    """A database's key has a length; a longer id ends in its own hash."""
    if len(identity) <= _LONGEST_ID:
        return identity
    return identity[: _LONGEST_ID - 64] + hashlib.sha256(identity.encode()).hexdigest()


def masked_text(text: str) -> str:
    """A prompt's text with each word a grey box of its own; `masked` shows runs of them as one."""
    return "\n".join(_in_prose(line, _boxes) for line in text.split("\n"))


def masked_diff(diff: str) -> str:
    """A unified diff with the words of its lines masked; its two lines of names and the places stay."""
    lines = diff.split("\n")
    if not lines[0].startswith("--- "):
        return diff
    body = [line if line[:1] in {"@", "…", ""} else line[0] + masked(line[1:]) for line in lines[2:]]
    return "\n".join([*lines[:2], *body])


def masked(text: str) -> str:
    """One line of a prompt: every word a grey box; template variables, dates as such and punctuation stay."""
    return _in_prose(text, lambda prose: _WORDS.sub(lambda run: f"{_MASK}x{run.group().count(_MASK)}", _boxes(prose)))


def _in_prose(line: str, change: Callable[[str], str]) -> str:
    """The line with its prose changed; what opens it and template variables stay."""
    opening = _OPENING.match(line)
    start = opening.end() if opening else 0
    parts = _TEMPLATE.split(line[start:])
    return line[:start] + "".join(part if number % 2 else change(part) for number, part in enumerate(parts))


def _boxes(prose: str) -> str:
    return _A_DATE.join(_WORD.sub(_MASK, piece) for piece in _DATE.split(prose))


def _bare_summary(change: Change) -> str:
    """Without its author's own words, which may quote the prompt."""
    name = ", ".join(change.scope.get("prompt", ())) or "of the service"
    if version := change.undo.get("version"):
        before = change.undo.get("previous_version")
        return f"prompt {name} is on version {version}" + (f", before that on version {before}" if before else "")
    commit = change.undo.get("commit", "")[:12]
    return f"prompt {name} changed" + (f" in commit {commit}" if commit else "")
