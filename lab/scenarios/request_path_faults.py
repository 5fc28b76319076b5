"""Faults on a request's way to the model: a tool, the guardrail, clients that retry, prompts beyond the window."""

from __future__ import annotations

from datetime import datetime

from lab.routes import ROUTES
from lab.scenarios.fault import Fault, Shape
from lab.stage import Stage
from lab.tools import TOOLS, USUAL_ERRORS


class ToolFails(Fault):
    """One tool's backend fails; agents call it again and again, with ever longer prompts."""

    id = "I08"
    title = "A tool fails"
    alert = "LLMToolErrors"
    by_hand = "deployed when its failures began"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.tool = TOOLS[0].name
        self.errors = min(0.95, USUAL_ERRORS + 0.443 * strength)
        self.is_ours = True

    def draw(self, stage: Stage) -> None:
        self.tool = TOOLS[int(stage.rng.integers(len(TOOLS)))].name
        self.errors = min(0.95, USUAL_ERRORS + self.strength * float(stage.rng.uniform(0.36, 0.54)))
        self.is_ours = bool(stage.rng.random() < 0.5)

    def begin(self, stage: Stage, at: datetime) -> None:
        scope = {"tool": (self.tool,)}
        if self.is_ours:
            summary, more = f"deploy {self.tool} with a new argument schema", {"author": "tools-team"}
            stage.log.append(self.guilty(at, "tool", summary, "argocd", scope=scope, **more))
        else:
            summary = f"the backend of {self.tool} reports degraded service"
            stage.log.append(self.guilty(at, "external", summary, "status-page", scope=scope))

    def apply(self, stage: Stage, level: float, _at: datetime) -> None:
        stage.tools.error_ratio[self.tool] = USUAL_ERRORS + level * (self.errors - USUAL_ERRORS)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "tool", [self.tool]

    def is_healthy(self, stage: Stage) -> bool:
        failing = stage.tools.error_ratio.get(self.tool, USUAL_ERRORS) > 2 * USUAL_ERRORS
        return not failing or self.tool in stage.tools.switched_off


class GuardrailSlow(Fault):
    """The guardrail service does not keep up; what it decides is as before."""

    id = "I09"
    title = "The guardrail service is slow"
    alert = "GatewayHighLatency"
    by_hand = "Double the replicas of the guardrail"
    shapes = (Shape.RAMP, Shape.STEP)

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.more_s = 2.44 * strength
        self.errors = 0.04 * strength
        self.is_by_policy = False
        self._usual_s = 0.0
        self._policy = ""

    def draw(self, stage: Stage) -> None:
        self.more_s *= float(stage.rng.uniform(0.8, 1.2))
        self.errors *= float(stage.rng.uniform(0.5, 1.5))
        self.is_by_policy = bool(stage.rng.random() < 0.5)

    def begin(self, stage: Stage, at: datetime) -> None:
        self._usual_s, self._policy = stage.guardrails.seconds, stage.guardrails.policy_version
        if self.is_by_policy:
            more = {"author": "safety-team", "before": self._policy, "after": self._heavier}
            scope = {"policy": (self._heavier,)}
            summary = f"guardrail policy {self._heavier}: check every message with the large classifier"
            stage.log.append(self.guilty(at, "policy", summary, "guardrails", scope=scope, **more))

    @property
    def _heavier(self) -> str:
        return str(int(self._policy) + 1)

    def apply(self, stage: Stage, level: float, _at: datetime) -> None:
        rails = stage.guardrails
        rails.seconds = self._usual_s + level * self.more_s
        rails.error_ratio = level * self.errors
        if self.is_by_policy:
            rails.policy_version = self._heavier if level > 0 else self._policy

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "fleet", []

    def is_healthy(self, stage: Stage) -> bool:
        return stage.guardrails.seconds <= 2 * type(stage.guardrails)().seconds


class RetryStorm(Fault):
    """Clients hang up before an answer can come, and ask again: the same sessions, twice the requests."""

    id = "I10"
    title = "Clients retry in a storm"
    alert = "LLMQueueBacklog"
    by_hand = "shortened the time-out"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.more = 1.19 * strength
        self.is_by_flag = True
        self._usual = 0.0

    def draw(self, stage: Stage) -> None:
        self.more *= float(stage.rng.uniform(0.8, 1.2))
        self.is_by_flag = bool(stage.rng.random() < 0.5)

    def begin(self, stage: Stage, at: datetime) -> None:
        self._usual = stage.callers.retries
        if self.is_by_flag:
            more = {"author": "web-team", "before": "timeout 60 s, 1 try", "after": "timeout 4 s, 5 tries"}
            summary = "client: give up after 4 s and try again"
            stage.log.append(self.guilty(at, "flag", summary, "flags", **more))

    def apply(self, stage: Stage, level: float, _at: datetime) -> None:
        stage.callers.retries = self._usual + level * self.more

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "fleet", []

    def is_healthy(self, stage: Stage) -> bool:
        return stage.callers.retries <= 0.1


class PromptsTooLong(Fault):
    """A route puts whole documents into its prompts: some are refused by the engines, the others grow as well."""

    id = "I12"
    title = "Prompts exceed the context window"
    alert = "LLM4xx"
    by_hand = "made prompts longer"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.route = ROUTES[0].name  # nobody notices a route with a twenty-fifth of the requests
        self.share = min(0.8, 0.18 * strength)
        self.growth = 0.2 * strength
        self.kind = "config"

    def draw(self, stage: Stage) -> None:
        self.share = min(0.8, self.share * float(stage.rng.uniform(0.75, 1.1)))
        self.growth *= float(stage.rng.uniform(0.8, 1.3))
        self.kind = str(stage.rng.choice(["config", "flag"]))

    def begin(self, stage: Stage, at: datetime) -> None:
        more = {"author": "rag-team", "before": "passages", "after": "documents", "scope": {"route": (self.route,)}}
        summary = f"{self.route}: put the whole document into the prompt where it is known"
        stage.log.append(self.guilty(at, self.kind, summary, "flags" if self.kind == "flag" else "git", **more))

    def apply(self, stage: Stage, level: float, _at: datetime) -> None:
        if level > 0:
            stage.flags.whole_documents[self.route] = level * self.share
            stage.callers.prompt_growth[self.route] = 1 + level * self.growth
        else:
            stage.flags.whole_documents.pop(self.route, None)
            stage.callers.prompt_growth.pop(self.route, None)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "route", [self.route]

    def is_healthy(self, stage: Stage) -> bool:
        return not stage.flags.whole_documents and not stage.callers.prompt_growth
