"""The entries that say what fixes may change (engines, stores, what PagerDuty runs), and the access made of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from bot.config import Config, ConfigError
from bot.connections import MissingCredentialError, connect_actions
from bot.settings import Settings
from runbooks.engine.values import ActionError, Tier, TieredAction
from tests.kit import CONFIG, config_in
from tests.runbooks.http_server import RememberingServer

MORE = """
[[engine]]
name = "chat-0"
url = "http://127.0.0.1:9201"
services = ["chat"]
lora_paths = ["/adapters/[a-z]+"]
action_credential = "VLLM_KEY"

[[vector_store]]
name = "vectors"
url = "http://127.0.0.1:9202"
services = ["chat"]
collections = ["docs-.*"]
source_field = "metadata.source"
quarantine_key = "quarantined"
action_credential = "QDRANT_KEY"

[[vector_store]]
name = "search"
kind = "elasticsearch"
url = "http://127.0.0.1:9203"
services = ["chat"]
collections = ["docs-.*"]
source_field = "source.keyword"
quarantine_key = "kept_out"
action_credential = "SEARCH_KEY"

[[secret_store]]
name = "vault"
url = "http://127.0.0.1:9204"
services = ["chat"]
roles = ["chat-.*"]
action_credential = "VAULT_KEY"

[[workflow]]
name = "bridge"
id = "PSFEVL7"
tier = "R1"

[[automation_action]]
name = "logs"
id = "01DF4OBN"
tier = "R2"
"""
ENVIRON = {
    "VLLM_KEY": "vllm-key-of-this-test",
    "QDRANT_KEY": "qdrant-key-of-this-test",
    "SEARCH_KEY": "search-key-of-this-test",
    "VAULT_KEY": "vault-key-of-this-test",
}


@dataclass(kw_only=True)
class Refusing(RememberingServer):
    """Answers 500 to everything."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "made up"}, status=500)


@pytest.fixture
async def server() -> AsyncIterator[Refusing]:
    served = Refusing()
    async with served.running():
        yield served


def config_of(folder: Path, old: str = "", new: str = "") -> Config:
    assert old in MORE
    return config_in(folder, CONFIG + (MORE.replace(old, new) if old else MORE))


def test_their_credentials_change_production(tmp_path: Path) -> None:
    """So a process that only receives refuses to have them."""
    assert set(ENVIRON) <= set(config_of(tmp_path).action_credentials())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("127.0.0.1:9201", "127.0.0.1:9211"),
        ('lora_paths = ["/adapters/[a-z]+"]', 'lora_paths = [".*"]'),
        ('collections = ["docs-.*"]', 'collections = [".*"]'),
        ('quarantine_key = "quarantined"', 'quarantine_key = "hidden"'),
        ('tier = "R1"', 'tier = "R2"'),
        ("PSFEVL7", "PSFEVL8"),
        ("127.0.0.1:9204", "127.0.0.1:9214"),
        ('roles = ["chat-.*"]', 'roles = [".*"]'),
        ("01DF4OBN", "01DF4OBM"),
        ('tier = "R2"', 'tier = "R3"'),
    ],
)
def test_an_approval_does_not_outlive_a_change_of_what_is_allowed(tmp_path: Path, old: str, new: str) -> None:
    """Another address, another pattern, another tier: another policy version."""
    assert config_of(tmp_path, old, new).policy_version != config_of(tmp_path).policy_version


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("http://127.0.0.1:9201", "http://chat-0.chat:8000", "unencrypted"),
        ('services = ["chat"]\nlora', 'services = ["search"]\nlora', "there is no service 'search'"),
        ('services = ["chat"]\nlora', "services = []\nlora", "services"),
        ("/adapters/[a-z]+", "/adapters/[", "is not a regular expression"),
        ('source_field = "metadata.source"\n', "", "write `source_field` and `quarantine_key`, or neither"),
        ('quarantine_key = "quarantined"\n', "", "write `source_field` and `quarantine_key`, or neither"),
        ('name = "bridge"', 'name = "chat 0"', "is not a name"),
        ("PSFEVL7", "../x", "id"),
        ('source_field = "source.keyword"\nquarantine_key = "kept_out"\n', "", "nothing else can be done there"),
        ('kind = "elasticsearch"', 'kind = "solr"', "kind"),
        ("http://127.0.0.1:9204", "http://vault.vault:8200", "unencrypted"),
        ('action_credential = "VAULT_KEY"', 'mount = "../sys"\naction_credential = "VAULT_KEY"', "mount"),
        ('action_credential = "VAULT_KEY"', "", "action_credential"),
        ('services = ["chat"]\nroles', 'services = ["search"]\nroles', "there is no service 'search'"),
        ("01DF4OBN", "../x", "id"),
    ],
)
def test_what_cannot_be_trusted_is_told(tmp_path: Path, old: str, new: str, words: str) -> None:
    """With the entry and the remedy, before anything can use it."""
    with pytest.raises(ConfigError) as refused:
        config_of(tmp_path, old, new)
    assert words in str(refused.value)


