"""What the LiteLLM stand-in takes: bodies and queries, with nothing in them that it does not know."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _unique(value: list[str]) -> list[str]:
    if len(value) != len(set(value)):
        raise ValueError("fallback_models must not contain duplicates")
    return value


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Params(Strict):
    weight: Annotated[int, Field(ge=0)]


class Patch(Strict):
    litellm_params: Params


class GuardrailParams(Strict):
    version: str = Field(alias="guardrailVersion", pattern="^[1-9][0-9]*$")


class GuardrailPatch(Strict):
    litellm_params: GuardrailParams


class NewFallback(Strict):
    model: str = Field(min_length=1)
    fallback_models: Annotated[list[str], Field(min_length=1), AfterValidator(_unique)]
    fallback_type: Literal["general"] = "general"


class KeyUpdate(Strict):
    key: str
    tpm_limit: Annotated[int, Field(ge=0)] | None = None
    rpm_limit: Annotated[int, Field(ge=0)] | None = None


class KeyRef(Strict):
    key: str


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ModelQuery(Query):
    litellm_model_id: str | None = None


class FallbackQuery(Query):
    fallback_type: Literal["general"] = "general"


class KeyInfoQuery(Query):
    key: str


class KeyListQuery(Query):
    page: int = Field(default=1, ge=1)
    size: int = Field(default=10, ge=1, le=100)
    key_alias: str | None = None
    key_hash: str | None = None
    return_full_object: bool = False
