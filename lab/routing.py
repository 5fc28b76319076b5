"""How the gateway shares requests out: by weight, by what it still believes of dead pods, by sessions that stick."""

from __future__ import annotations

from collections.abc import Mapping

from lab.cluster import Cluster, is_ready
from lab.cluster_objects import Json
from lab.gateway import Gateway

GATEWAY = "chat-gateway"
AFFINITY = "SESSION_AFFINITY"

_TRIED_AGAIN = 0.18
"""
The share of its requests that a pod in a crash loop still gets: the gateway leaves it alone for a while after each
failure and then tries it again, as it does not know about pods.
"""

_MOST = 0.9


def crashed(pods: list[Json]) -> dict[str, float]:
    """Node -> the share of its requests that still go there, for pods whose container ended and is not back."""
    return {
        str(pod["spec"]["nodeName"]): _TRIED_AGAIN
        for pod in pods
        if not is_ready(pod) and any(each["restartCount"] for each in pod["status"].get("containerStatuses", []))
    }


def shares(gateway: Gateway, cluster: Cluster, nodes: Mapping[str, str], dead: Mapping[str, float]) -> dict[str, float]:
    """
    The share of the requests that each serving pod gets, given by name with its node.

    `dead` are nodes without a serving pod that get requests all the same, with the share of their weight; what goes
    there is what is missing from 1.
    """
    weights = gateway.engine_weights()
    wanted = {pod: weights.get(node, 1.0) for pod, node in nodes.items()}
    lost = sum(weights.get(node, 1.0) * share for node, share in dead.items())
    if not sum(wanted.values()) + lost:
        wanted = dict.fromkeys(wanted, 1.0)  # a gateway without any weight picks at random
    whole = sum(wanted.values()) + lost
    usual = {pod: weight / whole for pod, weight in wanted.items()}
    level = sticking(gateway, cluster)
    stuck = {
        pod: min(_MOST, share * (1 + level * (gateway.stickiness[nodes[pod]] - 1)))
        for pod, share in usual.items()
        if nodes[pod] in gateway.stickiness
    }
    others = sum(share for pod, share in usual.items() if pod not in stuck)
    left = (sum(usual.values()) - sum(stuck.values())) / others if others else 1.0
    return {pod: stuck.get(pod, share * max(0.0, left)) for pod, share in usual.items()}


def sticking(gateway: Gateway, cluster: Cluster) -> float:
    """Which share of the gateway's pods sends a session to where it was before: by configuration, or by old tables."""
    pods = cluster.pods_of(GATEWAY, ready=True)
    sticky = sum(_is_sticky(pod) or pod["metadata"]["name"] in gateway.sticky_pods for pod in pods)
    return sticky / len(pods) if pods else 0.0


def _is_sticky(pod: Json) -> bool:
    variables = pod["spec"]["containers"][0].get("env", [])
    return any(each["name"] == AFFINITY and each.get("value") == "on" for each in variables)
