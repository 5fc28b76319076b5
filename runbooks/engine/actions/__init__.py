"""Every action there is, one system per file: the only code of Watchkeeper that changes production."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runbooks.engine.actions.cluster import Cluster, ClusterAccess
from runbooks.engine.actions.command import CommandAccess, RunCommand
from runbooks.engine.actions.flags import FlagAccess, SetFlag
from runbooks.engine.actions.git import Revert
from runbooks.engine.actions.git_repository import GitAccess
from runbooks.engine.actions.http_request import HttpAccess, HttpRequest
from runbooks.engine.actions.kubernetes import RolloutUndo, Scale
from runbooks.engine.actions.kubernetes_drain import Drain
from runbooks.engine.actions.kubernetes_nodes import Cordon, Uncordon
from runbooks.engine.actions.kubernetes_objects import Right
from runbooks.engine.actions.kubernetes_patch import Patch
from runbooks.engine.actions.kubernetes_pods import DeletePod
from runbooks.engine.actions.kubernetes_restart import Restart
from runbooks.engine.actions.langfuse import LangfuseAccess, MoveLabel
from runbooks.engine.actions.litellm import SetFallbacks, SetWeight
from runbooks.engine.actions.litellm_guardrails import SetGuardrailVersion
from runbooks.engine.actions.litellm_keys import BlockKey, LimitKey
from runbooks.engine.actions.litellm_proxy import LiteLLMAccess, LiteLLMProxy
from runbooks.engine.actions.manual import Manual
from runbooks.engine.actions.mlflow import MlflowAccess, SetAlias
from runbooks.engine.actions.opensearch import OpenSearchAccess, QuarantineIndex
from runbooks.engine.actions.pagerduty import Note, PagerDutyAccess, StatusUpdate
from runbooks.engine.actions.pagerduty_automation import (
    AutomationAccess,
    StartAutomation,
    StartWorkflow,
    WorkflowAccess,
)
from runbooks.engine.actions.pagerduty_people import AddResponders, Escalate
from runbooks.engine.actions.qdrant import MoveAlias, QdrantAccess, Quarantine
from runbooks.engine.actions.vault import RotateRole, VaultAccess
from runbooks.engine.actions.vllm import EngineAccess, LoadLora, ResetPrefixCache, Sleep, UnloadLora, WakeUp
from runbooks.engine.actions.wait import Wait
from runbooks.engine.values import Action

__all__ = [
    "AutomationAccess",
    "ClusterAccess",
    "CommandAccess",
    "EngineAccess",
    "FlagAccess",
    "GitAccess",
    "HttpAccess",
    "LangfuseAccess",
    "LiteLLMAccess",
    "MlflowAccess",
    "OpenSearchAccess",
    "PagerDutyAccess",
    "QdrantAccess",
    "Right",
    "VaultAccess",
    "WorkflowAccess",
    "build_actions",
    "rights_of",
]


def build_actions(
    *,
    langfuse: Mapping[str, LangfuseAccess] | None = None,
    mlflow: Mapping[str, MlflowAccess] | None = None,
    flags: Mapping[str, FlagAccess] | None = None,
    repositories: Mapping[str, GitAccess] | None = None,
    clusters: Mapping[str, ClusterAccess] | None = None,
    gateways: Mapping[str, LiteLLMAccess] | None = None,
    endpoints: Mapping[str, HttpAccess] | None = None,
    commands: Mapping[str, CommandAccess] | None = None,
    engines: Mapping[str, EngineAccess] | None = None,
    stores: Mapping[str, QdrantAccess] | None = None,
    indices: Mapping[str, OpenSearchAccess] | None = None,
    secrets: Mapping[str, VaultAccess] | None = None,
    pagerduty: PagerDutyAccess | None = None,
    workflows: Mapping[str, WorkflowAccess] | None = None,
    automations: Mapping[str, AutomationAccess] | None = None,
    redact: Callable[[str], str] = str,
) -> dict[str, Action]:
    """
    All actions by name, each with the access it has.

    Keys of the arguments are the names of their entries in the configuration. The list is the same without any access,
    so that runbooks can be checked anywhere: an action without access raises ActionError when it is asked to read or
    to act. `redact` takes the credentials out of what others answer.
    """
    listed: list[Action] = [
        MoveLabel(langfuse or {}),
        SetAlias(mlflow or {}),
        SetFlag(flags or {}),
        Revert(repositories or {}, redact),
        *_on_clusters({name: Cluster(access) for name, access in (clusters or {}).items()}, redact),
        *_at_gateways({name: LiteLLMProxy(access) for name, access in (gateways or {}).items()}),
        HttpRequest(endpoints or {}, redact),
        RunCommand(commands or {}, redact),
        LoadLora(engines or {}),
        UnloadLora(engines or {}),
        ResetPrefixCache(engines or {}),
        Sleep(engines or {}),
        WakeUp(engines or {}),
        MoveAlias(stores or {}),
        Quarantine(stores or {}),
        QuarantineIndex(indices or {}),
        RotateRole(secrets or {}),
        Note(pagerduty),
        StatusUpdate(pagerduty),
        Escalate(pagerduty),
        AddResponders(pagerduty),
        StartWorkflow(pagerduty, workflows or {}),
        StartAutomation(pagerduty, automations or {}),
        Wait(),
        Manual(),
    ]
    return {action.name: action for action in listed}


def _on_clusters(clusters: Mapping[str, Cluster], redact: Callable[[str], str]) -> list[Action]:
    return [
        Scale(clusters),
        RolloutUndo(clusters, redact),
        Restart(clusters),
        Patch(clusters, redact),
        Cordon(clusters),
        Uncordon(clusters),
        Drain(clusters),
        DeletePod(clusters),
    ]


def _at_gateways(proxies: Mapping[str, LiteLLMProxy]) -> list[Action]:
    return [
        SetWeight(proxies),
        SetFallbacks(proxies),
        LimitKey(proxies),
        BlockKey(proxies),
        SetGuardrailVersion(proxies),
    ]


def rights_of(action: Action) -> tuple[Right, ...]:
    """What a cluster's action token must be allowed to do for it; nothing for actions on other systems."""
    rights: tuple[Right, ...] = getattr(action, "rights", ())
    return rights
