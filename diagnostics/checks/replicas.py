"""
Are all replicas there, and do they stay up?

Reads ready against wanted replicas, restarts since the baseline with their reasons, pods that are pending or waiting
with theirs, and replicas that the autoscaler wants and does not get. Bad when a replica is missing, a container
restarted or was killed, or a scale-out hangs. Missing replicas with XIDs are the GPU (`gpu_xid`), with OOMKilled or
CrashLoopBackOff and no XID the configuration, pending ones the cluster.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look, total
from diagnostics.places import Places, places, where_found
from diagnostics.target import Target
from diagnostics.telemetry.model import Query, Telemetry, Vector
from diagnostics.wording import number

AVAILABLE = "kube_deployment_status_replicas_available"
WANTED = "kube_deployment_spec_replicas"
RESTARTS = "kube_pod_container_status_restarts_total"
TERMINATED = "kube_pod_container_status_last_terminated_reason"
WAITING = "kube_pod_container_status_waiting_reason"
PHASE = "kube_pod_status_phase"
AUTOSCALER = "kube_horizontalpodautoscaler_status_desired_replicas"
DESIRED = "watchkeeper_probe_desired_replicas"
PENDING = "watchkeeper_probe_pending_pods"

CRASHES = frozenset({"CrashLoopBackOff", "RunContainerError", "Error", "OOMKilled", "ContainerCannotRun"})
"""Reasons of a pod that starts and dies; the others (ContainerCreating, ImagePullBackOff, ...) never let it start."""

REPEATED = 2.5


@dataclass(frozen=True, kw_only=True)
class Pods:
    """What Kubernetes says about the engines' pods; numbers per pod, reasons as people know them."""

    restarted: Mapping[str, float]
    killed: frozenset[str]
    pending: float
    crashing: frozenset[str]
    reasons: tuple[str, ...]
    places: Places


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("kubernetes", AVAILABLE)
    ready, wanted, desired, pods = await asyncio.gather(
        look.levels(AVAILABLE, "kubernetes", by=("deployment",), where=_engines(target)),
        look.levels(WANTED, "kubernetes", by=("deployment",), where=_engines(target)),
        _desired(look),
        _pods(look),
    )
    have, want = total(ready), total(wanted)
    if have.now is None or not want.now:
        raise CannotTellError("the deployments of the service report no replicas now")
    gap = max((desired or want.now) - have.now, 0.0)
    measures = _measures(have, want, pods, gap)
    complaints = _complaints(have, want, pods, desired)
    if complaints:
        return Finding.bad("replicas", " ".join(complaints), *measures)
    return Finding.ok("replicas", f"All {number(have.now)} replicas are ready; none restarted.", *measures)


def _engines(target: Target) -> dict[str, str]:
    """The engines' deployments, or all of the selector's when the service names none."""
    names = _engine_names(target)
    return {"deployment": "~" + "|".join(re.escape(name) for name in names)} if names else {}


def _engine_names(target: Target) -> list[str]:
    return [deployment.name for deployment in target.deployments if deployment.kind == "engine"]


async def _desired(look: Look) -> float | None:
    """
    What the autoscaler wants; None without one.

    An HPA's name need not be its deployment's: one that is named after none of them counts where it is the only one.
    """
    probed, scaled = await asyncio.gather(
        _probed(look, DESIRED), look.peak(AUTOSCALER, "kubernetes", by=("horizontalpodautoscaler",))
    )
    if probed and not scaled:
        return sum(probed.values())
    kinds = {key: _kind_scaled(look.target, key[0]) for key in scaled}
    own = [value for key, value in scaled.items() if kinds[key] == "engine"]
    nameless = [value for key, value in scaled.items() if not kinds[key]]
    return max(own or (nameless if len(nameless) == 1 else []), default=None)


def _kind_scaled(target: Target, autoscaler: str) -> str:
    """The kind of the deployment whose name the autoscaler's has in it; "" where it has none of them."""
    within = [deployment for deployment in target.deployments if deployment.name in autoscaler]
    return max(within, key=lambda deployment: len(deployment.name)).kind if within else ""


async def _probed(look: Look, metric: str) -> Vector:
    """What the probe knows of the engines' deployments, by deployment and reason; empty without the probe."""
    names = _engine_names(look.target)
    where = await where_found(look, "kubernetes", metric, "deployment", names)
    if where is None:
        return {}
    query = Query(metric=metric, where={**where, **_engines(look.target)}, by=("deployment", "reason"))
    return await look.telemetry.vector(query, look.frame.at)


