"""What the doctor says about the engines and the stores that fixes may change."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.doctor import engines, report
from bot.doctor.advice import Advice, State
from bot.settings import Settings
from tests.kit import CONFIG, config_in
from tests.runbooks.opensearch_server import KEY as SEARCH_KEY
from tests.runbooks.opensearch_server import OpenSearchServer
from tests.runbooks.qdrant_server import KEY as QDRANT_KEY
from tests.runbooks.qdrant_server import QdrantServer
from tests.runbooks.vault_server import TOKEN as VAULT_KEY
from tests.runbooks.vault_server import VaultServer
from tests.runbooks.vllm_server import KEY as VLLM_KEY
from tests.runbooks.vllm_server import VllmServer

pytestmark = pytest.mark.integration  # real HTTP

KEYS = {"VLLM_KEY": VLLM_KEY, "QDRANT_KEY": QDRANT_KEY}


async def said(folder: Path, engine: VllmServer, store: QdrantServer, environ: dict[str, str]) -> list[Advice]:
    text = f"""
[[engine]]
name = "chat-0"
url = "{engine.url}"
services = ["chat"]
action_credential = "VLLM_KEY"

[[vector_store]]
name = "vectors"
url = "{store.url}"
services = ["chat"]
collections = [".*"]
action_credential = "QDRANT_KEY"
"""
    return await engines.examine(Settings.load(environ), config_in(folder, CONFIG + text))


async def test_what_fixes_may_change_is_asked(tmp_path: Path) -> None:
    """Fine; a wrong key; an engine without its admin API; a process that only receives; nobody there."""
    engine, store = VllmServer(adapters={"sql": "/adapters/sql"}), QdrantServer(aliases={"docs": "docs-v1"})
    async with engine.running(), store.running():
        fine = await said(tmp_path, engine, store, KEYS)
        wrong = await said(tmp_path, engine, store, dict.fromkeys(KEYS, "not-the-key"))
        unset = await said(tmp_path, engine, store, {})
        engine.dev_mode = False
        [bare, _] = await said(tmp_path, engine, store, KEYS)
    gone = await said(tmp_path, engine, store, KEYS)

    assert [each.says for each in fine] == ["serves 2 models", "has 1 aliases"]
    assert [each.state for each in wrong] == [State.BAD, State.BAD]
    assert "401" in wrong[0].says
    assert [each.state for each in unset] == [State.UNKNOWN, State.UNKNOWN]
    assert bare.state is State.UNKNOWN
    assert "VLLM_SERVER_DEV_MODE" in bare.remedy
    assert [each.state for each in gone] == [State.BAD, State.BAD]
    assert not [key for key in KEYS.values() if key in report([*fine, *wrong, *unset, bare, *gone])]


async def asked(folder: Path, search: OpenSearchServer, vault: VaultServer, environ: dict[str, str]) -> list[Advice]:
    text = f"""
[[vector_store]]
name = "search"
kind = "opensearch"
url = "{search.url}"
services = ["chat"]
collections = [".*"]
source_field = "source"
quarantine_key = "kept_out"
action_credential = "SEARCH_KEY"

[[secret_store]]
name = "vault"
url = "{vault.url}"
services = ["chat"]
roles = [".*"]
action_credential = "VAULT_KEY"
"""
    return await engines.examine(Settings.load(environ), config_in(folder, CONFIG + text))


async def test_search_and_secret_stores_are_asked(tmp_path: Path) -> None:
    """Fine; a token that is about to end; wrong credentials. Nothing is changed and no secret is asked for."""
    keys = {"SEARCH_KEY": SEARCH_KEY, "VAULT_KEY": VAULT_KEY}
    search, vault = OpenSearchServer(), VaultServer(passwords={"chat-db": ["made-up-password-1"]})
    async with search.running(), vault.running():
        fine = await asked(tmp_path, search, vault, keys)
        vault.ttl = 600
        [_, ending] = await asked(tmp_path, search, vault, keys)
        wrong = await asked(tmp_path, search, vault, {"SEARCH_KEY": "a:b", "VAULT_KEY": "not-the-token"})

    assert [(each.state, each.says) for each in fine] == [
        (State.OK, "lists its tasks: 0 nodes run updates now"),
        (State.OK, "takes the token"),
    ]
    assert (ending.state, ending.says) == (State.BAD, "the token ends in 600 s")
    assert [each.state for each in wrong] == [State.BAD, State.BAD]
    assert {one.method for one in (*search.seen, *vault.seen)} == {"GET"}
    assert not [key for key in keys.values() if key in report([*fine, ending, *wrong])]
