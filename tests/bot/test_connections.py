"""Reading and writing hold different credentials, and a missing one is named before anything starts."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from bot.config import Config
from bot.connections import Connections, MissingCredentialError, UnusableSettingError, connect, connect_actions
from bot.settings import Settings
from diagnostics.changes.change import ChangeSourceError
from diagnostics.telemetry.model import Query, TelemetryError
from diagnostics.telemetry.recorder import Recorder
from runbooks.engine.values import ActionError
from tests.kit import NOW, config_in
from tests.needs import need_program
from tests.runbooks.http_server import RememberingServer, basic

ENVIRON = {
    "PROMETHEUS_TOKEN": "prom-reads",
    "LANGFUSE_READ": "pk-read:sk-read",
    "LANGFUSE_WRITE": "pk-write:sk-write",
    "KUBE_READ_TOKEN": "kube-reads",
    "KUBE_ACTION_TOKEN": "kube-acts",
    "LITELLM_READ": "litellm-reads",
    "LITELLM_ADMIN": "litellm-acts",
    "MLFLOW_READ": "reader:mlflow-reads",
    "MLFLOW_WRITE": "writer:mlflow-writes",
    "FLAGS_READ": "flags-read",
    "FLAGS_WRITE": "flags-write",
    "GIT_PUSH": "git-pushes",
}
READING = {"Bearer prom-reads", basic("pk-read", "sk-read"), "Bearer kube-reads"}
ACTING = {
    basic("pk-write", "sk-write"),
    "Bearer kube-acts",
    "Bearer litellm-acts",
    basic("writer", "mlflow-writes"),
    "flags-write",
    basic("x-access-token", "git-pushes"),
}

CONFIG = """
format = 1
[[datasource]]
name = "metrics"
kind = "prometheus"
url = "{url}"
credential = "PROMETHEUS_TOKEN"
[[datasource]]
name = "samples"
kind = "recorder"
scrape = ["{url}/metrics"]
[[datasource]]
name = "prompts"
kind = "langfuse"
url = "{url}"
credential = "LANGFUSE_READ"
action_credential = "LANGFUSE_WRITE"
[[datasource]]
name = "registry"
kind = "mlflow"
url = "{url}"
credential = "MLFLOW_READ"
action_credential = "MLFLOW_WRITE"
[[datasource]]
name = "flags"
kind = "launchdarkly"
url = "{url}"
credential = "FLAGS_READ"
action_credential = "FLAGS_WRITE"
project = "default"
environment = "production"
[[datasource]]
name = "folder"
kind = "git"
path = "prompts"
remote = "{url}/prompts.git"
action_credential = "GIT_PUSH"
[[cluster]]
name = "lab"
url = "{url}"
credential = "KUBE_READ_TOKEN"
action_credential = "KUBE_ACTION_TOKEN"
patch_env = ["TOP_K"]
[[gateway]]
name = "edge"
url = "{url}"
credential = "LITELLM_READ"
action_credential = "LITELLM_ADMIN"
[[service]]
name = "chat"
datasource = "metrics"
cluster = "lab"
namespace = "chat"
[service.selectors]
serving = {{namespace = "chat"}}
[[service.deployments]]
name = "chat-vllm"
kind = "engine"
[[service.prompts]]
name = "chat-system"
source = "prompts"
[[service]]
name = "search"
datasource = "samples"
[service.selectors]
serving = {{namespace = "search"}}
"""


class Refusing(RememberingServer):
    """Answers nothing but 500, and remembers who asked."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "made up"}, status=500)

    def credentials(self) -> set[str]:
        return {one.headers["authorization"] for one in self.seen if "authorization" in one.headers}


@pytest.fixture
async def server() -> AsyncIterator[Refusing]:
    """Every system at once, on one port."""
    refusing = Refusing()
    async with refusing.running():
        yield refusing


@pytest.fixture
def worktree(tmp_path: Path) -> None:
    """The folder of the datasource of kind git."""
    subprocess.run([need_program("git", "apt-get install git"), "init", "--quiet", "prompts"], cwd=tmp_path, check=True)


def config_of(folder: Path, url: str = "http://127.0.0.1:9", text: str = CONFIG) -> Config:
    (folder / "prompts").mkdir(exist_ok=True)
    return config_in(folder, text.format(url=url))


async def opened(environ: dict[str, str], config: Config) -> Connections:
    return connect(Settings.load(environ), config)


