"""The objects of the lab's cluster as Kubernetes writes them: deployments, replica sets, pods, nodes, events."""

from __future__ import annotations

import copy
import hashlib
import json
import uuid
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

NAMESPACE = "chat"
REVISION = "deployment.kubernetes.io/revision"
GPU = "nvidia.com/gpu"
EARLIER_REVISIONS = "deployment.kubernetes.io/revision-history"
TEMPLATE_HASH = "pod-template-hash"
CORDON_TAINT = "node.kubernetes.io/unschedulable"
_HASH_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' own: no vowels, so no words


def stamp(moment: datetime) -> str:
    """A time as Kubernetes writes it: seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def uid(*parts: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(parts)))


def condition(kind: str, status: str, since: datetime) -> Json:
    return {"type": kind, "status": status, "lastTransitionTime": stamp(since)}


def template_hash(template: Json) -> str:
    """A short name for a pod template, the same for the same template with or without its own hash label."""
    if TEMPLATE_HASH in template.get("metadata", {}).get("labels", {}):
        template = bare_template(template)
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).digest()
    return "".join(_HASH_ALPHABET[byte % len(_HASH_ALPHABET)] for byte in digest[:9])


def bare_template(template: Json) -> Json:
    """The template without the label that its replica set adds."""
    bare = copy.deepcopy(template)
    bare.get("metadata", {}).get("labels", {}).pop(TEMPLATE_HASH, None)
    return bare


def engine_template(image: str, args: list[str]) -> Json:
    """The pod template of a vLLM deployment with one GPU per pod."""
    return {
        "metadata": {"labels": {"app": "chat-vllm", "team": "llm"}},
        "spec": {
            "containers": [
                {
                    "name": "vllm",
                    "image": image,
                    "args": args,
                    "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}],
                    "resources": {
                        "limits": {"cpu": "12", "memory": "96Gi", GPU: "1"},
                        "requests": {"cpu": "8", "memory": "64Gi", GPU: "1"},
                    },
                    "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 10},
                },
            ],
            "terminationGracePeriodSeconds": 60,
        },
    }


def plain_template(name: str, image: str) -> Json:
    """The pod template of a deployment that needs no GPU."""
    return {
        "metadata": {"labels": {"app": name, "team": "llm"}},
        "spec": {
            "containers": [
                {
                    "name": name.removeprefix("chat-"),
                    "image": image,
                    "resources": {"limits": {"cpu": "4", "memory": "4Gi"}, "requests": {"cpu": "1", "memory": "2Gi"}},
                },
            ],
        },
    }


def deployment(name: str, replicas: int, template: Json, *, created: datetime) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": uid("deployment", name),
            "creationTimestamp": stamp(created),
            "generation": 1,
            "labels": {"app": name, "team": "llm"},
            "annotations": {},
        },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 1800,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template,
        },
        "status": {},
    }


def replica_set_name(owner: Json) -> str:
    """The name of the replica set that runs a deployment's present template."""
    return f"{owner['metadata']['name']}-{template_hash(owner['spec']['template'])}"


def replica_set(owner: Json, revision: int, *, created: datetime) -> Json:
    """The replica set that runs a deployment's present template."""
    template = bare_template(owner["spec"]["template"])
    short = template_hash(template)
    template.setdefault("metadata", {}).setdefault("labels", {})[TEMPLATE_HASH] = short
    name = replica_set_name(owner)
    change = owner["metadata"].get("annotations", {}).get("kubernetes.io/change-cause")
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": uid("replicaset", name),
            "creationTimestamp": stamp(created),
            "generation": 1,
            "labels": {**template["metadata"]["labels"]},
            "annotations": {REVISION: str(revision)} | ({"kubernetes.io/change-cause": change} if change else {}),
            "ownerReferences": [_owner(owner)],
        },
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {**owner["spec"]["selector"]["matchLabels"], TEMPLATE_HASH: short}},
            "template": template,
        },
        "status": {"replicas": 0},
    }


def renumber(replica_set: Json, revision: int) -> None:
    """A replica set that serves again gets the next number and remembers its former ones."""
    annotations = replica_set["metadata"]["annotations"]
    former = [annotations[EARLIER_REVISIONS]] if EARLIER_REVISIONS in annotations else []
    annotations[EARLIER_REVISIONS] = ",".join([*former, annotations[REVISION]])
    annotations[REVISION] = str(revision)


def template_written(at: datetime) -> Json:
    """Somebody wrote to a deployment's pod template, as its managedFields tell it."""
    return {
        "manager": "kubectl",
        "operation": "Update",
        "apiVersion": "apps/v1",
        "time": stamp(at),
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:template": {}}},
    }


def pod(owner: Json, suffix: str, *, created: datetime) -> Json:
    """A pod of a replica set, not yet scheduled."""
    name = f"{owner['metadata']['name']}-{suffix}"
    template = copy.deepcopy(owner["spec"]["template"])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": uid("pod", name),
            "creationTimestamp": stamp(created),
            "labels": template["metadata"]["labels"],
            "ownerReferences": [_owner(owner)],
        },
        "spec": template["spec"],
        "status": {"phase": "Pending", "conditions": []},
    }


def node(name: str, rack: str, gpus: int, *, created: datetime) -> Json:
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "110"} | ({GPU: str(gpus)} if gpus else {})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": uid("node", name),
            "creationTimestamp": stamp(created),
            "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/rack": rack},
        },
        "spec": {},
        "status": {
            "capacity": capacity,
            "allocatable": dict(capacity),
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


def taint_cordoned(node: Json, now: datetime) -> None:
    """As the node controller does: the taint follows `spec.unschedulable`."""
    spec = node["spec"]
    others = [taint for taint in spec.pop("taints", []) if taint["key"] != CORDON_TAINT]
    if spec.get("unschedulable"):
        others.append({"key": CORDON_TAINT, "effect": "NoSchedule", "timeAdded": stamp(now)})
    if others:
        spec["taints"] = others


def disruption_budget(deployment: str, *, min_available: int, created: datetime) -> Json:
    """Keeps so many of a deployment's pods from being evicted."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": deployment,
            "namespace": NAMESPACE,
            "uid": uid("poddisruptionbudget", deployment),
            "creationTimestamp": stamp(created),
            "generation": 1,
        },
        "spec": {"minAvailable": min_available, "selector": {"matchLabels": {"app": deployment}}},
        "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0},
    }


def autoscaler(deployment: str, least: int, most: int, *, created: datetime) -> Json:
    """Sets a deployment's replicas; the lab has none unless a scenario or a test puts one there."""
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": deployment,
            "namespace": NAMESPACE,
            "uid": uid("horizontalpodautoscaler", deployment),
            "creationTimestamp": stamp(created),
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
            "minReplicas": least,
            "maxReplicas": most,
        },
    }


def event(about: Json, reason: str, message: str, *, at: datetime, place: int, kind: str = "Normal") -> Json:
    meta = about["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{meta['name']}.{place:016x}",
            "namespace": NAMESPACE,
            "uid": uid("event", meta["name"], str(place)),
            "creationTimestamp": stamp(at),
        },
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": meta["name"],
            "namespace": NAMESPACE,
            "uid": meta["uid"],
        },
        "reason": reason,
        "message": message,
        "type": kind,
        "count": 1,
        "firstTimestamp": stamp(at),
        "lastTimestamp": stamp(at),
        "source": {"component": "lab"},
    }


def _owner(owner: Json) -> Json:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
