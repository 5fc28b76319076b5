# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Hold back one API key at a LiteLLM gateway: limit its tokens and requests per minute, or block it.

A key is named by its alias. The key itself is never asked for, and of its hash a plan holds the first characters, by
which it is told apart from another key that got the same alias later.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from runbooks.engine.actions.litellm import GatewayAction, OnGateway, told
from runbooks.engine.actions.litellm_proxy import GatewayKey, KeyAlias, limit_of
from runbooks.engine.actions.parameters import Whole
from runbooks.engine.values import ActionError, Happened, JsonObject, OutcomeUnknownError, Tier

NO_LIMIT = "none"

Limit = Literal["none"] | Annotated[Whole, Field(ge=1, le=999_999_999)]
"""`none` lifts a limit. 0 is left out: it is a block under another name, and a block is R2."""


class KeyRef(OnGateway):
    """An API key by its alias."""

    key: KeyAlias


class LimitKeyParams(KeyRef):
    """Tokens and requests per minute; both are said."""

    tpm: Limit
    rpm: Limit


class BlockKeyParams(KeyRef):
    """`blocked: false` lets the key in again."""

    blocked: bool = True


class LimitKey(GatewayAction):
    """`litellm.limit_key`: R1, since only what is beyond the limit is refused, and only this key's."""

    name = "litellm.limit_key"
    params: type[BaseModel] = LimitKeyParams
    subject: type[BaseModel] = KeyRef

    def target(self, params: LimitKeyParams) -> str:
        return f"litellm/key-limits/{params.gateway}/{params.key}"

    def effect(self, params: LimitKeyParams, before: JsonObject) -> str:
        """A runbook's limit may be higher than the key's own: then it holds nothing back, and people must see that."""
        more = _is_more(params.tpm, before["tpm"]) or _is_more(params.rpm, before["rpm"])
        return (
            f"At the gateway {params.gateway}, the API key {params.key} (hash {before['hash']}...) gets "
            f"{_words(params.tpm, params.rpm)} (before: {_words(before['tpm'], before['rpm'])})."
            f"{' This lets more of it through than now.' if more else ''}"
        )

    def refusal(self, params: LimitKeyParams, before: JsonObject) -> str | None:
        if (params.tpm, params.rpm) == (before["tpm"], before["rpm"]):
            return f"the key {params.key} has these limits already"
        return None

    def undo(self, params: LimitKeyParams, before: JsonObject) -> JsonObject | None:
        """None for a limit of 0 that was there before: that is a block, and is set by hand."""
        if 0 in (before["tpm"], before["rpm"]):
            return None
        return params.model_copy(update={"tpm": before["tpm"], "rpm": before["rpm"]}).model_dump(mode="json")

    async def read(self, params: KeyRef) -> JsonObject:
        """`{"hash", "tpm", "rpm"}`; a limit is a number or `none`."""
        return _limits(await self.proxy(params).key(params.key))

    async def act(self, params: LimitKeyParams, before: JsonObject, token: str) -> JsonObject:
        proxy = self.proxy(params)
        key = await proxy.key(params.key)
        _require(_limits(key), before, params)
        answer = await proxy.limit(key, tpm=_sent(params.tpm), rpm=_sent(params.rpm), token=token)
        if _answered_limits(answer) != (_sent(params.tpm), _sent(params.rpm)):
            raise OutcomeUnknownError("the gateway answered, but not with the new limits")
        return {"hash": key.hint, "tpm": params.tpm, "rpm": params.rpm}

    async def happened(self, params: LimitKeyParams, before: JsonObject, token: str) -> Happened:
        try:
            now = await self.read(params)
        except ActionError:
            return Happened.CANNOT_TELL
        return told(now, wanted={"hash": before["hash"], "tpm": params.tpm, "rpm": params.rpm}, before=before)


class BlockKey(GatewayAction):
    """`litellm.block_key`: R2, since every request of the key is lost until it is let in again."""

    name = "litellm.block_key"
    tier = Tier.R2
    params: type[BaseModel] = BlockKeyParams
    subject: type[BaseModel] = KeyRef

    def target(self, params: BlockKeyParams) -> str:
        return f"litellm/key-block/{params.gateway}/{params.key}"

    def effect(self, params: BlockKeyParams, before: JsonObject) -> str:
        done = "is blocked: all of its requests are refused" if params.blocked else "is let in again"
        return f"At the gateway {params.gateway}, the API key {params.key} (hash {before['hash']}...) {done}."

    def refusal(self, params: BlockKeyParams, before: JsonObject) -> str | None:
        if params.blocked == before["blocked"]:
            return f"the key {params.key} is {'blocked' if params.blocked else 'not blocked'} already"
        return None

    def undo(self, params: BlockKeyParams, before: JsonObject) -> JsonObject | None:
        return params.model_copy(update={"blocked": before["blocked"]}).model_dump(mode="json")

    async def read(self, params: KeyRef) -> JsonObject:
        """`{"hash", "blocked"}`."""
        return _block(await self.proxy(params).key(params.key))

    async def act(self, params: BlockKeyParams, before: JsonObject, token: str) -> JsonObject:
        proxy = self.proxy(params)
        key = await proxy.key(params.key)
        _require(_block(key), before, params)
        answer = await proxy.block(key, blocked=params.blocked, token=token)
        if answer.get("blocked") is not params.blocked:
            raise OutcomeUnknownError("the gateway answered, but not with the key's new state")
        return {"hash": key.hint, "blocked": params.blocked}

    async def happened(self, params: BlockKeyParams, before: JsonObject, token: str) -> Happened:
        try:
            now = await self.read(params)
        except ActionError:
            return Happened.CANNOT_TELL
        return told(now, wanted={"hash": before["hash"], "blocked": params.blocked}, before=before)


def _limits(key: GatewayKey) -> JsonObject:
    tpm, rpm = (NO_LIMIT if limit is None else limit for limit in (key.tpm, key.rpm))
    return {"hash": key.hint, "tpm": tpm, "rpm": rpm}


def _block(key: GatewayKey) -> JsonObject:
    return {"hash": key.hint, "blocked": key.blocked}


def _require(now: JsonObject, before: JsonObject, params: KeyRef) -> None:
    """Raises ActionError unless all is as it was when the plan was made."""
    if now["hash"] != before["hash"]:
        raise ActionError(f"the alias {params.key} names another key by now: nothing was changed")
    if now != before:
        raise ActionError(f"the key {params.key} was changed since: nothing was changed now")


def _answered_limits(answer: JsonObject) -> tuple[int | None, int | None]:
    try:
        return limit_of(answer, "tpm_limit"), limit_of(answer, "rpm_limit")
    except ActionError as error:
        raise OutcomeUnknownError(str(error)) from error


def _sent(limit: int | str) -> int | None:
    """LiteLLM's null is no limit."""
    return limit if isinstance(limit, int) else None


def _is_more(wanted: int | str, now: int | str) -> bool:
    return isinstance(now, int) and (not isinstance(wanted, int) or wanted > now)


def _words(tpm: int | str, rpm: int | str) -> str:
    limits = [f"{limit} {what}" for limit, what in ((tpm, "tokens"), (rpm, "requests")) if limit != NO_LIMIT]
    return f"a limit of {' and '.join(limits)} per minute" if limits else "no limit"
