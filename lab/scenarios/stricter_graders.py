"""Q08 and Q09: not the answers changed but who grades them, or who lets questions pass."""

from __future__ import annotations

from datetime import datetime

from lab.scenarios.fault import Fault
from lab.stage import Stage


class JudgeChanged(Fault):
    """The judge has a new version and scores lower; the service is as good as ever."""

    id = "Q08"
    title = "The judge changed, the answers did not"
    alert = "LLMJudgeDrop"
    is_only_recorded = True
    is_harmless = True
    is_control = True

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.version = "judge-8"
        self.bias = -0.12

    def draw(self, stage: Stage) -> None:
        self.version = str(stage.rng.choice(["judge-8", "judge-7.1", "judge-8-mini", "judge-2026-02"]))
        self.bias = -0.12 * self.strength * float(stage.rng.uniform(0.8, 1.2))

    def begin(self, stage: Stage, at: datetime) -> None:
        old = stage.judge.version
        told = {"author": "grace", "scope": {"evaluator": (self.version,)}, "before": old, "after": self.version}
        stage.log.append(self.guilty(at, "judge", f"evaluator: {old} -> {self.version}", "git", **told))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - a version has two states
        stage.judge.version = self.version if level > 0 else "judge-7"
        stage.judge.bias = self.bias if level > 0 else 0.0

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "evaluator", [self.version]

    def is_healthy(self, stage: Stage) -> bool:
        """The answers are as good as ever."""
        del stage
        return True


class PolicyTooStrict(Fault):
    """A new policy of the guardrails blocks what is harmless, everybody's; the policy of before heals."""

    id = "Q09"
    title = "A guardrail policy blocks harmless requests"
    alert = "LLMGuardBlock"
    by_hand = "policy back to the version of before"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.version = "15"
        self.blocked = 0.12

    def draw(self, stage: Stage) -> None:
        self.version = str(stage.rng.choice(["15", "14.1", "15-strict", "2026.3"]))
        usual = stage.guardrails.blocked
        self.blocked = usual * (1 + 14 * self.strength * float(stage.rng.uniform(0.8, 1.2)))

    def begin(self, stage: Stage, at: datetime) -> None:
        old = stage.guardrails.policy_version
        told = {"author": "heidi", "scope": {"policy": (self.version,)}, "before": old, "after": self.version}
        summary = f"guardrails: policy {old} -> {self.version}, wider topics for the moderation rail"
        stage.log.append(self.guilty(at, "policy", summary, "argocd", **told))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - a policy has two states
        usual = type(stage.guardrails)()
        stage.guardrails.policy_version = self.version if level > 0 else usual.policy_version
        stage.guardrails.blocked = self.blocked if level > 0 else usual.blocked

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "policy", [self.version]

    def is_healthy(self, stage: Stage) -> bool:
        return stage.guardrails.blocked <= 2 * type(stage.guardrails)().blocked
