"""
The application's feature flags, each with what it does to the world: values that product teams try, and kill switches.

Faults change the world's state and know nothing of flags. Where a change log says that a flag did it, `observe` finds
the flag on, and turning it off puts the usual value back. Kill switches are on at rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from lab.callers import USUAL_RETRIES
from lab.flags import Flags
from lab.gateway import USUALLY_LARGE, OwnAccord, Stream
from lab.stage import Stage
from lab.tools import AGENTS, TOOLS

_TEAM = "product-team"


@dataclass(frozen=True, kw_only=True)
class Switched:
    """Somebody turned a flag on or off."""

    at: datetime
    key: str
    on: bool
    by: str
    comment: str = ""


@dataclass(kw_only=True)
class Trial:
    """
    A flag under which the application uses another value than the usual one.

    `by_flag` begins what the change log says when it was this flag: others may change the same value in other ways.
    """

    read: Callable[[Stage], Any]
    write: Callable[[Stage, Any], None]
    usual: Any
    by_flag: str = ""
    _tried: Any = None

    def is_on(self, stage: Stage) -> bool:
        return self.read(stage) != self.usual and any(self._tells(change) for change in stage.log)

    def turn(self, stage: Stage, *, on: bool) -> None:
        """On again it has the value of before; a flag that was never on has none to try."""
        if not on:
            self._tried = self.read(stage)
        self.write(stage, (self.usual if self._tried is None else self._tried) if on else self.usual)

    def _tells(self, change: Any) -> bool:
        return change.kind == "flag" and self.by_flag in change.summary


@dataclass(kw_only=True)
class Tool:
    """The kill switch of one tool: while it is off, agents do without."""

    tool: str

    def is_on(self, stage: Stage) -> bool:
        return self.tool not in stage.tools.switched_off

    def turn(self, stage: Stage, *, on: bool) -> None:
        (stage.tools.switched_off.discard if on else stage.tools.switched_off.add)(self.tool)


@dataclass(kw_only=True)
class Writing:
    """The kill switch of an agent's writing tools; with them ends the work that the agent gave itself."""

    agent: str
    _stopped: list[Stream] = field(default_factory=list)

    def is_on(self, stage: Stage) -> bool:
        return self.agent not in stage.tools.read_only

    def turn(self, stage: Stage, *, on: bool) -> None:
        jobs = stage.gateway.jobs
        if on:
            stage.tools.read_only.discard(self.agent)
            jobs += self._stopped
            self._stopped = []
        else:
            stage.tools.read_only.add(self.agent)
            self._stopped += [job for job in jobs if self._is_mine(job)]
            jobs[:] = [job for job in jobs if not self._is_mine(job)]

    def _is_mine(self, job: Stream) -> bool:
        return isinstance(job, OwnAccord) and job.agent == self.agent


def _flags() -> dict[str, Trial | Tool | Writing]:
    usual = Flags()
    trials = {
        "chat-more-passages": Trial(
            read=lambda stage: stage.flags.retrieved_passages,
            write=lambda stage, value: setattr(stage.flags, "retrieved_passages", value),
            usual=usual.retrieved_passages,
        ),
        "chat-short-answers": Trial(
            read=lambda stage: stage.flags.max_tokens,
            write=lambda stage, value: setattr(stage.flags, "max_tokens", value),
            usual=usual.max_tokens,
        ),
        "chat-cache-salt": Trial(
            read=lambda stage: stage.flags.salted,
            write=lambda stage, value: setattr(stage.flags, "salted", value),
            usual=usual.salted,
        ),
        "chat-quick-retries": Trial(
            read=lambda stage: stage.callers.retries,
            write=lambda stage, value: setattr(stage.callers, "retries", value),
            usual=USUAL_RETRIES,
            by_flag="client:",
        ),
        "chat-whole-documents": Trial(read=_documents, write=_put_documents, usual=({}, {}), by_flag="whole document"),
        "chat-dear-model": Trial(
            read=lambda stage: stage.gateway.large_share,
            write=lambda stage, value: setattr(stage.gateway, "large_share", value),
            usual=USUALLY_LARGE,
            by_flag="answer long questions",
        ),
    }
    tools = {f"tool-{tool.name}": Tool(tool=tool.name) for tool in TOOLS}
    return {**trials, **tools, **{f"agent-writes-{agent}": Writing(agent=agent) for agent in AGENTS}}


def _documents(stage: Stage) -> tuple[dict[str, float], dict[str, float]]:
    """By route: the share of requests with a whole document, and by how much that makes the others' prompts longer."""
    routes = stage.flags.whole_documents
    growth = stage.callers.prompt_growth
    return dict(routes), {route: growth[route] for route in routes if route in growth}


def _put_documents(stage: Stage, value: tuple[dict[str, float], dict[str, float]]) -> None:
    routes, growth = value
    for route in stage.flags.whole_documents:
        stage.callers.prompt_growth.pop(route, None)
    stage.flags.whole_documents = dict(routes)
    stage.callers.prompt_growth.update(growth)


@dataclass(kw_only=True)
class Switches:
    """All flags, their versions, and who switched them; oldest first in `history`."""

    stage: Stage
    flags: Mapping[str, Trial | Tool | Writing] = field(default_factory=_flags)
    history: list[Switched] = field(default_factory=list)
    _on: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._on = {key: flag.is_on(self.stage) for key, flag in self.flags.items()}

    def is_on(self, key: str) -> bool:
        """Raises KeyError for a flag that there is not."""
        return self._on[key]

    def version(self, key: str) -> int:
        """One more with every change of the flag."""
        return 1 + sum(switched.key == key for switched in self.history)

    def turn(self, key: str, *, on: bool, at: datetime, by: str, comment: str = "") -> None:
        """What is as it should be already is not changed. Raises KeyError."""
        if self._on[key] is on:
            return
        self.flags[key].turn(self.stage, on=on)
        self._remember(Switched(at=at, key=key, on=on, by=by, comment=comment))

    def observe(self, now: datetime) -> None:
        """Find out what the world's own people switched since the last time."""
        for key, flag in self.flags.items():
            if (on := flag.is_on(self.stage)) is not self._on[key]:
                told = [change for change in self.stage.log if change.kind == "flag"]
                recent = [change for change in told if now - change.at < timedelta(minutes=2)]
                by = next((change.author for change in reversed(recent) if change.author), _TEAM)
                self._remember(Switched(at=recent[-1].at if recent else now, key=key, on=on, by=by))

    def _remember(self, switched: Switched) -> None:
        self._on[switched.key] = switched.on
        self.history.append(switched)
