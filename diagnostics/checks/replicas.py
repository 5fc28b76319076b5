"""
Are all replicas there, and do they stay up?

Reads ready against wanted replicas, restarts since the baseline, containers killed for memory, pods that are pending,
and replicas that the autoscaler wants and does not get. Bad when a replica is missing, or a container restarted or was
killed. Missing replicas with XIDs are the GPU (`gpu_xid`), with OOMKilled the configuration, pending ones the cluster.
"""

from __future__ import annotations

import asyncio
import re

from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look, total
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import number

AVAILABLE = "kube_deployment_status_replicas_available"
WANTED = "kube_deployment_spec_replicas"
RESTARTS = "kube_pod_container_status_restarts_total"
TERMINATED = "kube_pod_container_status_last_terminated_reason"
PHASE = "kube_pod_status_phase"
DESIRED = ("kube_horizontalpodautoscaler_status_desired_replicas", "watchkeeper_probe_desired_replicas")
PENDING = "watchkeeper_probe_pending_pods"


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("kubernetes", AVAILABLE)
    ready, wanted, desired, restarts, killed, pending = await asyncio.gather(
        look.levels(AVAILABLE, "kubernetes", by=("deployment",), where=_engines(target)),
        look.levels(WANTED, "kubernetes", by=("deployment",), where=_engines(target)),
        _desired(look),
        look.increase(RESTARTS, "kubernetes", by=("pod",)),
        look.peak(TERMINATED, "kubernetes", by=("pod",), where={"reason": "OOMKilled"}),
        _pending(look),
    )
    have, want = total(ready), total(wanted)
    if have.now is None or not want.now:
        raise CannotTellError("the deployments of the service report no replicas now")
    restarted = {pod: count for (pod,), count in restarts.items() if count >= 0.5}
    died = sorted(pod for (pod,), value in killed.items() if value >= 0.5 and pod in restarted)
    gap = max((desired or want.now) - have.now, 0.0)
    measures = _measures(have, want, restarted, died, pending, gap)
    complaints = _complaints(have, want, restarted, died, pending)
    if complaints:
        return Finding.bad("replicas", " ".join(complaints), *measures)
    return Finding.ok("replicas", f"All {number(have.now)} replicas are ready; none restarted.", *measures)


def _engines(target: Target) -> dict[str, str]:
    """The engines' deployments, or all of the selector's when the service names none."""
    names = [deployment.name for deployment in target.deployments if deployment.kind == "engine"]
    return {"deployment": "~" + "|".join(re.escape(name) for name in names)} if names else {}


async def _desired(look: Look) -> float | None:
    """What the autoscaler wants; None without one."""
    name = await look.exported("kubernetes", *DESIRED)
    return None if name is None else (await look.level(name, "kubernetes")).now


async def _pending(look: Look) -> float:
    phases, probed = await asyncio.gather(
        look.peak(PHASE, "kubernetes", by=("pod",), where={"phase": "Pending"}),
        look.peak(PENDING, "kubernetes", by=("deployment",)),
    )
    counted = sum(1.0 for value in phases.values() if value >= 1.0)
    return max(counted, sum(probed.values()))


def _measures(
    have: Compared, want: Compared, restarted: dict[str, float], died: list[str], pending: float, gap: float
) -> list[Measure]:
    ratio_then = have.baseline / want.baseline if have.baseline is not None and want.baseline else None
    ratio_now = have.now / want.now if have.now is not None and want.now else None
    measures = [
        Measure(signal="ready_ratio", value=ratio_now, baseline=ratio_then, unit="ratio"),
        Measure(signal="restarts", value=float(round(sum(restarted.values()))), baseline=0.0, unit="restarts"),
        Measure(signal="repeated_restarts", value=_repeated(restarted), baseline=0.0, unit="pods"),
        Measure(signal="oom_killed", value=float(len(died)), baseline=0.0, unit="containers"),
        Measure(signal="pending_pods", value=pending, baseline=0.0, unit="pods"),
        Measure(signal="scale_gap", value=_gap(gap), baseline=0.0, unit="replicas"),
    ]
    measures += [_on_pod("restarts", pod, count, "restarts") for pod, count in sorted(restarted.items())]
    measures += [_on_pod("oom_killed", pod, 1.0, "containers") for pod in died]
    return measures


def _repeated(restarted: dict[str, float]) -> float:
    return float(sum(1 for count in restarted.values() if count >= 2.5))


def _gap(gap: float) -> float:
    return gap if gap >= 0.5 else 0.0


def _on_pod(signal: str, pod: str, value: float, unit: str) -> Measure:
    return Measure(signal=signal, value=float(round(value)), baseline=0.0, unit=unit, scope=(("pod", pod),))


def _complaints(
    have: Compared, want: Compared, restarted: dict[str, float], died: list[str], pending: float
) -> list[str]:
    said = []
    if have.now is not None and want.now is not None and have.now < want.now - 0.5:
        said.append(f"{number(round(have.now, 1))} of {number(round(want.now, 1))} replicas are ready.")
    if died:
        said.append(f"Killed for memory: {', '.join(died)}.")
    if restarted:
        said.append("Restarted: " + ", ".join(f"{pod} ({count:.0f} times)" for pod, count in restarted.items()) + ".")
    if pending >= 1:
        said.append(f"{pending:.0f} pods cannot start.")
    return said