@pytest.mark.integration
async def test_diagnostics_never_show_the_credential_that_acts(server: Refusing, tmp_path: Path) -> None:
    """Everything that reads was asked; the other side saw the reading credentials only."""
    config = config_of(tmp_path, server.url)
    connections = await opened(ENVIRON, config)
    target = next(service.target() for service in config.services if service.name == "chat")
    try:
        with pytest.raises(TelemetryError):
            await connections.telemetry["metrics"].vector(Query(metric="up"), NOW)
        with pytest.raises(ChangeSourceError):
            await connections.sources["prompts"].changes(target, NOW - timedelta(hours=1), NOW)
        with pytest.raises(ChangeSourceError):
            await connections.clusters["lab"][0].changes(target, NOW - timedelta(hours=1), NOW)
        recorder = connections.telemetry["samples"]
        assert isinstance(recorder, Recorder)
        await recorder.open()
        await recorder.scrape_once()
    finally:
        await connections.close()

    assert server.credentials() == READING
    [scraped] = [one for one in server.seen if one.path == "/metrics"]
    assert "authorization" not in scraped.headers


@pytest.mark.integration
@pytest.mark.usefixtures("worktree")
async def test_actions_never_show_the_credential_that_reads(server: Refusing, tmp_path: Path) -> None:
    """Even the look before the leap is the actor's own, and git asks nobody else for one."""
    actions = connect_actions(Settings.load(ENVIRON), config_of(tmp_path, server.url))
    prompt = {"prompt": "chat-system", "label": "production", "version": 7}
    pods = {"cluster": "lab", "namespace": "chat", "deployment": "chat-vllm", "replicas": 5}
    key = {"gateway": "edge", "key": "key-tenant-04", "tpm": 1000, "rpm": 10}
    alias = {"prompt": "chat-system", "alias": "production", "version": 7}
    for name, params in (
        ("langfuse.move_label", prompt),
        ("kubernetes.scale", pods),
        ("litellm.limit_key", key),
        ("mlflow.set_alias", alias),
        ("flag.set", {"flag": "chat-new-prompt", "on": False}),
        ("git.revert", {"commit": "0123456789"}),
    ):
        action = actions[name]
        with pytest.raises(ActionError):
            await action.read(action.params.model_validate(params))

    assert server.credentials() == ACTING


@pytest.mark.integration
@pytest.mark.parametrize(("variable", "words"), [("TOP_K", "HTTP 500"), ("TOP_P", "none that may be set")])
async def test_the_variables_that_may_be_set_are_the_configurations(
    server: Refusing, tmp_path: Path, variable: str, words: str
) -> None:
    """One that `patch_env` names is asked for, another is refused before anybody asks the cluster."""
    action = connect_actions(Settings.load(ENVIRON), config_of(tmp_path, server.url))["kubernetes.patch"]
    place = {"cluster": "lab", "namespace": "chat", "deployment": "chat-vllm"}

    with pytest.raises(ActionError, match=words):
        await action.read(action.params.model_validate({**place, "field": f"env.{variable}", "value": "5"}))


@pytest.mark.parametrize("name", ["PROMETHEUS_TOKEN", "LANGFUSE_READ"])
async def test_a_missing_reading_credential_is_named(name: str, tmp_path: Path) -> None:
    """With its owner, and both ways to set it; those that act are not needed to read."""
    environ = {key: value for key, value in ENVIRON.items() if key != name}
    owner = {"PROMETHEUS_TOKEN": "metrics", "LANGFUSE_READ": "prompts"}[name]

    with pytest.raises(MissingCredentialError, match=f"^{owner} needs {name}: set {name} or {name}_FILE"):
        await opened(environ, config_of(tmp_path))


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("LANGFUSE_WRITE", "prompts"),
        ("KUBE_ACTION_TOKEN", "lab"),
        ("LITELLM_ADMIN", "edge"),
        ("MLFLOW_WRITE", "registry"),
        ("FLAGS_WRITE", "flags"),
        ("GIT_PUSH", "folder"),
    ],
)
async def test_a_missing_acting_credential_is_named(name: str, owner: str, tmp_path: Path) -> None:
    """And reading goes on without it."""
    environ = {key: value for key, value in ENVIRON.items() if key != name}

    with pytest.raises(MissingCredentialError, match=f"^{owner} needs {name}: "):
        connect_actions(Settings.load(environ), config_of(tmp_path))
    await (await opened(environ, config_of(tmp_path))).close()


