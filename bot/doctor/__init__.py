"""
`watchkeeper doctor`: asks everything that Watchkeeper depends on, and says what is wrong and how to mend it.

It reads only: nothing is posted, nothing is changed. Each examiner looks at one thing, all at once, and one that does
not come back in time is "cannot tell", never "fine".
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from bot.config import Config
from bot.doctor import (
    clusters,
    database,
    engines,
    gateways,
    installation,
    pagerduty,
    roles,
    search,
    slack,
    sources,
    telemetry,
)
from bot.doctor.advice import Advice, State
from bot.redact import safe_text
from bot.settings import Settings

Examiner = Callable[[Settings, Config], Awaitable[list[Advice]]]

EXAMINERS: Mapping[str, Examiner] = {
    "installation": installation.examine,
    "database": database.examine,
    "slack": slack.examine,
    "pagerduty": pagerduty.examine,
    "roles": roles.examine,
    "telemetry": telemetry.examine,
    "sources": sources.examine,
    "clusters": clusters.examine,
    "gateways": gateways.examine,
    "engines": engines.examine,
    "search": search.examine,
}
PATIENCE_S = 45.0
"""For one examiner; loading the embedding model takes the longest."""

_MARKS = {State.OK: "ok  ", State.BAD: "BAD ", State.UNKNOWN: "??? "}


async def examine(
    settings: Settings, config: Config, only: Iterable[str] = (), *, patience_s: float = PATIENCE_S
) -> list[Advice]:
    """The findings of all examiners, or of `only` some, in the order of the list."""
    wanted = [name for name in EXAMINERS if name in set(only or EXAMINERS)]
    found = await asyncio.gather(*(_examined(name, settings, config, patience_s) for name in wanted))
    return [advice for several in found for advice in several]


async def _examined(name: str, settings: Settings, config: Config, patience_s: float) -> list[Advice]:
    try:
        async with asyncio.timeout(patience_s):
            return await EXAMINERS[name](settings, config)
    except TimeoutError:
        return [Advice.unknown(name, f"no answer within {patience_s:g} s", "look at its address and at the network")]


def report(found: Sequence[Advice]) -> str:
    """A line for each finding, with its remedy below where there is one, and a count."""
    return "\n".join(safe_text(line) for line in _lines(found))


def _lines(found: Sequence[Advice]) -> Iterator[str]:
    width = max((len(advice.about) for advice in found), default=0)
    for advice in found:
        yield f"{_MARKS[advice.state]} {advice.about:<{width}}  {advice.says}"
        if advice.remedy:
            yield f"{'':5}{'':<{width}}  -> {advice.remedy}"
    count = Counter(advice.state for advice in found)
    yield f"{count[State.OK]} fine, {count[State.BAD]} to mend, {count[State.UNKNOWN]} cannot be told"
