# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Set which version of a guardrail's policy is enforced at a LiteLLM gateway.

Only guardrails of Amazon Bedrock have versions there: their policy is published as 1, 2, 3 ... and LiteLLM holds which
one it asks for (`guardrailVersion`). A published version never changes, so going back restores exactly what was.
Facts: GET /v2/guardrails/list names each guardrail's id, parameters (credentials masked) and whether it stands in the
database or in the config file, which the API cannot change; PATCH /guardrails/{id} merges `litellm_params`. Releases
before it took all of them leave out what they do not know and answer with the version of before. Its answer holds
credentials, so nothing but the version is taken from it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from runbooks.engine.actions.litellm import GatewayAction, OnGateway, told
from runbooks.engine.actions.litellm_proxy import GatewayObject
from runbooks.engine.values import ActionError, Happened, JsonObject, OutcomeUnknownError, Tier

_DRAFT = "DRAFT"


def _as_text(value: Any) -> Any:
    """YAML makes a number of `3`."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class GuardrailRef(OnGateway):
    """A guardrail by its name at the gateway."""

    guardrail: GatewayObject


class SetGuardrailVersionParams(GuardrailRef):
    """`version` is the published version that shall be enforced."""

    version: Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^([1-9][0-9]{0,7}|DRAFT)$")]


class SetGuardrailVersion(GatewayAction):
    """`litellm.set_guardrail_version`: R2, since what another policy lets through meanwhile is not taken back."""

    name = "litellm.set_guardrail_version"
    tier = Tier.R2
    params: type[BaseModel] = SetGuardrailVersionParams
    subject: type[BaseModel] = GuardrailRef

    def target(self, params: SetGuardrailVersionParams) -> str:
        return f"litellm/guardrail/{params.gateway}/{params.guardrail}"

    def effect(self, params: SetGuardrailVersionParams, before: JsonObject) -> str:
        return (
            f"At the gateway {params.gateway}, the guardrail {params.guardrail} enforces version {params.version} of "
            f"its policy (before: {before['version']})."
        )

    def refusal(self, params: SetGuardrailVersionParams, before: JsonObject) -> str | None:
        if params.version == before["version"]:
            return f"the guardrail {params.guardrail} enforces version {params.version} already"
        if params.version == _DRAFT:
            return "a draft changes without anybody's approval: name a published version"
        return None

    def undo(self, params: SetGuardrailVersionParams, before: JsonObject) -> JsonObject | None:
        """None where the draft was enforced: what it says by then nobody approved."""
        if before["version"] == _DRAFT:
            return None
        return params.model_copy(update={"version": before["version"]}).model_dump(mode="json")

    async def read(self, params: GuardrailRef) -> JsonObject:
        """`{"id", "version"}`."""
        found = await self.proxy(params).guardrail(params.guardrail)
        return {"id": found.id, "version": found.version}

    async def act(self, params: SetGuardrailVersionParams, before: JsonObject, token: str) -> JsonObject:
        now = await self.read(params)
        if now != before:
            raise ActionError(f"the guardrail {params.guardrail} is not as it was any more: nothing was changed")
        if (why := self.refusal(params, before)) is not None:
            raise ActionError(why)
        said = await self.proxy(params).set_guardrail_version(before["id"], params.version, token)
        if said == before["version"]:
            raise ActionError("this LiteLLM cannot set the version of a guardrail, so nothing was changed: upgrade it")
        if said != params.version:
            raise OutcomeUnknownError("the gateway answered, but not with the new version")
        return {"guardrail": params.guardrail, "version": params.version}

    async def happened(self, params: SetGuardrailVersionParams, before: JsonObject, token: str) -> Happened:
        """LiteLLM lists guardrails from its database, so every replica says the same."""
        try:
            now = await self.read(params)
        except ActionError:
            return Happened.CANNOT_TELL
        return told(now, wanted={"id": before["id"], "version": params.version}, before=before)
