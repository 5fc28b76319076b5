"""Prompt changes from a real MLflow and a real Phoenix, as their own clients would make them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from diagnostics.changes.change import Change
from diagnostics.changes.diff import short_diff
from diagnostics.changes.labels import LabelSeen
from diagnostics.changes.mlflow import MlflowPrompts
from diagnostics.changes.phoenix import PhoenixPrompts
from diagnostics.target import PromptRef, Target
from runbooks.engine.actions.mlflow import MlflowAccess, SetAlias, SetAliasParams
from runbooks.engine.values import ActionError, Happened
from tests.prompt_stores import real_mlflow, real_phoenix

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

HOUR = timedelta(hours=1)
MLFLOW = "/api/2.0/mlflow"
OLD, NEW = (
    "You answer questions about {{topic}}.\nBe brief.",
    "Today is {{now}}.\nYou answer questions about {{topic}}.",
)


class Notebook:
    """Sightings in memory."""

    def __init__(self) -> None:
        self.stretches: list[LabelSeen] = []

    async def seen(self, prompt: str, label: str, version: int, at: datetime) -> None:
        last = self.stretches[-1] if self.stretches else None
        if last is not None and last.version == version:
            self.stretches[-1] = LabelSeen(version=version, at=last.at, until=at)
        else:
            self.stretches.append(LabelSeen(version=version, at=at, until=at))

    async def history(self, prompt: str, label: str) -> Sequence[LabelSeen]:
        return self.stretches


@pytest.fixture(scope="module")
def mlflow() -> Iterator[str]:
    with real_mlflow() as url:
        yield url


@pytest.fixture(scope="module")
def phoenix() -> Iterator[str]:
    with real_phoenix() as url:
        yield url


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30.0) as opened:
        yield opened


def target(prompt: str) -> Target:
    return Target(service="chat", prompts=(PromptRef(name=prompt, source="store"),))


async def post(client: httpx.AsyncClient, url: str, body: Any) -> Any:
    answer = await client.post(url, json=body)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


async def register(client: httpx.AsyncClient, url: str, name: str, *texts: str, kind: str = "text") -> None:
    """As `mlflow.genai.register_prompt` does it: a registered model with a tag, and a version for each text."""
    is_prompt = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    await post(client, f"{url}{MLFLOW}/registered-models/create", {"name": name, "tags": [is_prompt]})
    for number, text in enumerate(texts, 1):
        tags = [is_prompt, {"key": "mlflow.prompt.text", "value": text}, {"key": "_mlflow_prompt_type", "value": kind}]
        body = {"name": name, "source": "prompt-template", "description": f"reason {number}", "tags": tags}
        await post(client, f"{url}{MLFLOW}/model-versions/create", body)


async def point(client: httpx.AsyncClient, url: str, name: str, version: int) -> None:
    body = {"name": name, "alias": "production", "version": str(version)}
    await post(client, f"{url}{MLFLOW}/registered-models/alias", body)


async def look(source: MlflowPrompts | PhoenixPrompts, prompt: str, at: datetime) -> list[Change]:
    return await source.changes(target(prompt), at - 6 * HOUR, at)


async def test_mlflows_alias_is_followed_by_looking(mlflow: str, client: httpx.AsyncClient) -> None:
    """Forward, back and forward again: three changes with their diffs, each dated by when the old one was last seen."""
    await register(client, mlflow, "followed", OLD, NEW)
    source = MlflowPrompts(name="store", url=mlflow, client=client, journal=Notebook(), patience_s=30)
    begin = datetime.now(UTC) + HOUR  # versions were made long before the first look
    told = []
    for minute, version in enumerate([1, 1, 2, 2, 1, 2]):
        await point(client, mlflow, "followed", version)
        told.append(await look(source, "followed", begin + timedelta(minutes=minute)))

    assert told[0] == told[1] == []
    [forward], [back], [again] = told[2], told[4], told[5]
    assert [each.id for each in (forward, back, again)] == [
        "store:followed:2",
        "store:followed:1#2",
        "store:followed:2#2",
    ]
    assert [each.at - begin for each in (forward, back, again)] == [timedelta(minutes=m) for m in (1, 3, 4)]
    assert told[3] == told[2]
    diff = short_diff(forward.before, forward.after)
    assert "+Today is {{now}}." in diff
    assert "-Be brief." in diff
    assert forward.summary == "production of prompt followed is on version 2, before that on version 1 (reason 2)"
    assert forward.scope == {"prompt": ("followed",), "prompt_version": ("2",)}
    assert forward.undo == {"prompt": "followed", "alias": "production", "version": "2", "previous_version": "1"}


async def test_an_approved_fix_moves_mlflows_alias_and_back(mlflow: str, client: httpx.AsyncClient) -> None:
    """The action reads, moves, probes and undoes against the real registry, and leaves a model that is no prompt."""
    await register(client, mlflow, "moved", OLD, NEW)
    await point(client, mlflow, "moved", 2)
    await post(client, f"{mlflow}{MLFLOW}/registered-models/create", {"name": "a-model"})
    action = SetAlias({"store": MlflowAccess(url=mlflow, authorization="Bearer unasked", timeout_s=30)})
    back = SetAliasParams(prompt="moved", alias="production", version=1)
    before = await action.read(back)
    await action.act(back, before, "t-1")
    assert (before, await action.read(back)) == ({"version": 2}, {"version": 1})
    assert await action.happened(back, before, "t-1") is Happened.YES

    undo = SetAliasParams.model_validate(action.undo(back, before))
    await action.act(undo, await action.read(undo), "t-2")
    assert await action.happened(back, before, "t-1") is Happened.NO
    with pytest.raises(ActionError, match="no version 3"):
        await action.read(back.model_copy(update={"version": 3}))
    with pytest.raises(ActionError, match="no prompt"):
        await action.read(back.model_copy(update={"prompt": "a-model"}))


async def test_mlflows_versions_tell_something_without_sightings(mlflow: str, client: httpx.AsyncClient) -> None:
    """The first look ever: production is on a version that replaced another one when it was made, at the earliest."""
    await register(client, mlflow, "fresh", OLD, NEW)
    await point(client, mlflow, "fresh", 2)
    now = datetime.now(UTC)

    [change] = await look(MlflowPrompts(name="store", url=mlflow, client=client, patience_s=30), "fresh", now + HOUR)

    assert abs(change.at - now) < timedelta(minutes=2)
    assert (change.before, change.after) == (OLD, NEW)


async def test_mlflows_chat_prompts_read_as_text(mlflow: str, client: httpx.AsyncClient) -> None:
    """They are kept as JSON in a tag."""
    chats = ['[{"role": "system", "content": "Be kind."}]', '[{"role": "system", "content": "Be rude."}]']
    await register(client, mlflow, "chats", *chats, kind="chat")
    await point(client, mlflow, "chats", 2)
    source = MlflowPrompts(name="store", url=mlflow, client=client, patience_s=30)

    [change] = await look(source, "chats", datetime.now(UTC) + HOUR)

    assert (change.before, change.after) == ("system: Be kind.", "system: Be rude.")


async def test_mlflows_unused_prompts_tell_nothing(mlflow: str, client: httpx.AsyncClient) -> None:
    """No such prompt, no such alias, and a first version that replaced nothing."""
    await register(client, mlflow, "unaliased", OLD, NEW)
    await register(client, mlflow, "first", OLD)
    await point(client, mlflow, "first", 1)
    source = MlflowPrompts(name="store", url=mlflow, client=client, patience_s=30)

    for prompt in ("missing", "unaliased", "first"):
        assert await look(source, prompt, datetime.now(UTC) + HOUR) == []


async def publish(client: httpx.AsyncClient, url: str, name: str, text: str, model: str = "gpt-4o") -> str:
    """A new version by Phoenix' REST API; returns its id."""
    version = {
        "description": "a reason",
        "model_provider": "OPENAI",
        "model_name": model,
        "template_type": "CHAT",
        "template_format": "MUSTACHE",
        "invocation_parameters": {"type": "openai", "openai": {}},
        "template": {"type": "chat", "messages": [{"role": "system", "content": [{"type": "text", "text": text}]}]},
    }
    made = await post(client, f"{url}/v1/prompts", {"prompt": {"name": name}, "version": version})
    return str(made["data"]["id"])


