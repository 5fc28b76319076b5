# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Start what PagerDuty automates, on the incident: an incident workflow, an Automation Action.

Which ones may be started, and how much each can hurt, is the configuration's. What their steps do is written in
PagerDuty and cannot be taken back from here, so neither has an undo.
Facts: POST /incident_workflows/{id}/instances, whose instances cannot be listed. POST
/automation_actions/actions/{id}/invocations with the incident in `metadata` answers with the `invocation`, which a
runner takes later; GET /automation_actions/invocations lists those of an action and an incident, with who began each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from pydantic import BaseModel

from runbooks.engine.actions.json_api import change
from runbooks.engine.actions.pagerduty import (
    SYSTEM,
    IncidentAction,
    OfIncident,
    PagerDutyAccess,
    incident_of,
    objects,
    part,
    read,
    require_same,
    standing,
    text,
)
from runbooks.engine.actions.parameters import ConfigName
from runbooks.engine.values import ActionError, Happened, JsonObject, OutcomeUnknownError, Tier


class StartWorkflowParams(OfIncident):
    """`workflow` is the name of a `[[workflow]]` of the configuration."""

    workflow: ConfigName


class StartAutomationParams(OfIncident):
    """`automation` is the name of an `[[automation_action]]` of the configuration."""

    automation: ConfigName


@dataclass(frozen=True, kw_only=True)
class WorkflowAccess:
    """An incident workflow that may be started; `tier` is what its operator says its steps can hurt."""

    workflow_id: str
    tier: Tier = Tier.R3


@dataclass(frozen=True, kw_only=True)
class AutomationAccess:
    """An Automation Action that may be started; `tier` is what its operator says it can hurt."""

    action_id: str
    tier: Tier = Tier.R3


class StartWorkflow(IncidentAction):
    """`pagerduty.start_workflow`: what its steps do PagerDuty knows, hence R3 unless the configuration says less."""

    name = "pagerduty.start_workflow"
    tier = Tier.R3
    params: type[BaseModel] = StartWorkflowParams

    def __init__(self, account: PagerDutyAccess | None, workflows: Mapping[str, WorkflowAccess]) -> None:
        super().__init__(account)
        self._workflows = dict(workflows)

    def tier_of(self, params: StartWorkflowParams) -> Tier:
        workflow = self._workflows.get(params.workflow)
        return workflow.tier if workflow else self.tier

    def effect(self, params: StartWorkflowParams, before: JsonObject) -> str:
        return (
            f"PagerDuty starts the incident workflow {before['name']} ({before['workflow_id']}) on the incident "
            f"#{before['number']}. What its steps do is written there, and cannot be taken back from here."
        )

    async def read(self, params: OfIncident) -> JsonObject:
        """The workflow's id and its name in PagerDuty."""
        async with self.client() as client:
            return await self._before(client, params)

    async def _before(self, client: httpx.AsyncClient, params: OfIncident) -> JsonObject:
        name = params.workflow if isinstance(params, StartWorkflowParams) else ""
        workflow = self._workflows.get(name)
        if workflow is None:
            known = ", ".join(sorted(self._workflows)) or "none"
            raise ActionError(f"the configuration has no workflow {name} (it has: {known})")
        incident = await incident_of(client, params)
        found = part(await read(client, f"/incident_workflows/{workflow.workflow_id}"), "incident_workflow")
        return {**standing(incident), "workflow_id": workflow.workflow_id, "name": text(found, "name")}

    async def act(self, params: StartWorkflowParams, before: JsonObject, token: str) -> JsonObject:
        incident = {"id": params.incident, "type": "incident_reference"}
        instance = {"id": token, "type": "incident_workflow_instance", "incident": incident}
        async with self.client() as client:
            require_same(await self._before(client, params), before)
            path = f"/incident_workflows/{before['workflow_id']}/instances"
            answer = await change(client, SYSTEM, "POST", path, {"incident_workflow_instance": instance}, token)
        started = part(answer, "incident_workflow_instance")
        if text(part(started, "incident"), "id") != params.incident:
            raise OutcomeUnknownError("PagerDuty answered, but not with the workflow's instance")
        return {"instance": text(started, "id")}

    async def happened(self, params: StartWorkflowParams, before: JsonObject, token: str) -> Happened:
        """PagerDuty's API does not list a workflow's instances, and a second one would do everything twice."""
        return Happened.CANNOT_TELL


