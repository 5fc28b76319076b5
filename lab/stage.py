"""What a scenario may change: the state of the world, never its telemetry; and the log of what people changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from lab.answers import Answering
from lab.callers import Callers
from lab.cluster import Cluster
from lab.engine_builds import EngineBuilds
from lab.flags import Flags
from lab.gateway import Gateway
from lab.guardrails import Guardrails
from lab.hardware import Hardware
from lab.inputs import Inputs
from lab.judge import Judge
from lab.knowledge_store import KnowledgeStore
from lab.monitoring import Monitoring
from lab.normal import Normal
from lab.prompt_store import PromptStore
from lab.threats import Threats
from lab.tools import Tools


@dataclass(frozen=True, kw_only=True)
class LoggedChange:
    """
    One change as a deployment log would tell it, in the words of a case's `changes.json`.

    `before` and `after` are what a person would compare. `is_guilty` is the truth, and is never written beside it.
    """

    at: datetime
    kind: str
    summary: str
    source: str
    author: str | None = None
    service: str = "chat"
    scope: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    before: str | None = None
    after: str | None = None
    is_guilty: bool = False


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Every part of the world that has a state of its own."""

    prompts: PromptStore
    cluster: Cluster
    gateway: Gateway
    hardware: Hardware
    rng: np.random.Generator
    answering: Answering = field(default_factory=Answering)
    builds: EngineBuilds = field(default_factory=EngineBuilds)
    callers: Callers = field(default_factory=Callers)
    flags: Flags = field(default_factory=Flags)
    guardrails: Guardrails = field(default_factory=Guardrails)
    inputs: Inputs = field(default_factory=Inputs)
    judge: Judge = field(default_factory=Judge)
    knowledge_store: KnowledgeStore = field(default_factory=KnowledgeStore)
    threats: Threats = field(default_factory=Threats)
    tools: Tools = field(default_factory=Tools)
    monitoring: Monitoring = field(default_factory=Monitoring)
    log: list[LoggedChange] = field(default_factory=list)

    @property
    def normal(self) -> Normal:
        """The levels at rest. The gateway has them, as all traffic starts there."""
        return self.gateway.normal


@dataclass(frozen=True, kw_only=True)
class Deed:
    """Something that somebody does to the world at a lab time."""

    at: datetime
    do: Callable[[Stage], None]
