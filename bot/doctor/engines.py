"""What else fixes may change: do the vLLM engines and the Qdrants answer, and is what fixes need switched on there?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx

from bot.config import Config, InferenceEngine, VectorStore
from bot.connections import MissingCredentialError, UnusableSettingError, http_client
from bot.doctor.advice import Advice
from bot.settings import Settings

_NOT_FOUND = 404
Look = Callable[[httpx.AsyncClient], Awaitable[Advice]]


async def examine(settings: Settings, config: Config) -> list[Advice]:
    asked = [_engine(settings, engine) for engine in config.engines]
    asked += [_store(settings, store) for store in config.vector_stores]
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


async def _store(settings: Settings, store: VectorStore) -> Advice:
    about = f"vector_store {store.name}"

    async def look(client: httpx.AsyncClient) -> Advice:
        secret = settings.secret(store.action_credential) if store.action_credential else None
        headers = {"api-key": secret.get_secret_value()} if secret else {}
        answer = await client.get(f"{store.url}/aliases", headers=headers)
        answer.raise_for_status()
        return Advice.ok(about, f"has {len(answer.json()['result']['aliases'])} aliases")

    return await _asked(settings, store, about, look)


async def _asked(settings: Settings, entry: InferenceEngine | VectorStore, about: str, look: Look) -> Advice:
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
