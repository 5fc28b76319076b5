"""The card of a burst: what came together, by service and alert, and where each incident's own card stands; pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.slack.blocks import SECTION, header, section
from bot.slack.escape import inline, lines_within, link
from bot.slack.view import Message

_MOST_GROUPS = 20
_A_LINE = 12
_FIRING = re.compile(r"^\[(?:FIRING|RESOLVED)(?::\d+)?\]\s*")


@dataclass(frozen=True, kw_only=True)
class BurstLine:
    """One incident; `url` is its card's address, empty while it has none or none is known."""

    number: int | None
    title: str
    service: str
    is_resolved: bool
    stands: bool
    url: str


def summary(lines: Sequence[BurstLine], opened_at: datetime) -> Message:
    """One card for many incidents, the largest group first."""
    standing = sum(line.stands for line in lines)
    text = f"{len(lines)} incidents since {opened_at:%H:%M} UTC, by service and alert"
    groups: defaultdict[tuple[str, str], list[BurstLine]] = defaultdict(list)
    for line in lines:
        groups[line.service, _FIRING.sub("", line.title)].append(line)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    blocks = [
        header(f"\U0001f534 {len(lines)} incidents at once"),
        section(f"{text}. {_cards(standing, len(lines))}"),
        *(section(_group(service, alert, members)) for (service, alert), members in ordered[:_MOST_GROUPS]),
    ]
    if len(ordered) > _MOST_GROUPS:
        rest = sum(len(members) for _, members in ordered[_MOST_GROUPS:])
        blocks.append(section(f"… and {rest} more in {len(ordered) - _MOST_GROUPS} groups"))
    return Message(text=f"{text}.", blocks=blocks)


def _cards(standing: int, count: int) -> str:
    if standing == count:
        return "Each has its own card."
    return f"{standing} of {count} have their own card; the others follow, one a second, as Slack takes them."


def _group(service: str, alert: str, members: Sequence[BurstLine]) -> str:
    resolved = sum(member.is_resolved for member in members)
    over = f" ({resolved} resolved)" if resolved else ""
    title = f"*{inline(service, 60)}*: {inline(alert, 150)} · {len(members)}{over}"
    names = [_name(member) for member in members]
    rows = [" ".join(names[start : start + _A_LINE]) for start in range(0, len(names), _A_LINE)]
    return lines_within([title, *rows], SECTION, "… ({} more lines)")


def _name(line: BurstLine) -> str:
    name = f"#{line.number}" if line.number is not None else "an incident"
    return link(line.url, name) if line.url else name
