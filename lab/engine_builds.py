"""What the engines' software makes of the same GPUs, beyond what its arguments say of themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.cluster_objects import Json
from lab.engine_physics import FRONTEND_S, engine_limits

USUAL_ACCEPTANCE = 0.70
_DRAFTED = 3

_CORES_AT_REST = 3.0
"""Processor cores that an API server keeps busy at the top of the day: tokenising, detokenising, streaming."""

_TIGHT_FROM, _TIGHT_SPAN = 0.8, 0.4
_STARVED_S, _STARVED_THROTTLED = 1.58, 0.40
_THROTTLED_AT_REST = 0.012


@dataclass(frozen=True, kw_only=True)
class Frontend:
    """How an API server fares with its processor time: seconds a request, and the share of throttled CFS periods."""

    seconds: float = FRONTEND_S
    throttled: float = _THROTTLED_AT_REST


@dataclass(kw_only=True)
class EngineBuilds:
    """
    How each build behaves, whether or not a pod runs it; and what went wrong inside single pods' processes.

    `slowness` (of decoding) and `acceptance` (the share of drafted tokens that the model takes) are by image,
    `eager_slowness` is what decoding without CUDA graphs costs. `extra_cores` is what API servers need beyond the
    usual, by pod (`""` is every pod), and `deadlocked` are the pods whose engine waits for itself.
    """

    eager_slowness: float = 1.9
    slowness: dict[str, float] = field(default_factory=dict)
    acceptance: dict[str, float] = field(default_factory=dict)
    extra_cores: dict[str, float] = field(default_factory=dict)
    deadlocked: set[str] = field(default_factory=set)

    def accepted(self, pod: Json) -> float:
        """The share of drafted tokens that this pod's model takes."""
        return self.acceptance.get(_container(pod)["image"], USUAL_ACCEPTANCE)

    def decode_slowness(self, pod: Json) -> float:
        """By how much this pod's build decodes slower than the usual one: fewer tokens a step, or slower steps."""
        container = _container(pod)
        eager = self.eager_slowness if engine_limits(container.get("args", [])).is_eager else 1.0
        fewer = (1 + _DRAFTED * USUAL_ACCEPTANCE) / (1 + _DRAFTED * self.accepted(pod))
        return self.slowness.get(container["image"], 1.0) * eager * fewer

    def frontend(self, pod: Json, load: float) -> Frontend:
        """
        How this pod's API server fares at this load (1 is the top of a usual day), by its limit of processor time.

        Beyond four fifths of the limit CFS stops it in ever more periods, and requests wait for it.
        """
        name, limit = pod["metadata"]["name"], float(_container(pod)["resources"]["limits"]["cpu"])
        wanted = _CORES_AT_REST * load + self.extra_cores.get(name, self.extra_cores.get("", 0.0))
        tightness = min(2.0, max(0.0, (wanted / limit - _TIGHT_FROM) / _TIGHT_SPAN))
        return Frontend(
            seconds=FRONTEND_S + _STARVED_S * tightness,
            throttled=min(0.9, _THROTTLED_AT_REST + _STARVED_THROTTLED * tightness),
        )


def extra_cores_for(tightness: float, load: float, limit: float) -> float:
    """What makes an API server of this load and limit so tight; 1 is a second and a half for a request."""
    return limit * (_TIGHT_FROM + _TIGHT_SPAN * tightness) - _CORES_AT_REST * load


def acceptance_for(slowness: float) -> float:
    """The share of drafted tokens whose loss makes decoding so much slower (at most what no accepted token would)."""
    return max(0.02, ((1 + _DRAFTED * USUAL_ACCEPTANCE) / slowness - 1) / _DRAFTED)


def _container(pod: Json) -> Json:
    container: Json = pod["spec"]["containers"][0]
    return container
