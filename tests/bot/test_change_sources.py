"""The change sources of the configuration: opened with what reads, shown as what they expect, tried by the doctor."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from bot.config import ConfigError
from bot.connections import MissingCredentialError, connect
from bot.doctor import sources
from bot.doctor.advice import State
from bot.settings import Settings
from diagnostics.changes.change import ChangeSourceError
from tests.kit import NOW, config_in
from tests.runbooks.http_server import RememberingServer, basic

SOURCES = {
    "registry": ("mlflow", "", "reader:hunter2", basic("reader", "hunter2")),
    "tokens": ("mlflow", 'label = "live"', "mlflow-token", "Bearer mlflow-token"),
    "traces": ("phoenix", "", "phoenix-token", "Bearer phoenix-token"),
    "deploys": ("argocd", "", "argo-token", "Bearer argo-token"),
    "flags": ("launchdarkly", 'project = "p"\nenvironment = "e"', "api-1", "api-1"),
    "toggles": ("unleash", 'project = "p"\nenvironment = "e"', "*:*.1", "*:*.1"),
}
ENVIRON = {f"{name.upper()}_READ": secret for name, (_, _, secret, _) in SOURCES.items()}


def text(url: str, *, changes: str = '["deploys", "flags", "toggles"]') -> str:
    entries = [
        f'[[datasource]]\nname = "{name}"\nkind = "{kind}"\nurl = "{url}"\ncredential = "{name.upper()}_READ"\n{more}'
        for name, (kind, more, _, _) in SOURCES.items()
    ]
    prompts = [f'[[service.prompts]]\nname = "system"\nsource = "{name}"' for name in ("registry", "tokens", "traces")]
    head = f'format = 1\n[[datasource]]\nname = "metrics"\nkind = "prometheus"\nurl = "{url}"'
    service = f"""
[[service]]
name = "chat"
changes = {changes}
[service.selectors]
serving = {{namespace = "chat"}}
[[service.deployments]]
name = "chat-vllm"
kind = "engine"
"""
    return "\n".join([head, *entries, service, *prompts])


class Failing(RememberingServer):
    """Answers nothing but 500, and remembers who asked."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "made up"}, status=500)


@pytest.fixture
async def server() -> AsyncIterator[Failing]:
    failing = Failing()
    async with failing.running():
        yield failing


@pytest.mark.integration
async def test_each_source_is_asked_with_its_own_credential(server: Failing, tmp_path: Path) -> None:
    """In the form that it expects, with GET alone; each failure names its source and no secret."""
    config = config_in(tmp_path, text(server.url))
    connections = connect(Settings.load(ENVIRON), config)
    [service] = config.services
    try:
        for source in connections.sources_of(service)[:-1]:
            with pytest.raises(ChangeSourceError, match=f"^{source.name} answered 500$"):
                await source.changes(service.target(), NOW - timedelta(hours=1), NOW)
    finally:
        await connections.close()

    assert [one.headers["authorization"] for one in server.seen] == [shown for _, _, _, shown in SOURCES.values()]
    assert {one.method for one in server.seen} == {"GET"}


@pytest.mark.integration
async def test_the_doctor_tries_each_source(server: Failing, tmp_path: Path) -> None:
    """And says of each what is wrong, and for which service."""
    found = await sources.examine(Settings.load(ENVIRON), config_in(tmp_path, text(server.url)))

    assert {advice.about for advice in found} == {f"changes in {name}" for name in SOURCES}
    assert {advice.state for advice in found} == {State.BAD}
    assert all(advice.says.startswith("for chat: ") and advice.remedy for advice in found)


def test_a_missing_credential_is_named(tmp_path: Path) -> None:
    """Before anything starts."""
    environ = {name: value for name, value in ENVIRON.items() if name != "DEPLOYS_READ"}

    with pytest.raises(MissingCredentialError, match=r"^deploys needs DEPLOYS_READ"):
        connect(Settings.load(environ), config_in(tmp_path, text("http://127.0.0.1:9")))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ('["deploy"]', "did you mean deploys?"),
        ('["metrics"]', "whose changes are found by themselves"),
        ('["registry"]', "whose changes are found by themselves"),
    ],
)
def test_a_source_that_tells_no_changes_of_its_own_is_refused(tmp_path: Path, changes: str, said: str) -> None:
    """With the place to name it instead."""
    with pytest.raises(ConfigError, match="changes") as refused:
        config_in(tmp_path, text("http://127.0.0.1:9", changes=changes))
    assert said in str(refused.value)


def test_a_deployer_knows_no_prompts_and_has_no_metrics(tmp_path: Path) -> None:
    """Each kind of datasource stands where it can answer."""
    good = text("http://127.0.0.1:9")

    with pytest.raises(ConfigError, match="knows no prompts"):
        config_in(tmp_path, good.replace('source = "registry"', 'source = "deploys"'))
    with pytest.raises(ConfigError, match="has no metrics"):
        config_in(tmp_path, good.replace('name = "chat"\n', 'name = "chat"\ndatasource = "flags"\n'))
    with pytest.raises(ConfigError, match="credential is missing"):
        config_in(tmp_path, good.replace('credential = "DEPLOYS_READ"', ""))
