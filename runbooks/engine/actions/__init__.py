"""Every action there is, one system per file: the only code of Watchkeeper that changes production."""

from __future__ import annotations

from collections.abc import Mapping

from runbooks.engine.actions.cluster import Cluster, ClusterAccess
from runbooks.engine.actions.kubernetes import RolloutUndo, Scale
from runbooks.engine.actions.langfuse import LangfuseAccess, MoveLabel
from runbooks.engine.actions.manual import Manual
from runbooks.engine.values import Action

__all__ = ["ClusterAccess", "LangfuseAccess", "build_actions"]


def build_actions(
    *,
    langfuse: Mapping[str, LangfuseAccess] | None = None,
    clusters: Mapping[str, ClusterAccess] | None = None,
) -> dict[str, Action]:
    """
    All actions by name, each with the access it has.

    Keys of the arguments are the names of datasources and of clusters in the configuration. The list is the same
    without any access, so that runbooks can be checked anywhere: an action without access raises ActionError when it
    is asked to read or to act.
    """
    reachable = {name: Cluster(access) for name, access in (clusters or {}).items()}
    listed: list[Action] = [MoveLabel(langfuse or {}), Scale(reachable), RolloutUndo(reachable), Manual()]
    return {action.name: action for action in listed}