async def tag(client: httpx.AsyncClient, url: str, version: str) -> None:
    await post(client, f"{url}/v1/prompt_versions/{version}/tags", {"name": "production"})


async def test_phoenix_tag_is_followed_by_looking(phoenix: str, client: httpx.AsyncClient) -> None:
    """Phoenix tells no times at all, so nothing is a change before it was seen to move."""
    old = await publish(client, phoenix, "followed", OLD)
    new = await publish(client, phoenix, "followed", NEW, model="gpt-5")
    source = PhoenixPrompts(name="store", url=phoenix, client=client, journal=Notebook(), patience_s=30)
    blind = PhoenixPrompts(name="store", url=phoenix, client=client, patience_s=30)
    begin, told = datetime.now(UTC), []
    for minute, version in enumerate([old, new, old]):
        await tag(client, phoenix, version)
        told.append(await look(source, "followed", begin + timedelta(minutes=minute)))

    assert told[0] == await look(blind, "followed", begin) == []
    [forward], [back] = told[1], told[2]
    assert (forward.id, back.id) == ("store:followed:2", "store:followed:1#2")
    assert forward.scope == {"prompt": ("followed",), "prompt_version": ("2", new)}
    diff = short_diff(forward.before, forward.after)
    assert "+system: Today is {{now}}." in diff
    assert "+model: gpt-5" in diff
    assert (back.before, back.after) == (forward.after, forward.before)


async def test_phoenix_unused_prompts_tell_nothing(phoenix: str, client: httpx.AsyncClient) -> None:
    """No such prompt, and one without the tag."""
    await publish(client, phoenix, "untagged", OLD)
    source = PhoenixPrompts(name="store", url=phoenix, client=client, journal=Notebook(), patience_s=30)

    for prompt in ("missing", "untagged"):
        assert await look(source, prompt, datetime.now(UTC)) == []


async def test_every_page_of_phoenix_versions_is_read(
    phoenix: str, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version's number is its place among all of them."""
    monkeypatch.setattr("diagnostics.changes.phoenix._PAGE", 2)
    made = [await publish(client, phoenix, "paged", f"text {number}") for number in range(5)]
    source = PhoenixPrompts(name="store", url=phoenix, client=client, journal=Notebook(), patience_s=30)
    await tag(client, phoenix, made[0])
    now = datetime.now(UTC)
    await look(source, "paged", now)
    await tag(client, phoenix, made[3])

    [change] = await look(source, "paged", now)

    assert change.undo == {"version": "4", "previous_version": "1"}
    assert "text 3" in (change.after or "")