async def test_without_an_acting_credential_there_is_no_access(tmp_path: Path) -> None:
    """The action is known, so that runbooks can be checked, and refuses to read or act."""
    text = CONFIG.replace('action_credential = "LANGFUSE_WRITE"\n', "").replace(
        'action_credential = "KUBE_ACTION_TOKEN"\n', ""
    )
    environ = {key: value for key, value in ENVIRON.items() if key not in ("LANGFUSE_WRITE", "KUBE_ACTION_TOKEN")}
    actions = connect_actions(Settings.load(environ), config_of(tmp_path, text=text))
    action = actions["langfuse.move_label"]

    with pytest.raises(ActionError):
        await action.read(action.params.model_validate({"prompt": "chat-system", "label": "production", "version": 7}))


async def test_a_source_without_a_credential_says_where_to_name_one(tmp_path: Path) -> None:
    """Langfuse answers nobody without a key."""
    text = CONFIG.replace('credential = "LANGFUSE_READ"\n', "", 1)

    with pytest.raises(MissingCredentialError, match="prompts has no credential: name the variable"):
        await opened(ENVIRON, config_of(tmp_path, text=text))


@pytest.mark.parametrize("name", ["LANGFUSE_READ", "LANGFUSE_WRITE"])
@pytest.mark.parametrize("value", ["no-colon", ":sk", "pk:"])
async def test_half_a_pair_of_keys_is_refused_without_showing_it(name: str, value: str, tmp_path: Path) -> None:
    """The form is said, the value is not."""
    settings, config = Settings.load({**ENVIRON, name: value}), config_of(tmp_path)
    opening = connect if name == "LANGFUSE_READ" else connect_actions

    with pytest.raises(UnusableSettingError, match=f"{name} .* public_key:secret_key") as refusal:
        opening(settings, config)

    assert value not in str(refusal.value)


async def test_an_unusable_authority_is_named(tmp_path: Path) -> None:
    """A file that is not there, or holds no certificate."""
    (tmp_path / "empty.pem").write_text("")
    for name in ("missing.pem", "empty.pem"):
        text = CONFIG.replace('kind = "prometheus"', f'kind = "prometheus"\nca_file = "{name}"')

        with pytest.raises(UnusableSettingError, match=f"metrics: .*{name}"):
            await opened(ENVIRON, config_of(tmp_path, text=text))


async def test_a_service_is_diagnosed_by_what_it_names(tmp_path: Path) -> None:
    """Its own telemetry, what that says of itself, its cluster, and the sources of its own prompts."""
    config = config_of(tmp_path)
    connections = await opened(ENVIRON, config)
    try:
        diagnosers = connections.diagnosers(config)
    finally:
        await connections.close()

    assert set(diagnosers) == {"chat", "search"}
    assert diagnosers["chat"].telemetry is connections.telemetry["metrics"]
    assert [source.name for source in diagnosers["chat"]._sources] == [
        "prompts",
        "lab",
        "lab configuration",
        "lab events",
        "lab nodes",
        "self-report",
    ]
    assert [source.name for source in diagnosers["search"]._sources] == ["self-report"]


async def test_no_connection_shows_its_secrets(tmp_path: Path) -> None:
    """What a log line or a traceback would print."""
    connections = await opened(ENVIRON, config_of(tmp_path))
    await connections.close()
    secrets = [part for value in ENVIRON.values() for part in value.split(":")]

    assert not [secret for secret in secrets if secret in repr(connections)]


def test_only_the_one_who_builds_actions_reads_their_credentials() -> None:
    """
    In all that serves, `action_credential` is touched in one room, and `connect_actions` is its only door.

    `watchkeeper doctor` is another program: it asks the cluster with that token what the token may.
    """
    bot = Path(__file__).parents[2] / "bot"
    trees = {
        file.relative_to(bot).as_posix(): ast.parse(file.read_text())
        for file in bot.rglob("*.py")
        if not file.is_relative_to(bot / "doctor")
    }
    readers = {
        name
        for name, tree in trees.items()
        if any(isinstance(node, ast.Attribute) and node.attr == "action_credential" for node in ast.walk(tree))
    }
    taken = {
        alias.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "bot.connections.acting"
        for alias in node.names
    }

    assert readers == {"connections/acting.py"}
    assert taken == {"connect_actions"}