class StartAutomation(IncidentAction):
    """`pagerduty.start_automation`: what its job does PagerDuty knows, hence R3 unless the configuration says less."""

    name = "pagerduty.start_automation"
    tier = Tier.R3
    params: type[BaseModel] = StartAutomationParams
    verify_at_will = False  # it may change what runs, as `command.run` may

    def __init__(self, account: PagerDutyAccess | None, automations: Mapping[str, AutomationAccess]) -> None:
        super().__init__(account)
        self._automations = dict(automations)

    def tier_of(self, params: StartAutomationParams) -> Tier:
        automation = self._automations.get(params.automation)
        return automation.tier if automation else self.tier

    def effect(self, params: StartAutomationParams, before: JsonObject) -> str:
        return (
            f"PagerDuty starts the Automation Action {before['name']} ({before['action_id']}) for the incident "
            f"#{before['number']}. What its job does is written there, and cannot be taken back from here."
        )

    def refusal(self, params: StartAutomationParams, before: JsonObject) -> str | None:
        if before["busy"]:
            return f"{before['name']} runs for this incident already"
        return super().refusal(params, before)

    async def read(self, params: OfIncident) -> JsonObject:
        """The action's id and name in PagerDuty, how often it was started for the incident, whether it runs now."""
        async with self.client() as client:
            return await self._before(client, params)

    async def _before(self, client: httpx.AsyncClient, params: OfIncident) -> JsonObject:
        name = params.automation if isinstance(params, StartAutomationParams) else ""
        automation = self._automations.get(name)
        if automation is None:
            known = ", ".join(sorted(self._automations)) or "none"
            raise ActionError(f"the configuration has no automation_action {name} (it has: {known})")
        incident = await incident_of(client, params)
        found = part(await read(client, f"/automation_actions/actions/{automation.action_id}"), "action")
        begun = await _invocations(client, automation.action_id, params)
        return {
            **standing(incident),
            "action_id": automation.action_id,
            "name": text(found, "name") or automation.action_id,
            "begun": sorted(text(each, "id") for each in begun),
            "busy": any(text(each, "state") not in _ENDED for each in begun),
        }

    async def act(self, params: StartAutomationParams, before: JsonObject, token: str) -> JsonObject:
        invocation = {"metadata": {"incident_id": params.incident}}
        async with self.client() as client:
            require_same(await self._before(client, params), before)
            path = f"/automation_actions/actions/{before['action_id']}/invocations"
            answer = await change(client, SYSTEM, "POST", path, {"invocation": invocation}, token)
        begun = part(answer, "invocation")
        if text(begun, "action_id") != before["action_id"] or not text(begun, "id"):
            raise OutcomeUnknownError("PagerDuty answered, but not with the invocation")
        return {"invocation": text(begun, "id"), "state": text(begun, "state")}

    async def happened(self, params: StartAutomationParams, before: JsonObject, token: str) -> Happened:
        """
        An invocation that is younger than the plan and ours: yes. None is no proof: PagerDuty may still have our
        request before it, and a second one would do everything twice.
        """
        try:
            async with self.client() as client:
                begun = await _invocations(client, before["action_id"], params)
                me = await self.sender(client)
        except ActionError:
            return Happened.CANNOT_TELL
        younger = [each for each in begun if text(each, "id") not in before["begun"]]
        if any(text(part(part(each, "metadata"), "agent"), "id") == me for each in younger):
            return Happened.YES
        return Happened.CANNOT_TELL


_ENDED = ("completed", "error", "aborted")


async def _invocations(client: httpx.AsyncClient, action_id: str, params: OfIncident) -> list[JsonObject]:
    """Those of the action for the incident. Raises ActionError, also when there are more than one page of them."""
    query = {"action_id": action_id, "incident_id": params.incident}
    answer = await read(client, "/automation_actions/invocations", query)
    if not isinstance(answer.get("invocations"), list) or answer.get("more"):
        raise ActionError("PagerDuty did not list all invocations of the Automation Action")
    return objects(answer, "invocations")
