"""X03: answers hold what they must not: personal data, secrets, or the system prompt."""

from __future__ import annotations

from datetime import datetime

from lab import prompt_texts
from lab.consumers import tenant_of
from lab.prompt_store import PRODUCTION
from lab.scenarios.fault import Fault
from lab.scenarios.prompt_change import PromptChange
from lab.stage import Stage
from lab.threats import KINDS, Leak
from lab.tools import TOOLS

_LEAKING = 0.029


class SensitiveOutput(Fault):
    """
    A prompt that shows the model a whole record, a tool that hides nothing, or one tenant who sees others' data.

    Heals with another prompt, or when the leak is closed where it is.
    """

    id = "X03"
    title = "Answers leak sensitive data"
    alert = "LLMSensitiveOutput"
    by_hand = "output rail"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.where, self.value = "prompt_version", ""
        self.leak = Leak(kind="pii", share=_LEAKING)
        self.change = PromptChange(text=next(iter(prompt_texts.SHOWING_RECORDS.values())), message="Personal answers")

    def draw(self, stage: Stage) -> None:
        rng = stage.rng
        share = _LEAKING * self.strength * float(rng.uniform(0.8, 1.2))
        self.where = str(rng.choice(["prompt_version", "tenant", "tool"], p=[0.4, 0.3, 0.3]))
        kind = str(rng.choice(KINDS))
        if self.where == "prompt_version":
            ideas = [PromptChange(text=text, message=said) for said, text in prompt_texts.SHOWING_RECORDS.items()]
            self.change = ideas[int(rng.integers(len(ideas)))]
            kind = "pii"
        elif self.where == "tenant":
            named = [key for key in stage.gateway.keys.values() if tenant_of(key.alias) != "other"]
            key = named[int(rng.integers(len(named)))]
            self.value = tenant_of(key.alias)
            share = min(0.4, share / key.share)  # as much in all as a leak to everybody
        else:
            self.value = TOOLS[int(rng.integers(len(TOOLS)))].name
        self.leak = Leak(kind=kind, share=share, tenant=self.value if self.where == "tenant" else "")
        stage.threats.record_leak = self.leak if self.where == "prompt_version" else stage.threats.record_leak

    def begin(self, stage: Stage, at: datetime) -> None:
        if self.where == "prompt_version":
            self.value = str(self.change.publish(stage, at))
        elif self.where == "tool":
            summary = f"tool {self.value}: return the full record instead of the masked one"
            told = {"author": "judy", "scope": {"tool": (self.value,)}}
            stage.log.append(self.guilty(at, "tool", summary, "argocd", **told))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        if self.where == "prompt_version":
            self.change.set_live(stage, int(self.value), at, is_live=level > 0)
        elif level > 0:
            stage.threats.leaks[self.value] = self.leak
        else:
            stage.threats.leaks.pop(self.value, None)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return self.where, [self.value]

    def is_healthy(self, stage: Stage) -> bool:
        texts = {name: stage.prompts.labelled(name, PRODUCTION).prompt for name in ("chat-system", "chat-summary")}
        return not any(stage.threats.leaking(text) for text in texts.values())
