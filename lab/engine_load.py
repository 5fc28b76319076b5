"""What one engine pod has to do right now, from the state of everything around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lab.cluster_objects import Json
from lab.engine_physics import FRONTEND_S, Load, engine_limits
from lab.gateway import Demand
from lab.hardware import Drive
from lab.routes import ROUTES
from lab.stage import Stage
from lab.verdicts import Answers, quality

Versions = Mapping[str, Mapping[int, float]]
"""Prompt -> version -> share of that prompt's requests."""

_PROMPT_OF_PASSAGES = 0.85
"""The part of a prompt on a route with retrieval that is passages; the rest is template, history and question."""

_STARVED_UTIL, _STARVED_POWER = 0.253, 0.237
_SLOW_POWER = 0.185
"""A GPU that waits for its host draws less: by 37 % where requests wait 1.6 s, by 17 % at 1.9 times the token time."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What reaches the engines in one step, of which each pod gets its share."""

    demand: Demand
    versions: Versions
    hit: float


def load(stage: Stage, pod: Json, traffic: Traffic, share: float) -> Load:
    """What this pod is asked to do, and how its build, its GPU and its processor time let it."""
    node, name = str(pod["spec"]["nodeName"]), str(pod["metadata"]["name"])
    taken = stage.callers.repeated * (1 - too_long(stage)) * stage.guardrails.let_through
    demand, rps = traffic.demand, traffic.demand.rps * share * taken
    length, cut = _answers(stage, name, traffic.versions)
    has_cache = engine_limits(pod["spec"]["containers"][0].get("args", [])).has_prefix_cache
    return Load(
        rps=rps,
        prompt_tokens=demand.prompt_tokens * prompt_growth(stage),
        output_tokens=demand.output_tokens * length * stage.tools.answer_growth,
        hit=traffic.hit if has_cache else 0.0,
        slowness=stage.hardware.slowness(node) * stage.builds.decode_slowness(pod),
        prefill_slowness=stage.hardware.prefill_slowness(node),
        frontend_s=stage.builds.frontend(pod, rps / stage.normal.replica_rps).seconds,
        cut=cut,
        max_tokens=stage.flags.max_tokens,
        is_stuck=name in stage.builds.deadlocked or stage.hardware.is_stalled(node),
        normal=stage.normal,
    )


def drive(load: Load, slowness: float) -> Drive:
    """How hard an engine with this load drives its GPU, where `slowness` is what its build adds to every token."""
    starved_s = load.frontend_s - FRONTEND_S
    gaps = min(0.6, _STARVED_POWER * starved_s + _SLOW_POWER * max(0.0, slowness - 1))
    return Drive(util=1 - min(0.7, _STARVED_UTIL * starved_s), power=1 - gaps)


def prompt_growth(stage: Stage) -> float:
    """By how much all prompts together are longer than usual: with more passages, or with none, on their routes."""
    usual = type(stage.flags)().retrieved_passages
    passages = stage.flags.retrieved_passages / usual * stage.knowledge_store.passages_share()
    everywhere = stage.callers.prompt_growth.get("", 1.0) * stage.tools.prompt_growth
    return everywhere * sum(
        route.share
        * stage.callers.prompt_growth.get(route.name, 1.0)
        * (1 - _PROMPT_OF_PASSAGES + _PROMPT_OF_PASSAGES * passages if route.retrieval else 1.0)
        for route in ROUTES
    )


def too_long(stage: Stage) -> float:
    """The share of all requests that an engine refuses for their length, before it computes anything."""
    return sum(route.share * stage.flags.whole_documents.get(route.name, 0.0) for route in ROUTES)


def _answers(stage: Stage, pod: str, versions: Versions) -> tuple[float, float]:
    """How long a pod's answers are as a factor on the usual, and which share of them ends at its limit."""
    length = cut = 0.0
    for route in ROUTES:
        for version, share in versions[route.prompt].items():
            good = quality(stage, Answers(route=route, version=version, model="", number=1, pod=pod))
            length += route.share * share * good.length
            cut += route.share * share * good.truncated
    return length, cut