def test_an_engine_without_a_key_may_be_reached_in_the_clear(tmp_path: Path) -> None:
    """Inside a cluster most have neither a key nor TLS."""
    without = 'action_credential = "VLLM_KEY"\n'
    text = CONFIG + MORE.replace(without, "").replace("http://127.0.0.1:9201", "http://chat-0.chat:8000")
    config = config_in(tmp_path, text)

    assert config.engines[0].action_credential is None
    assert connect_actions(Settings.load(ENVIRON), config)


def test_a_missing_credential_is_named(tmp_path: Path) -> None:
    """Which one, and for what."""
    for name in ENVIRON:
        with pytest.raises(MissingCredentialError, match=name):
            connect_actions(Settings.load({k: v for k, v in ENVIRON.items() if k != name}), config_of(tmp_path))


@pytest.mark.integration
async def test_each_end_is_shown_its_own_credential(tmp_path: Path, server: Refusing) -> None:
    """As each of them wants it, and to nobody else."""
    text = MORE
    for port in (9201, 9202, 9203, 9204):
        text = text.replace(f"http://127.0.0.1:{port}", server.url)
    actions = connect_actions(Settings.load(ENVIRON), config_in(tmp_path, CONFIG + text))
    lora = {"engine": "chat-0", "service": "chat", "name": "sql", "path": "/adapters/sql"}
    in_search = {"store": "search", "service": "chat", "collection": "docs-v1", "source": "wiki"}
    for name, params, header, shown in (
        ("vllm.load_lora", lora, "authorization", "Bearer vllm-key-of-this-test"),
        (
            "qdrant.set_alias",
            {"store": "vectors", "service": "chat", "alias": "docs", "collection": "docs-v1"},
            "api-key",
            "qdrant-key-of-this-test",
        ),
        ("opensearch.quarantine", in_search, "authorization", "ApiKey search-key-of-this-test"),
        (
            "vault.rotate_role",
            {"store": "vault", "service": "chat", "role": "chat-db"},
            "x-vault-token",
            "vault-key-of-this-test",
        ),
    ):
        server.seen.clear()
        with pytest.raises(ActionError, match="500"):
            await actions[name].read(actions[name].params.model_validate(params))
        assert {one.headers[header] for one in server.seen} == {shown}
        keys = [key for key in ENVIRON.values() if key in repr([one.headers for one in server.seen])]
        assert keys == [key for key in ENVIRON.values() if key in shown]


async def test_a_store_is_changed_by_its_own_kind_of_action(tmp_path: Path) -> None:
    """A name of the one kind does not exist for the other."""
    actions = connect_actions(Settings.load(ENVIRON), config_of(tmp_path))
    source = {"service": "chat", "collection": "docs-v1", "source": "wiki"}
    for name, store in (("qdrant.quarantine", "search"), ("opensearch.quarantine", "vectors")):
        with pytest.raises(ActionError, match=f"no vector_store {store}"):
            await actions[name].read(actions[name].params.model_validate({**source, "store": store}))


async def test_pagerduty_is_told_in_the_configured_name(tmp_path: Path) -> None:
    """With the key that notes are written with anyway; without it, or without a name, nobody is told anything."""
    config = config_of(tmp_path)
    note = {"incident": "Q1", "text": "hi"}
    known = {**ENVIRON, "PAGERDUTY_API_KEY": "u+pagerduty-key", "PAGERDUTY_API_BASE_URL": "https://127.0.0.1:9"}
    for environ, words in (
        (ENVIRON, "PAGERDUTY_API_KEY or PAGERDUTY_FROM is not set"),
        (known, "PAGERDUTY_API_KEY or PAGERDUTY_FROM is not set"),
        ({**known, "PAGERDUTY_FROM": "oncall@example.com"}, "PagerDuty cannot be read"),
    ):
        action = connect_actions(Settings.load(environ), config)["pagerduty.note"]
        with pytest.raises(ActionError, match=words):
            await action.read(action.params.model_validate(note))


@pytest.mark.parametrize(
    ("name", "params", "said", "tier"),
    [
        ("pagerduty.start_workflow", {"workflow": "bridge"}, 'tier = "R1"', Tier.R1),
        ("pagerduty.start_automation", {"automation": "logs"}, 'tier = "R2"', Tier.R2),
    ],
)
def test_what_pagerduty_runs_has_the_tier_that_its_entry_says(
    tmp_path: Path, name: str, params: dict[str, str], said: str, tier: Tier
) -> None:
    """R3 where it says none."""
    start = connect_actions(Settings.load(ENVIRON), config_of(tmp_path))[name]
    unsaid = connect_actions(Settings.load(ENVIRON), config_of(tmp_path, said, ""))[name]
    wanted = start.params.model_validate({"incident": "Q1", **params})

    assert isinstance(start, TieredAction)
    assert isinstance(unsaid, TieredAction)
    assert (start.tier_of(wanted), unsaid.tier_of(wanted)) == (tier, Tier.R3)
