"""What is said about scaling out: the autoscaler's own series, and what a probe knows of pods that do not start."""

from __future__ import annotations

from collections import Counter

from lab.cluster import Cluster
from lab.cluster_objects import GPU, NAMESPACE, Json
from lab.exposition import Family, Registry


def _gauge(name: str, text: str) -> Family:
    return Family(name=name, kind="gauge", help=text)


DESIRED = _gauge("kube_horizontalpodautoscaler_status_desired_replicas", "Replicas that the autoscaler wants.")
CURRENT = _gauge("kube_horizontalpodautoscaler_status_current_replicas", "Replicas that the autoscaler found.")
MOST = _gauge("kube_horizontalpodautoscaler_spec_max_replicas", "Replicas that the autoscaler may want at most.")
UNSCHEDULABLE = _gauge("kube_pod_status_unschedulable", "Pods for which there is no node.")
WAITING = _gauge("kube_pod_container_status_waiting_reason", "Why a container waits.")
PROBED_DESIRED = _gauge("watchkeeper_probe_desired_replicas", "Replicas that whoever scales the deployment wants.")
PROBED_PENDING = _gauge("watchkeeper_probe_pending_pods", "Pods that do not run yet, by why.")

_REASONS = ("Unschedulable", "ContainerCreating")


def step(registry: Registry, cluster: Cluster) -> None:
    """Renew what is known about every deployment with GPUs, and the autoscalers."""
    wanted = {name: int(one["spec"]["replicas"]) for name, one in cluster.kinds["deployments"].items() if _has_gpu(one)}
    for name, autoscaler in cluster.kinds["horizontalpodautoscalers"].items():
        about = {"namespace": NAMESPACE, "horizontalpodautoscaler": name}
        target = autoscaler["spec"]["scaleTargetRef"]["name"]
        status = autoscaler.get("status", {})
        desired = int(status.get("desiredReplicas", wanted.get(target, 0)))
        wanted[target] = desired
        registry.set(DESIRED, about, desired)
        registry.set(CURRENT, about, int(status.get("currentReplicas", desired)))
        registry.set(MOST, about, int(autoscaler["spec"]["maxReplicas"]))
    for name, replicas in wanted.items():
        registry.set(PROBED_DESIRED, {"deployment": name}, replicas)
        reasons = Counter(_why_pending(registry, pod) for pod in cluster.pods_of(name))
        for reason in _REASONS:
            registry.set(PROBED_PENDING, {"deployment": name, "reason": reason}, reasons[reason])


def _why_pending(registry: Registry, pod: Json) -> str:
    """Why a pod does not run yet ("" when it does), with kube-state-metrics' series that say so."""
    about = {"namespace": NAMESPACE, "pod": str(pod["metadata"]["name"])}
    is_pending = pod["status"]["phase"] == "Pending"
    has_node = "nodeName" in pod["spec"]
    if is_pending and not has_node:
        registry.set(UNSCHEDULABLE, about, 1)
        return _REASONS[0]
    if is_pending or registry.has(WAITING, {**about, "container": "vllm", "reason": _REASONS[1]}):
        registry.set(WAITING, {**about, "container": "vllm", "reason": _REASONS[1]}, int(is_pending))
    if registry.has(UNSCHEDULABLE, about):
        registry.set(UNSCHEDULABLE, about, 0)
    return _REASONS[1] if is_pending else ""


def _has_gpu(deployment: Json) -> bool:
    containers = deployment["spec"]["template"]["spec"]["containers"]
    return any(GPU in each["resources"].get("limits", {}) for each in containers)