async def _pods(look: Look) -> Pods:
    restarts, killed, waiting, phases, probed, known = await asyncio.gather(
        look.increase(RESTARTS, "kubernetes", by=("pod",)),
        look.peak(TERMINATED, "kubernetes", by=("pod", "reason")),
        look.peak(WAITING, "kubernetes", by=("pod", "reason")),
        look.peak(PHASE, "kubernetes", by=("pod",), where={"phase": "Pending"}),
        _probed(look, PENDING),
        places(look),
    )
    ours = frozenset(known.pods)
    restarted = {pod: count for (pod,), count in restarts.items() if count >= 0.5 and _is_ours(pod, ours)}
    stuck = {(pod, reason) for (pod, reason), value in waiting.items() if value >= 0.5 and _is_ours(pod, ours)}
    starts = tuple(f"{name}-" for name in _engine_names(look.target))
    asleep = {
        pod for (pod,), value in phases.items() if value >= 1.0 and (_is_ours(pod, ours) or pod.startswith(starts))
    }
    asleep |= {pod for pod, reason in stuck if reason not in CRASHES}
    ends = {
        (pod, reason)
        for (pod, reason), value in killed.items()
        if value >= 0.5 and reason != "Completed" and pod in restarted
    }
    waits = {(deployment, reason) for (deployment, reason), value in probed.items() if value >= 0.5 and reason}
    return Pods(
        restarted=restarted,
        killed=frozenset(pod for pod, reason in ends if reason == "OOMKilled"),
        pending=max(float(len(asleep)), sum(probed.values())),
        crashing=frozenset(pod for pod, reason in stuck if reason in CRASHES),
        reasons=_reasons(ends | stuck | waits),
        places=known,
    )


def _is_ours(pod: str, ours: frozenset[str]) -> bool:
    """Whether a pod runs an engine; where nobody knows the engines' pods, all of the selector's count."""
    return not ours or pod in ours


def _reasons(pairs: set[tuple[str, str]]) -> tuple[str, ...]:
    """Each reason with how many have it, most frequent first."""
    counts = Counter(reason for _, reason in pairs if reason)
    return tuple(f"{reason} ({count})" for reason, count in counts.most_common())


def _measures(have: Compared, want: Compared, pods: Pods, gap: float) -> list[Measure]:
    ratio_then = have.baseline / want.baseline if have.baseline is not None and want.baseline else None
    ratio_now = have.now / want.now if have.now is not None and want.now else None
    repeated = {pod for pod, count in pods.restarted.items() if count >= REPEATED} | pods.crashing
    counts = {
        "restarts": (float(round(sum(pods.restarted.values()))), "restarts"),
        "repeated_restarts": (float(len(repeated)), "pods"),
        "oom_killed": (float(len(pods.killed)), "containers"),
        "pending_pods": (pods.pending, "pods"),
        "scale_gap": (gap if gap >= 0.5 else 0.0, "replicas"),
    }
    measures = [Measure(signal="ready_ratio", value=ratio_now, baseline=ratio_then, unit="ratio")]
    measures += [Measure(signal=s, value=value, baseline=0.0, unit=unit) for s, (value, unit) in counts.items()]
    for pod in sorted({*pods.restarted, *pods.crashing}):
        count = pods.restarted.get(pod, 1.0)
        measures.append(_on_pod("restarts", pod, count, "restarts", pods.places))
        if pod in repeated:
            measures.append(_on_pod("repeated_restarts", pod, 1.0, "pods", pods.places))
    measures += [_on_pod("oom_killed", pod, 1.0, "containers", pods.places) for pod in sorted(pods.killed)]
    return measures


def _on_pod(signal: str, pod: str, value: float, unit: str, known: Places) -> Measure:
    return Measure(signal=signal, value=float(round(value)), baseline=0.0, unit=unit, scope=known.where(pod))


def _complaints(have: Compared, want: Compared, pods: Pods, desired: float | None) -> list[str]:
    said = []
    if have.now is not None and want.now is not None and have.now < want.now - 0.5:
        said.append(f"{number(round(have.now, 1))} of {number(round(want.now, 1))} replicas are ready.")
    if (
        desired is not None
        and want.now is not None
        and have.now is not None
        and desired > max(want.now, have.now) + 0.5
    ):
        said.append(f"The autoscaler wants {number(desired)} replicas; {number(round(have.now, 1))} are ready.")
    if pods.killed:
        said.append(f"Killed for memory: {', '.join(sorted(pods.killed))}.")
    if pods.restarted:
        said.append("Restarted: " + ", ".join(f"{pod} ({n:.0f} times)" for pod, n in pods.restarted.items()) + ".")
    if pods.pending >= 1:
        said.append(f"{pods.pending:.0f} pods cannot start.")
    if pods.crashing and not pods.restarted:
        said.append(f"Crashing again and again: {', '.join(sorted(pods.crashing))}.")
    if said and pods.reasons:
        said.append(f"Reasons: {', '.join(pods.reasons[:4])}.")
    return said
