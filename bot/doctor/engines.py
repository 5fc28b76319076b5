"""What else fixes may change: do engines, vector and secret stores answer, and may fixes do there what they need?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx

from bot.config import Config, InferenceEngine, SecretStore, VectorStore
from bot.connections import MissingCredentialError, UnusableSettingError, http_client
from bot.doctor.advice import Advice
from bot.settings import Settings
from runbooks.engine.actions.opensearch import authorization

_NOT_FOUND = 404
_SOON_S = 3600
Look = Callable[[httpx.AsyncClient], Awaitable[Advice]]
_Entry = InferenceEngine | VectorStore | SecretStore


async def examine(settings: Settings, config: Config) -> list[Advice]:
    asked = [_engine(settings, engine) for engine in config.engines]
    asked += [(_qdrant if store.kind == "qdrant" else _opensearch)(settings, store) for store in config.vector_stores]
    asked += [_vault(settings, store) for store in config.secret_stores]
    return list(await asyncio.gather(*asked))


async def _engine(settings: Settings, engine: InferenceEngine) -> Advice:
    about = f"engine {engine.name}"

    async def look(client: httpx.AsyncClient) -> Advice:
        models = await client.get(f"{engine.url}/v1/models")
        models.raise_for_status()
        says = f"serves {len(models.json()['data'])} models"
        if (await client.get(f"{engine.url}/is_sleeping")).status_code == _NOT_FOUND:
            remedy = "start it with VLLM_SERVER_DEV_MODE=1 where fixes shall empty its prefix cache or let it sleep"
            return Advice.unknown(about, f"{says}, and has no admin API", remedy)
        return Advice.ok(about, says)

    return await _asked(settings, engine, about, look)


async def _qdrant(settings: Settings, store: VectorStore) -> Advice:
    about = f"vector_store {store.name}"

    async def look(client: httpx.AsyncClient) -> Advice:
        key = _secret(settings, store)
        answer = await client.get(f"{store.url}/aliases", headers={"api-key": key} if key else {})
        answer.raise_for_status()
        return Advice.ok(about, f"has {len(answer.json()['result']['aliases'])} aliases")

    return await _asked(settings, store, about, look)


async def _opensearch(settings: Settings, store: VectorStore) -> Advice:
    """May it list tasks? Without that a quarantine could not tell when it is done."""
    about = f"vector_store {store.name}"

    async def look(client: httpx.AsyncClient) -> Advice:
        key = _secret(settings, store)
        headers = {"Authorization": authorization(key)} if key else {}
        answer = await client.get(f"{store.url}/_tasks", params={"actions": "*byquery"}, headers=headers)
        answer.raise_for_status()
        return Advice.ok(about, f"lists its tasks: {len(answer.json()['nodes'])} nodes run updates now")

    return await _asked(settings, store, about, look)


async def _vault(settings: Settings, store: SecretStore) -> Advice:
    about = f"secret_store {store.name}"

    async def look(client: httpx.AsyncClient) -> Advice:
        headers = {"X-Vault-Token": _secret(settings, store) or ""}
        if store.namespace:
            headers["X-Vault-Namespace"] = store.namespace
        answer = await client.get(f"{store.url}/v1/auth/token/lookup-self", headers=headers)
        answer.raise_for_status()
        left_s = answer.json()["data"]["ttl"]
        if 0 < left_s < _SOON_S:
            return Advice.bad(about, f"the token ends in {left_s} s", "renew it, or let an agent keep it alive")
        return Advice.ok(about, "takes the token" + (f", for {left_s} s" if left_s else ""))

    return await _asked(settings, store, about, look)


def _secret(settings: Settings, entry: _Entry) -> str | None:
    secret = settings.secret(entry.action_credential) if entry.action_credential else None
    return secret.get_secret_value() if secret else None


async def _asked(settings: Settings, entry: _Entry, about: str, look: Look) -> Advice:
    credential = entry.action_credential
    if credential is not None and settings.secret(credential) is None:
        says = f"{credential} is not set here"
        return Advice.unknown(about, says, "right for acting in `serve --no-work`; run the doctor where a worker runs")
    try:
        async with http_client(settings, entry.name, credential, entry.ca_file) as client:
            return await look(client)
    except (MissingCredentialError, UnusableSettingError) as error:
        return Advice.bad(about, str(error), "set the credential, or correct the entry")
    except httpx.HTTPStatusError as error:
        says = f"{error.request.url.path} answered {error.response.status_code}"
        return Advice.bad(about, says, "give a credential that it takes, or correct the address")
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        return Advice.bad(about, f"cannot be asked: {type(error).__name__}", "correct url, ca_file or network")
