"""What kube-state-metrics, cAdvisor and Prometheus itself say about the lab's cluster."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np

from lab.cluster import Cluster, is_ready, owner_of
from lab.cluster_objects import GPU, NAMESPACE, Json
from lab.exposition import STEP, Family, Registry

_USUALLY_THROTTLED = 0.012


def _gauge(name: str, text: str) -> Family:
    return Family(name=name, kind="gauge", help=text)


UP = _gauge("up", "Whether the scrape target answered.")
WANTED = _gauge("kube_deployment_spec_replicas", "Replicas wanted.")
AVAILABLE = _gauge("kube_deployment_status_replicas_available", "Replicas available.")
GENERATION = _gauge("kube_deployment_status_observed_generation", "Generation seen by the controller.")
POD_INFO = _gauge("kube_pod_info", "A pod, its node and its owner.")
POD_OWNER = _gauge("kube_pod_owner", "A pod's owner; a ReplicaSet's name ends with the hash of its template.")
POD_READY = _gauge("kube_pod_status_ready", "Whether the pod is ready.")
RESTARTS = Family(name="kube_pod_container_status_restarts_total", kind="counter", help="Container restarts.")
LAST_END = _gauge("kube_pod_container_status_last_terminated_reason", "Why the container before this one ended.")
WAITING = _gauge("kube_pod_container_status_waiting_reason", "Why a container waits.")
PHASE = _gauge("kube_pod_status_phase", "The pod's phase.")
ALLOCATABLE = _gauge("kube_node_status_allocatable", "What pods can have of a node.")
CAPACITY = _gauge("kube_node_status_capacity", "What a node has.")
PERIODS = Family(name="container_cpu_cfs_periods_total", kind="counter", help="CFS periods.")
THROTTLED = Family(name="container_cpu_cfs_throttled_periods_total", kind="counter", help="Throttled CFS periods.")
STARTED = _gauge("process_start_time_seconds", "Start of the process (seconds since 1970).")


def step(
    registry: Registry, cluster: Cluster, rng: np.random.Generator, throttled: Mapping[str, float] | None = None
) -> None:
    """
    Renew everything that is known about deployments, pods and nodes.

    `throttled` is the share of its CFS periods in which a pod was stopped, for pods where it is not the usual one.
    """
    for deployment in cluster.kinds["deployments"].values():
        about = {"namespace": NAMESPACE, "deployment": deployment["metadata"]["name"]}
        registry.set(WANTED, about, deployment["spec"]["replicas"])
        registry.set(AVAILABLE, about, deployment["status"]["availableReplicas"])
        registry.set(GENERATION, about, deployment["status"]["observedGeneration"])
    for pod in cluster.kinds["pods"].values():
        _step_pod(registry, pod, rng, (throttled or {}).get(pod["metadata"]["name"], _USUALLY_THROTTLED))
    for name, node in cluster.kinds["nodes"].items():
        if GPU in node["status"]["capacity"]:
            about = {"node": name, "resource": "nvidia_com_gpu", "unit": "integer"}
            registry.set(ALLOCATABLE, about, int(node["status"]["allocatable"].get(GPU, "0")))
            registry.set(CAPACITY, about, int(node["status"]["capacity"][GPU]))


def _step_pod(registry: Registry, pod: Json, rng: np.random.Generator, throttled: float) -> None:
    name, [container] = pod["metadata"]["name"], pod["spec"]["containers"]
    about = {"namespace": NAMESPACE, "pod": name}
    node = pod["spec"].get("nodeName", "")
    registry.set(
        POD_INFO, {**about, "node": node, "created_by_kind": "ReplicaSet", "created_by_name": owner_of(pod)}, 1
    )
    owner = {"owner_kind": "ReplicaSet", "owner_name": owner_of(pod)}
    registry.set(POD_OWNER, {**about, **owner}, 1)
    registry.set(POD_READY, {**about, "condition": "true"}, int(is_ready(pod)))
    inside = {**about, "container": container["name"]}
    for phase in ("Pending", "Running"):
        registry.set(PHASE, {**about, "phase": phase}, int(pod["status"]["phase"] == phase))
    _step_container(registry, pod, inside)
    if is_ready(pod):
        periods = round(STEP.total_seconds() * 10)  # CFS periods last 100 ms
        registry.add(PERIODS, inside, periods)
        registry.add(THROTTLED, inside, int(rng.binomial(periods, throttled)))
        [state] = pod["status"]["containerStatuses"]
        started = datetime.fromisoformat(state["state"]["running"]["startedAt"])
        registry.set(STARTED, about, started.timestamp())
        registry.set(UP, {"job": pod["metadata"]["labels"]["app"], **about}, 1)


def _step_container(registry: Registry, pod: Json, inside: dict[str, str]) -> None:
    """Restarts with their reasons. The reasons that this fleet knows are 0 from the start, so that they can rise."""
    [state] = pod["status"].get("containerStatuses") or [{"restartCount": 0, "state": {}}]
    registry.set(RESTARTS, inside, state["restartCount"])
    ended = state.get("lastState", {}).get("terminated", {}).get("reason", "")
    waits = state["state"].get("waiting", {}).get("reason", "")
    needs_gpu = GPU in pod["spec"]["containers"][0]["resources"]["limits"]
    known = ("Error", "OOMKilled") if needs_gpu else ()
    for reason in dict.fromkeys((*known, *([ended] if ended else []))):
        registry.set(LAST_END, {**inside, "reason": reason}, int(reason == ended))
    for reason in ("CrashLoopBackOff",) if needs_gpu else ():
        registry.set(WAITING, {**inside, "reason": reason}, int(reason == waits))
    if state["restartCount"] and not is_ready(pod):
        about = {label: inside[label] for label in ("namespace", "pod")}
        registry.set(UP, {"job": pod["metadata"]["labels"]["app"], **about}, 0)
