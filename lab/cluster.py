"""The state of the lab's cluster, and the controllers that turn what is wanted into pods as Kubernetes would."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from lab import cluster_disruptions as disruptions
from lab import cluster_objects as objects
from lab.cluster_failures import Life, PodFailure, status_of
from lab.cluster_objects import GPU, NAMESPACE, REVISION, Json

ENGINE = "chat-vllm"
MODEL = "llama-3.1-8b-instruct"

WEIGHT_LOADING = timedelta(minutes=4)
"""From scheduled to ready for a pod with a GPU: pull, 75 s of weights, compilation, warm-up."""

KINDS = (
    "deployments", "replicasets", "pods", "nodes", "events", "poddisruptionbudgets", "horizontalpodautoscalers",
)  # fmt: skip
_PLAIN_START = timedelta(seconds=20)
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class NotFoundError(Exception):
    """There is no object of this kind and name."""


@dataclass(kw_only=True)
class Cluster:
    """
    One namespace of one cluster: deployments with their replica sets, pods, disruption budgets, and the nodes.

    Objects are plain JSON, as the API serves them. `advance(now)` runs the controllers; nothing happens in between.
    `failures` are what ends containers at present, whoever put them there; `loading` is how long a pod with a GPU that
    is scheduled now takes until it is ready.
    """

    rng: np.random.Generator
    failures: list[PodFailure] = field(default_factory=list)
    loading: timedelta = WEIGHT_LOADING
    kinds: dict[str, dict[str, Json]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    _version: int = 1000
    _lives: dict[str, Life] = field(default_factory=dict)

    def get(self, kind: str, name: str) -> Json:
        """Raises NotFoundError."""
        try:
            return self.kinds[kind][name]
        except KeyError:
            raise NotFoundError(f'{kind} "{name}" not found') from None

    def put(self, kind: str, item: Json) -> Json:
        """Store an object under the next resource version."""
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self.kinds[kind][item["metadata"]["name"]] = item
        return item

    @property
    def version(self) -> str:
        return str(self._version)

    def update_deployment(self, changed: Json, now: datetime) -> Json:
        """Accept a new state of a deployment (its status stays the controller's) and let the controllers see it."""
        before = self.get("deployments", changed["metadata"]["name"])
        accepted = copy.deepcopy(changed)
        accepted["status"] = before["status"]
        if accepted["spec"] != before["spec"]:
            accepted["metadata"]["generation"] = before["metadata"]["generation"] + 1
        if accepted["spec"]["template"] != before["spec"]["template"]:
            accepted["metadata"]["managedFields"] = [objects.template_written(now)]
        self.put("deployments", accepted)
        self.advance(now)
        return self.get("deployments", accepted["metadata"]["name"])

    def update_node(self, changed: Json, now: datetime) -> Json:
        """Accept a new state of a node; who is cordoned gets the taint that says so."""
        name = changed["metadata"]["name"]
        accepted = copy.deepcopy(changed)
        accepted["status"] = self.get("nodes", name)["status"]
        objects.taint_cordoned(accepted, now)
        self.put("nodes", accepted)
        self.advance(now)
        return self.get("nodes", name)

    def remove_pod(self, name: str, now: datetime) -> None:
        """Delete a pod, and let its controller start another one. Raises NotFoundError."""
        pod = self.get("pods", name)
        self._delete_pod(pod, self.get("replicasets", owner_of(pod)), now)
        self.advance(now)

    def refuse_disruption(self, pod: Json, now: datetime) -> None:
        """Raises HeldBackError, TooManyBudgetsError."""
        self.advance(now)
        budgets = list(self.kinds["poddisruptionbudgets"].values())
        disruptions.refuse_disruption(pod, budgets, is_ready=is_ready(pod))

    def advance(self, now: datetime) -> None:
        """Run every controller once: pods get ready, deployments move towards what is wanted, statuses follow."""
        for pod in list(self.kinds["pods"].values()):
            self._start(pod, now)
        for deployment in list(self.kinds["deployments"].values()):
            self._roll(deployment, now)
            self._report(deployment, now)
        for budget in self.kinds["poddisruptionbudgets"].values():
            self._count_disruptions(budget)

    def pods_of(self, deployment: str, *, ready: bool = False) -> list[Json]:
        """A deployment's pods by name; `ready` leaves out those that take no traffic yet."""
        app = {"app": deployment}.items()
        pods = [p for p in self.kinds["pods"].values() if app <= p["metadata"]["labels"].items()]
        return sorted((p for p in pods if not ready or is_ready(p)), key=lambda p: str(p["metadata"]["name"]))

    # The deployment controller

    def _roll(self, deployment: Json, now: datetime) -> None:
        """One pass of a rolling update with the deployment's maxSurge and maxUnavailable."""
        current = self._current_set(deployment, now)
        wanted = deployment["spec"]["replicas"]
        pods = self.pods_of(deployment["metadata"]["name"])
        mine = [p for p in pods if owner_of(p) == current["metadata"]["name"]]
        old = [p for p in pods if owner_of(p) != current["metadata"]["name"]]
        surge, unavailable = (
            int(deployment["spec"]["strategy"]["rollingUpdate"][name]) for name in ("maxSurge", "maxUnavailable")
        )
        if deployment["spec"].get("paused") and len(pods) >= wanted:
            return  # only the template waits; a pod that is lost is replaced
        room = wanted + (surge if old else 0) - len(pods)
        mine += [self._create_pod(current, now) for _ in range(max(0, min(wanted - len(mine), room)))]
        for surplus in sorted(mine, key=_deletion_order)[: max(0, len(mine) - wanted)]:
            self._delete_pod(surplus, current, now)
        spare = sum(is_ready(p) for p in (*mine, *old)) - (wanted - unavailable)
        for victim in sorted(old, key=is_ready):
            if is_ready(victim):
                if spare <= 0:
                    break
                spare -= 1
            self._delete_pod(victim, self.get("replicasets", owner_of(victim)), now)

    def _current_set(self, deployment: Json, now: datetime) -> Json:
        """The replica set of the present template; returning to an old template gives its set the next revision."""
        revision = int(deployment["metadata"]["annotations"].get(REVISION, "0"))
        known = self.kinds["replicasets"].get(objects.replica_set_name(deployment))
        if known is not None and known["metadata"]["annotations"][REVISION] == str(revision):
            return known
        if known is not None:
            objects.renumber(known, revision + 1)
        current = self.put("replicasets", known or objects.replica_set(deployment, revision + 1, created=now))
        deployment["metadata"]["annotations"][REVISION] = str(revision + 1)
        self.put("deployments", deployment)
        self._event(deployment, "ScalingReplicaSet", f"Rolling out revision {revision + 1}", now)
        return current

    def _create_pod(self, owner: Json, now: datetime) -> Json:
        suffix = "".join(self.rng.choice(list(_SUFFIX_ALPHABET), 5))
        pod = self.put("pods", objects.pod(owner, suffix, created=now))
        self._event(owner, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}", now)
        self._start(pod, now)
        return pod

    def _delete_pod(self, pod: Json, owner: Json, now: datetime) -> None:
        name = pod["metadata"]["name"]
        del self.kinds["pods"][name]
        self._lives.pop(name, None)
        self._version += 1
        self._event(owner, "SuccessfulDelete", f"Deleted pod: {name}", now)

    # The scheduler and the kubelet

    def _start(self, pod: Json, now: datetime) -> None:
        name, needs_gpu = pod["metadata"]["name"], _gpus(pod) > 0
        if "nodeName" not in pod["spec"]:
            node = self._free_node(needs_gpu=needs_gpu)
            if node is None:
                self._mark_unschedulable(pod, now)
                return
            pod["spec"]["nodeName"] = node
            pod["status"] = {"phase": "Pending", "conditions": [objects.condition("PodScheduled", "True", now)]}
            self._lives[name] = Life(starts=now, loading=self.loading if needs_gpu else _PLAIN_START)
            self.put("pods", pod)
            self._event(pod, "Scheduled", f"Successfully assigned {NAMESPACE}/{name} to {node}", now)
        self._run_container(pod, now)

    def _run_container(self, pod: Json, now: datetime) -> None:
        """What the kubelet does for a pod: end what fails, start it again after its back-off, report."""
        name = pod["metadata"]["name"]
        life = self._lives[name]
        life.start_again(now)
        for failure in self.failures:
            if life.is_over(failure, pod, now):
                if life.end(failure, pod, now):
                    self._event(pod, "BackOff", f"Back-off restarting failed container in pod {name}", now, "Warning")
                life.start_again(now)
            if life.is_replaced(failure, now):
                self._event(pod, "UnexpectedAdmissionError", failure.message, now, kind="Warning")
                self._delete_pod(pod, self.get("replicasets", owner_of(pod)), now)
                return
        status = status_of(pod, life, now)
        if status != pod["status"]:
            pod["status"] = status
            self.put("pods", pod)

    def _free_node(self, *, needs_gpu: bool) -> str | None:
        used: dict[str, int] = {}
        for pod in self.kinds["pods"].values():
            node = pod["spec"].get("nodeName", "")
            used[node] = used.get(node, 0) + _gpus(pod)
        for name, node in self.kinds["nodes"].items():
            if node["spec"].get("unschedulable"):
                continue
            gpus = int(node["status"]["allocatable"].get(GPU, "0"))
            if (used.get(name, 0) < gpus) if needs_gpu else gpus == 0:
                return name
        return None

    def _mark_unschedulable(self, pod: Json, now: datetime) -> None:
        if not pod["status"]["conditions"]:
            waiting = objects.condition("PodScheduled", "False", now)
            waiting |= {"reason": "Unschedulable", "message": f"0/{len(self.kinds['nodes'])} nodes: Insufficient {GPU}"}
            pod["status"]["conditions"] = [waiting]
            self.put("pods", pod)
            self._event(pod, "FailedScheduling", str(waiting["message"]), now, kind="Warning")

    def _report(self, deployment: Json, now: datetime) -> None:
        """Write the statuses of a deployment and its replica sets; unchanged ones keep their resource version."""
        name, wanted = deployment["metadata"]["name"], deployment["spec"]["replicas"]
        pods = self.pods_of(name)
        current = objects.replica_set_name(deployment)
        for replica_set in self.sets_of(name):
            mine = [p for p in pods if owner_of(p) == replica_set["metadata"]["name"]]
            ready = sum(map(is_ready, mine))
            status = {"replicas": len(mine), "readyReplicas": ready, "availableReplicas": ready}
            if replica_set["status"] != status:
                replica_set["spec"]["replicas"] = len(mine)
                replica_set["status"] = status
                self.put("replicasets", replica_set)
        ready = sum(map(is_ready, pods))
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(pods),
            "updatedReplicas": sum(owner_of(p) == current for p in pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
        }
        if status.items() <= deployment["status"].items():
            return
        available = objects.condition("Available", "True" if ready >= wanted else "False", now)
        deployment["status"] = {**status, "conditions": [available, objects.condition("Progressing", "True", now)]}
        self.put("deployments", deployment)

    def _count_disruptions(self, budget: Json) -> None:
        pods = list(self.kinds["pods"].values())
        status = disruptions.status_of(budget, pods, ready=[pod for pod in pods if is_ready(pod)])
        if budget["status"] != status:
            budget["status"] = status
            self.put("poddisruptionbudgets", budget)

    def sets_of(self, deployment: str) -> Iterator[Json]:
        for replica_set in self.kinds["replicasets"].values():
            if owner_of(replica_set) == deployment:
                yield replica_set

    def _event(self, about: Json, reason: str, message: str, now: datetime, kind: str = "Normal") -> None:
        self.put("events", objects.event(about, reason, message, at=now, place=self._version + 1, kind=kind))


def is_ready(pod: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


def owner_of(item: Json) -> str:
    return str(item["metadata"]["ownerReferences"][0]["name"])


def _gpus(pod: Json) -> int:
    return sum(int(c["resources"].get("limits", {}).get(GPU, "0")) for c in pod["spec"]["containers"])


def _deletion_order(pod: Json) -> tuple[bool, float]:
    """Kubernetes deletes pods that are not ready first, then the youngest."""
    return is_ready(pod), -datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()


def build(rng: np.random.Generator, now: datetime) -> Cluster:
    """The reference cluster at rest: six GPU nodes in two racks (two of them spare), four engine pods, and a past."""
    cluster = Cluster(rng=rng)
    built = now - timedelta(days=40)
    for place in range(6):
        cluster.put("nodes", objects.node(f"gpu-{place + 1}", f"rack-{place % 2 + 1}", 1, created=built))
    cluster.put("nodes", objects.node("cpu-1", "rack-1", 0, created=built))
    old_args = ["--model", f"meta-llama/{MODEL}", "--max-num-seqs", "192", "--enable-prefix-caching"]
    old_args += ["--gpu-memory-utilization", "0.90"]
    for name, replicas, template in (
        (ENGINE, 4, objects.engine_template("vllm/vllm-openai:v0.11.0", old_args)),
        ("chat-gateway", 2, objects.plain_template("chat-gateway", "ghcr.io/berriai/litellm:v1.80.0")),
        ("chat-retrieval", 2, objects.plain_template("chat-retrieval", "registry.lab/chat-retrieval:2.4.1")),
    ):
        cluster.put("deployments", objects.deployment(name, replicas, template, created=built))
    cluster.put("poddisruptionbudgets", objects.disruption_budget(ENGINE, min_available=3, created=built))
    _settle(cluster, built)
    engine = copy.deepcopy(cluster.get("deployments", ENGINE))
    engine["spec"]["template"]["spec"]["containers"][0]["args"][3] = "256"
    engine["metadata"]["annotations"]["kubernetes.io/change-cause"] = "raise max-num-seqs to 256"
    rolled_out = now - timedelta(days=6)
    cluster.update_deployment(engine, rolled_out)
    _settle(cluster, rolled_out)
    cluster.kinds["events"].clear()  # Kubernetes forgets events after an hour
    return cluster


def _settle(cluster: Cluster, now: datetime) -> None:
    for minutes in range(0, 60, 2):
        cluster.advance(now + timedelta(minutes=minutes))
