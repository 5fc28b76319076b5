"""The skeleton of a new runbook: it says where each thing goes, and claims nothing that nobody looked into."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date, timedelta

REVIEW_AFTER = timedelta(days=180)
NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)

_BODY = """
## Meaning

What this means, and why it happens, in two or three sentences for somebody who has never seen the service.

## Impact

- Who is hurt, and how badly, with a number.
- What is **not** hurt.

## Diagnosis

1. What you see, and the query or command that shows it.
2. What looks alike and is something else, and how to tell.

## Remediation

### Ask the owner

Nobody has written a fix here yet. Tell the owner what Diagnosis shows, and write down here what they do.

```yaml step
action: manual
with: {instruction: "Call the owner of this runbook and tell them what you see."}
```

## Verify

What is well again when it is over: the same numbers as under Impact, back at their usual level for five minutes.

## Escalate

Whom to call when this does not help, and with what at hand.
"""


def slug(words: str) -> str:
    """Any words as a runbook's name: `Restart the API!` is restart-the-api. "" where nothing is left."""
    return "-".join(re.findall(r"[a-z0-9]+", words.lower(), re.ASCII))[:60].strip("-")


def front_matter(
    *, name: str, title: str, alerts: Sequence[str] = (), causes: Sequence[str] = (), owner: str = "", more: str = ""
) -> str:
    """The front matter with its fences; `more` are further lines. What is not known is left out."""
    lines = ["---", "format: 1", f"id: {quoted(name)}", f"title: {quoted(title)}"]
    lines += [f"alerts: {_listed(alerts)}"] if alerts else []
    lines += [f"causes: {_listed(causes)}"] if causes else []
    lines += [f"owner: {quoted(owner)}"] if owner else []
    return "\n".join([*lines, *more.splitlines(), "---", ""])


def skeleton(
    name: str, *, title: str, today: date, alerts: Sequence[str] = (), causes: Sequence[str] = (), owner: str = ""
) -> str:
    """A runbook that can be read and linted; without alerts, causes or an owner, lint asks for those."""
    dates = f"reviewed: {today}\nreview_by: {today + REVIEW_AFTER}"
    return front_matter(name=name, title=title, alerts=alerts, causes=causes, owner=owner, more=dates) + _BODY


def plain(text: str) -> str:
    """The text on one line, of characters that can be shown."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def quoted(text: str) -> str:
    """The text as YAML on one line, without quotes where it needs none."""
    words = plain(text)
    bare = re.fullmatch(r"[A-Za-z][A-Za-z0-9 ._/()-]*", words, re.ASCII) and words not in ("true", "false", "null")
    return words if bare else json.dumps(words, ensure_ascii=False)


def _listed(words: Sequence[str]) -> str:
    return f"[{', '.join(map(quoted, words))}]"
