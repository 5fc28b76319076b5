"""How a far end is met: its credential out of the environment, its certificates, a client that follows nobody."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx

from bot.incidents import WatchkeeperError
from bot.settings import Settings

READ_TIMEOUT_S = 5.0


class MissingCredentialError(WatchkeeperError):
    """The configuration names a credential that the environment does not hold."""


class UnusableSettingError(WatchkeeperError):
    """A credential or a file is there, and is not what it has to be; its content is never shown."""


def http_client(settings: Settings, owner: str, credential: str | None, ca_file: Path | None) -> httpx.AsyncClient:
    """Redirects are never followed: they could carry a credential elsewhere."""
    headers = {"User-Agent": "watchkeeper"}
    if credential is not None:
        headers["Authorization"] = f"Bearer {secret_of(settings, credential, owner)}"
    try:
        context = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
    except OSError as error:  # ssl.SSLError is one, too
        raise UnusableSettingError(f"{owner}: {ca_file} holds no certificates: {error.strerror or error}") from error
    return httpx.AsyncClient(headers=headers, timeout=READ_TIMEOUT_S, follow_redirects=False, verify=context)


def key_pair(secret: str, name: str | None, owner: str) -> tuple[str, str]:
    """The two halves of a secret `public_key:secret_key`. Raises UnusableSettingError."""
    public, _, private = secret.partition(":")
    if not public or not private:
        raise UnusableSettingError(f"{owner}: {name} is not of the form public_key:secret_key")
    return public, private


def secret_of(settings: Settings, name: str | None, owner: str) -> str:
    """What the environment holds under this name. Raises MissingCredentialError."""
    if name is None:
        raise MissingCredentialError(f"{owner} has no credential: name the variable that holds it in watchkeeper.toml")
    found = settings.secret(name)
    if found is None:
        raise MissingCredentialError(f"{owner} needs {name}: set {name} or {name}_FILE in the environment")
    return found.get_secret_value()
