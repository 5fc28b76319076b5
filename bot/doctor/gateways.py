"""LiteLLM gateways: does the admin API answer with each key, and does it know what the services call their own?"""

from __future__ import annotations

import asyncio

import httpx

from bot.config import Config, Gateway
from bot.connections import MissingCredentialError, UnusableSettingError, http_client
from bot.doctor.advice import Advice
from bot.settings import Settings

_LIST = "/v1/model/info"


async def examine(settings: Settings, config: Config) -> list[Advice]:
    asked = [
        _key(settings, config, gateway, credential, deed)
        for gateway in config.gateways
        for credential, deed in ((gateway.credential, "reading"), (gateway.action_credential, "acting"))
    ]
    return list(await asyncio.gather(*asked))


async def _key(settings: Settings, config: Config, gateway: Gateway, credential: str | None, deed: str) -> Advice:
    about = f"gateway {gateway.name}, {deed}"
    if credential is None:
        return Advice.ok(about, f"no credential for {deed}" + ("" if deed == "reading" else ": nothing can be changed"))
    if settings.secret(credential) is None:
        says = f"{credential} is not set here"
        return Advice.unknown(about, says, "right for acting in `serve --no-work`; run the doctor where a worker runs")
    try:
        async with http_client(settings, gateway.name, credential, gateway.ca_file) as client:
            groups = await _groups(client, gateway.url)
    except (MissingCredentialError, UnusableSettingError) as error:
        return Advice.bad(about, str(error), "set the credential, or correct the entry")
    except httpx.HTTPStatusError as error:
        says = f"{_LIST} answered {error.response.status_code}"
        return Advice.bad(about, says, "give a key that may read models (acting needs an admin's)")
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Advice.bad(about, f"cannot be asked: {type(error).__name__}", "correct url, ca_file or network")
    return _known(about, config, gateway, groups)


async def _groups(client: httpx.AsyncClient, url: str) -> frozenset[str]:
    answer = await client.get(url + _LIST)
    answer.raise_for_status()
    return frozenset(str(each["model_name"]) for each in answer.json()["data"])


def _known(about: str, config: Config, gateway: Gateway, groups: frozenset[str]) -> Advice:
    """A service whose model group the gateway does not list would never be fixed there."""
    strange = [
        f"{service.name} ({group})"
        for service in config.services
        if service.gateway == gateway.name
        and (group := service.selectors.get("gateway", {}).get("model_group"))
        and not group.startswith(("~", "!"))
        and group not in groups
    ]
    if strange:
        return Advice.bad(
            about, f"it has no model group of {', '.join(strange)}", "correct the selector or the gateway"
        )
    return Advice.ok(about, f"lists {len(groups)} model groups")
