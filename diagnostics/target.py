"""What is diagnosed: one LLM service, where its telemetry is found, and what it promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A Kubernetes deployment; `kind` is engine, gateway, application, guardrail, retrieval or embedder."""

    name: str
    kind: str
    replicas: int | None = None


@dataclass(frozen=True, kw_only=True)
class PromptRef:
    """A prompt that the service uses; `source` names the change source that knows its versions."""

    name: str
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An outside model provider and the models that the service takes from it."""

    name: str
    models: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What the service promised; None where nothing was promised. Times in seconds, ratio 0 to 1."""

    ttft_p95_s: float | None = None
    itl_p95_s: float | None = None
    e2e_p95_s: float | None = None
    error_ratio: float | None = None
    cost_usd_per_hour: float | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """
    One service as diagnostics sees it.

    `selectors` maps a metric family (serving, gpu, gateway, application, kubernetes) to label matchers in the form
    of `Query.where`; a family that is absent is not observed, and its checks answer unknown.
    """

    service: str
    namespace: str = ""
    environment: str = "prod"
    selectors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    budgets: Budgets = field(default_factory=Budgets)
    deployments: tuple[Deployment, ...] = ()
    prompts: tuple[PromptRef, ...] = ()
    providers: tuple[Provider, ...] = ()
