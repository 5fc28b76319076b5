"""X06: an agent changes things far more often than it should, and asks nobody."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from lab import prompt_texts
from lab.gateway import CHAT, LARGE, Gateway, OwnAccord, Stream
from lab.prompt_store import PRODUCTION
from lab.scenarios.fault import Fault
from lab.scenarios.prompt_change import PromptChange
from lab.stage import Stage
from lab.threats import acts_alone
from lab.tools import AGENTS

_TURN = 2.6
"""How much longer than a customer's question a turn of an agent is that carries all it has done so far."""
_PLANNED_ELSEWHERE = 0.015  # of its turns, by the large model
_POISON = 0.004


class ExcessiveAgency(Fault):
    """Heals when the agent may not write any more, or with a prompt that makes it ask first."""

    id = "X06"
    title = "An agent acts without approval"
    alert = "LLMToolRate"
    by_hand = "switch off the writing tools"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.agent = next(iter(AGENTS))
        self.writes, self.unapproved, self.growth, self.injections = 6.0, 0.8, 0.12, _POISON
        self.change: PromptChange | None = None
        self.version = 0
        self._turns: tuple[Stream, ...] = ()

    def draw(self, stage: Stage) -> None:
        rng = stage.rng
        self.agent = str(rng.choice(list(AGENTS)))
        self.writes = 1 + 5 * self.strength * float(rng.uniform(0.8, 1.2))
        self.unapproved = float(rng.uniform(0.6, 0.95))
        self.growth = 0.12 * self.strength * float(rng.uniform(0.8, 1.2))
        self.injections = _POISON * self.strength * float(rng.uniform(0.8, 1.2))
        if rng.random() < 0.5:
            ideas = [PromptChange(text=text, message=said) for said, text in prompt_texts.ACTING_ALONE.items()]
            self.change = ideas[int(rng.integers(len(ideas)))]

    def begin(self, stage: Stage, at: datetime) -> None:
        if self.change is not None:
            self.version = self.change.publish(stage, at)

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        tools, jobs = stage.tools, stage.gateway.jobs
        is_live = level > 0
        if self.change is not None:
            tools.acts_alone[self.agent] = self.writes
            self.change.set_live(stage, self.version, at, is_live=is_live)
        else:
            tools.writes[self.agent] = self.writes if is_live else 1.0
            tools.unapproved[self.agent] = self.unapproved if is_live else 0.0
        stage.threats.poisoned["order-notes"] = level * self.injections
        jobs[:] = [job for job in jobs if job not in self._turns]
        self._turns = tuple(self._streams(stage.gateway, level)) if is_live else ()
        jobs += self._turns

    def _streams(self, gateway: Gateway, level: float) -> Iterator[Stream]:
        """More turns for every tenant, with all that was done so far in their prompts; some are planned elsewhere."""
        for key in gateway.keys.values():
            for group, share in ((CHAT, 1.0), (LARGE, _PLANNED_ELSEWHERE)):
                rps = level * self.growth * gateway.normal.fleet_rps * key.share * share
                yield OwnAccord(
                    key=key.alias,
                    group=group,
                    rps=rps,
                    prompt_tokens=_TURN * gateway.normal.prompt_tokens,
                    output_tokens=gateway.normal.output_tokens,
                    agent=self.agent,
                )

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "agent", [self.agent]

    def is_healthy(self, stage: Stage) -> bool:
        """The agent writes as often as usual and no prompt lets it act alone, or it cannot write."""
        if self.agent in stage.tools.read_only:
            return True
        text = stage.prompts.labelled("chat-system", PRODUCTION).prompt
        return stage.tools.writes.get(self.agent, 1.0) <= 1 and not acts_alone(text)
