"""Disruption budgets in the lab's cluster: what they allow now, and why an eviction is refused."""

from __future__ import annotations

from collections.abc import Sequence

from lab.cluster_objects import Json


class HeldBackError(Exception):
    """A budget does not allow the eviction now; `name` is the budget's, the message its reason."""

    def __init__(self, name: str, needed: int, healthy: int) -> None:
        super().__init__(f"The disruption budget {name} needs {needed} healthy pods and has {healthy} currently")
        self.name = name


class TooManyBudgetsError(Exception):
    """The eviction API does not support a pod with more than one budget."""


def status_of(budget: Json, pods: Sequence[Json], *, ready: Sequence[Json]) -> Json:
    """The controller's view; `pods` are those of the namespace, `ready` those that are healthy."""
    mine = [pod for pod in pods if selects(budget, pod)]
    healthy = sum(pod in mine for pod in ready)
    spec = budget["spec"]
    needed = int(spec["minAvailable"]) if "minAvailable" in spec else len(mine) - int(spec["maxUnavailable"])
    return {
        "observedGeneration": budget["metadata"]["generation"],
        "expectedPods": len(mine),
        "currentHealthy": healthy,
        "desiredHealthy": max(0, needed),
        "disruptionsAllowed": max(0, healthy - max(0, needed)),
    }


def selects(budget: Json, pod: Json) -> bool:
    wanted: dict[str, str] = budget["spec"]["selector"].get("matchLabels", {})
    labels: dict[str, str] = pod["metadata"]["labels"]
    return wanted.items() <= labels.items()


def refuse_disruption(pod: Json, budgets: Sequence[Json], *, is_ready: bool) -> None:
    """
    As the eviction API decides: a pod that has not started may go, one that is not ready if the others suffice.

    Raises HeldBackError, TooManyBudgetsError.
    """
    concerned = [budget for budget in budgets if selects(budget, pod)]
    if pod["status"].get("phase") == "Pending" or not concerned:
        return
    if len(concerned) > 1:
        raise TooManyBudgetsError(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    [budget] = concerned
    now = budget["status"]
    enough = now["disruptionsAllowed"] > 0 if is_ready else now["currentHealthy"] >= now["desiredHealthy"]
    if not enough:
        raise HeldBackError(budget["metadata"]["name"], now["desiredHealthy"], now["currentHealthy"])
