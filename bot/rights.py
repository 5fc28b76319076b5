"""
What a cluster must allow: for diagnosis to read, and for each action to act. The actions say it themselves.

`python -m bot.rights` writes the two files below deploy/ that are made from it; a test holds them to the code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bot.incidents import WatchkeeperError
from runbooks.engine.actions import build_actions
from runbooks.engine.actions.kubernetes_objects import Right

DIAGNOSIS = "diagnosis"
_READS = (
    Right(group="apps", resource="deployments", verbs=("get", "list")),
    Right(group="apps", resource="replicasets", verbs=("get", "list")),
    Right(group="", resource="configmaps", verbs=("list",)),
    Right(group="", resource="events", verbs=("list",)),
    Right(group="", resource="pods", verbs=("list",)),
    Right(group="", resource="events", verbs=("list",), cluster_wide=True),  # nodes' are kept in `default`
)
"""What the change sources read (diagnostics/changes/kubernetes*.py); Secrets only for those who grant it themselves."""

ROLES = Path("deploy/kubernetes/roles.yaml")
CHART = Path("deploy/helm/watchkeeper/files/rights.yaml")
_EXAMPLE_NAMESPACE = "chat"
_WRITTEN = "# Written by `python -m bot.rights` from what the actions say of themselves; do not edit.\n"


def rights() -> dict[str, tuple[Right, ...]]:
    """The rights of diagnosis and of every action on a cluster, by name."""
    acting = {name: tuple(getattr(action, "rights", ())) for name, action in sorted(build_actions().items())}
    return {DIAGNOSIS: _READS, **{name: needed for name, needed in acting.items() if needed}}


def manifests(names: Sequence[str], namespaces: Iterable[str]) -> str:
    """
    Roles as YAML for `kubectl apply`: one per name and namespace, a ClusterRole where nodes are concerned.

    Raises WatchkeeperError for a name that needs no rights or does not exist.
    """
    known = rights()
    for name in names:
        if name not in known:
            raise WatchkeeperError(
                f"{name} needs no rights in a cluster, or does not exist; there are {', '.join(known)}"
            )
    where = list(namespaces)
    roles = [role for name in names for role in _roles(name, known[name], where)]
    return yaml.safe_dump_all(roles, sort_keys=False, explicit_start=True)


def _roles(name: str, needed: Sequence[Right], namespaces: Sequence[str]) -> list[dict[str, Any]]:
    role = "watchkeeper-" + name.replace(".", "-").replace("_", "-")
    table = _rules(needed)
    found = [_role("Role", {"name": role, "namespace": each}, table["namespaced"]) for each in namespaces]
    return [*found, *([_role("ClusterRole", {"name": role}, table["cluster"])] if table["cluster"] else [])]


def _role(kind: str, metadata: Mapping[str, str], rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": dict(metadata),
        "rules": [dict(rule) for rule in rules],
    }


def _rules(needed: Sequence[Right]) -> dict[str, list[dict[str, Any]]]:
    """`namespaced` and `cluster` rules as RBAC writes them."""

    def rule(right: Right) -> dict[str, Any]:
        return {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}

    return {
        "namespaced": [rule(right) for right in needed if not right.cluster_wide],
        "cluster": [rule(right) for right in needed if right.cluster_wide],
    }


def files() -> dict[Path, str]:
    """What the files below deploy/ must hold."""
    chart = {name: _rules(needed) for name, needed in rights().items()}
    return {
        ROLES: _WRITTEN + manifests(list(rights()), [_EXAMPLE_NAMESPACE]),
        CHART: _WRITTEN + yaml.safe_dump(chart, sort_keys=False),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
