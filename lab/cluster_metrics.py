"""What kube-state-metrics, cAdvisor and Prometheus itself say about the lab's cluster."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from lab.cluster import Cluster, is_ready, owner_of
from lab.cluster_objects import GPU, NAMESPACE, Json
from lab.exposition import STEP, Family, Registry


def _gauge(name: str, text: str) -> Family:
    return Family(name=name, kind="gauge", help=text)


UP = _gauge("up", "Whether the scrape target answered.")
WANTED = _gauge("kube_deployment_spec_replicas", "Replicas wanted.")
AVAILABLE = _gauge("kube_deployment_status_replicas_available", "Replicas available.")
GENERATION = _gauge("kube_deployment_status_observed_generation", "Generation seen by the controller.")
POD_INFO = _gauge("kube_pod_info", "A pod, its node and its owner.")
POD_READY = _gauge("kube_pod_status_ready", "Whether the pod is ready.")
RESTARTS = Family(name="kube_pod_container_status_restarts_total", kind="counter", help="Container restarts.")
ALLOCATABLE = _gauge("kube_node_status_allocatable", "What pods can have of a node.")
CAPACITY = _gauge("kube_node_status_capacity", "What a node has.")
PERIODS = Family(name="container_cpu_cfs_periods_total", kind="counter", help="CFS periods.")
THROTTLED = Family(name="container_cpu_cfs_throttled_periods_total", kind="counter", help="Throttled CFS periods.")
STARTED = _gauge("process_start_time_seconds", "Start of the process (seconds since 1970).")


def step(registry: Registry, cluster: Cluster, rng: np.random.Generator) -> None:
    """Renew everything that is known about deployments, pods and nodes."""
    for deployment in cluster.kinds["deployments"].values():
        about = {"namespace": NAMESPACE, "deployment": deployment["metadata"]["name"]}
        registry.set(WANTED, about, deployment["spec"]["replicas"])
        registry.set(AVAILABLE, about, deployment["status"]["availableReplicas"])
        registry.set(GENERATION, about, deployment["status"]["observedGeneration"])
    for pod in cluster.kinds["pods"].values():
        _step_pod(registry, pod, rng)
    for name, node in cluster.kinds["nodes"].items():
        if GPU in node["status"]["capacity"]:
            about = {"node": name, "resource": "nvidia_com_gpu", "unit": "integer"}
            registry.set(ALLOCATABLE, about, int(node["status"]["allocatable"].get(GPU, "0")))
            registry.set(CAPACITY, about, int(node["status"]["capacity"][GPU]))


def _step_pod(registry: Registry, pod: Json, rng: np.random.Generator) -> None:
    name, [container] = pod["metadata"]["name"], pod["spec"]["containers"]
    about = {"namespace": NAMESPACE, "pod": name}
    node = pod["spec"].get("nodeName", "")
    registry.set(
        POD_INFO, {**about, "node": node, "created_by_kind": "ReplicaSet", "created_by_name": owner_of(pod)}, 1
    )
    registry.set(POD_READY, {**about, "condition": "true"}, int(is_ready(pod)))
    inside = {**about, "container": container["name"]}
    restarts = sum(c["restartCount"] for c in pod["status"].get("containerStatuses", []))
    registry.set(RESTARTS, inside, restarts)
    if is_ready(pod):
        periods = round(STEP.total_seconds() * 10)  # CFS periods last 100 ms
        registry.add(PERIODS, inside, periods)
        registry.add(THROTTLED, inside, int(rng.binomial(periods, 0.012)))
        [state] = pod["status"]["containerStatuses"]
        started = datetime.fromisoformat(state["state"]["running"]["startedAt"])
        registry.set(STARTED, about, started.timestamp())
        registry.set(UP, {"job": pod["metadata"]["labels"]["app"], **about}, 1)
