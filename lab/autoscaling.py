"""The horizontal autoscaler: how many replicas the requests in flight call for, and what it makes of a deployment."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from math import ceil

from lab.cluster import Cluster
from lab.engine_physics import Load, means
from lab.normal import Normal

_TARGET = 1.35
"""Requests in flight per replica that it aims at, as a factor on those at the top of a usual day."""

_TOLERANCE = 0.1
_DOWN_AFTER = timedelta(minutes=5)
"""Kubernetes' own: up at once, down only by what the last five minutes would all have allowed."""


def target_per_replica(normal: Normal) -> float:
    """How many requests in flight a replica is meant to have."""
    usual = Load(
        rps=normal.replica_rps,
        prompt_tokens=normal.prompt_tokens,
        output_tokens=normal.output_tokens,
        hit=normal.hit,
        normal=normal,
    )
    return _TARGET * means(usual).running


def step(cluster: Cluster, in_flight: float, ready: int, target: float, now: datetime) -> None:
    """Let every autoscaler look once at its deployment, whose ready replicas have so many requests in flight."""
    for autoscaler in cluster.kinds["horizontalpodautoscalers"].values():
        spec, status = autoscaler["spec"], autoscaler.setdefault("status", {})
        deployment = cluster.get("deployments", spec["scaleTargetRef"]["name"])
        present = int(deployment["spec"]["replicas"])
        wanted = present
        if ready and abs(in_flight / ready / target - 1) > _TOLERANCE:
            wanted = ceil(in_flight / target)
        wanted = max(int(spec.get("minReplicas", 1)), min(int(spec["maxReplicas"]), wanted))
        recent = [each for each in status.get("recommendations", [(now, present)]) if now - each[0] < _DOWN_AFTER]
        recent.append((now, wanted))
        status["recommendations"] = recent
        if wanted < present:
            wanted = min(present, max(each for _, each in recent))
        status["desiredReplicas"], status["currentReplicas"] = wanted, present
        if wanted != present:
            scaled = copy.deepcopy(deployment)
            scaled["spec"]["replicas"] = wanted
            cluster.update_deployment(scaled, now)
