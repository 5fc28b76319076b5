"""Faults of outside providers: their rate limit, their outage, an account without credit, a credential that is void."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime

from lab.gateway import OVERFLOW, Gateway, ModelDeployment
from lab.providers import (
    ACCOUNTS,
    NOT_AUTHENTICATED,
    NOT_PERMITTED,
    OPENAI,
    OUT_OF_CREDIT,
    OVERLOADED,
    Trouble,
)
from lab.scenarios.fault import Fault, Shape
from lab.stage import Stage

_HARDLY = 0.02
"""Of what providers are asked; half of that is for the one model that nothing else can answer."""


def _deployment(gateway: Gateway, provider: str) -> ModelDeployment:
    """The one of the overflow that this provider answers."""
    return next(one for one in gateway.deployments.values() if one.group == OVERFLOW and one.provider == provider)


class RateLimitReached(Fault):
    """Another product of the company uses most of what the account may ask of one model."""

    id = "I01"
    title = "A provider's rate limit is reached"
    alert = "LLMProvider429"
    shapes = (Shape.STEP, Shape.RAMP)

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.provider = OPENAI
        self.short = 0.086 * strength  # of what we ask for: with the clients' retries a fifth is refused
        self._usual = 0.0
        self._left = 0.0

    def draw(self, stage: Stage) -> None:
        self.provider = str(stage.rng.choice(list(ACCOUNTS)))
        self.short *= float(stage.rng.uniform(0.8, 1.3))

    def begin(self, stage: Stage, _at: datetime) -> None:
        """What is left for us is measured by what we ask for at this time of the day."""
        model = _deployment(stage.gateway, self.provider).model
        load = next(load for load in stage.gateway.traffic().providers if load.model == model)
        self._usual = load.quota_tokens_per_s * 60
        self._left = (1 - self.short) * load.asked * (load.prompt_tokens + load.output_tokens) * 60

    def apply(self, stage: Stage, level: float, _at: datetime) -> None:
        model = _deployment(stage.gateway, self.provider).model
        stage.gateway.quotas[model] = self._usual + level * (self._left - self._usual)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "provider", [self.provider]

    def is_healthy(self, stage: Stage) -> bool:
        return all(load.refused == 0 for load in stage.gateway.traffic().providers)


class _ProviderRefuses(Fault):
    """A provider that refuses requests whatever its quota allows."""

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.provider = OPENAI
        self.share = 0.98

    @property
    @abstractmethod
    def trouble(self) -> Trouble:
        """Why, with the provider's own code."""

    def draw(self, stage: Stage) -> None:
        self.provider = str(stage.rng.choice(list(ACCOUNTS)))
        self.share = float(stage.rng.uniform(0.96, 1.0))

    def apply(self, stage: Stage, level: float, _at: datetime) -> None:
        if level > 0:
            stage.gateway.troubles[self.provider] = self.trouble
        else:
            stage.gateway.troubles.pop(self.provider, None)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "provider", [self.provider]

    def is_healthy(self, stage: Stage) -> bool:
        """Hardly a request is lost; where another model group answers what is refused, none is."""
        outside = stage.gateway.traffic().providers
        lost = sum(load.lost for load in outside if not load.falls_back_to)
        return lost <= _HARDLY * sum(load.asked for load in outside)


class ProviderOutage(_ProviderRefuses):
    """A part of the requests fails, whichever model they ask for; the others take longer."""

    id = "I02"
    title = "A provider is down or overloaded"
    alert = "LLMProviderErrors"
    shapes = (Shape.STEP, Shape.INTERMITTENT)

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.share = min(0.95, 0.35 * strength)

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        self.share = min(0.95, 0.35 * self.strength * float(stage.rng.uniform(0.8, 1.25)))

    @property
    def trouble(self) -> Trouble:
        return Trouble(refusal=OVERLOADED[self.provider], share=self.share, slowness=1 + 0.5 * self.strength)

    def begin(self, stage: Stage, at: datetime) -> None:
        summary = f"{self.provider}: elevated error rates, all models"
        scope = {"provider": (self.provider,)}
        stage.log.append(self.guilty(at, "external", summary, "status-page", scope=scope))


class CreditUsedUp(_ProviderRefuses):
    """The account reached its monthly limit; no waiting helps, whichever model is asked for."""

    id = "I03"
    title = "A provider account's credit is used up"
    alert = "LLMProvider429"
    by_hand = "add credit or raise the monthly limit"

    @property
    def trouble(self) -> Trouble:
        return Trouble(refusal=OUT_OF_CREDIT[self.provider], share=self.share)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "account", [ACCOUNTS[self.provider].name]


class CredentialVoid(_ProviderRefuses):
    """The provider no longer takes our keys, or one of them: rotated and not rolled out, or simply expired."""

    id = "I04"
    title = "A provider credential is void"
    alert = "LLMAuthErrors"
    by_hand = "store a valid key"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.is_rotated = True
        self.is_forbidden = False
        self.key = ""  # every key of the account

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        self.is_rotated = bool(stage.rng.random() < 0.6)
        self.is_forbidden = bool(stage.rng.random() < 0.25)
        keys = ACCOUNTS[self.provider].keys
        if len(keys) > 1 and stage.rng.random() < 0.3:
            self.key = str(stage.rng.choice(keys))

    @property
    def trouble(self) -> Trouble:
        refusal = NOT_PERMITTED if self.is_forbidden else NOT_AUTHENTICATED[self.provider]
        return Trouble(refusal=refusal, share=self.share, key=self.key)

    def begin(self, stage: Stage, at: datetime) -> None:
        if self.is_rotated:
            account = ACCOUNTS[self.provider]
            scope = {"provider": (self.provider,), "account": (account.name,)}
            which = f"key {self.key}" if self.key else "keys"
            summary = f"rotate the API {which} of {account.name}"
            stage.log.append(self.guilty(at, "secret", summary, "vault", author="security-bot", scope=scope))

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return ("api_key", [self.key]) if self.key else ("provider", [self.provider])
