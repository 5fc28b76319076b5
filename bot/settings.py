"""
Secrets and addresses from the environment; the only module that reads it.

Nothing is read at import: `Settings.load()` does it once, in the command that needs it. Every variable of the table
below also works as NAME_FILE, whose file holds the value (Docker and Kubernetes secrets); both at once is an error,
since one of them would silently lose.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bot.incidents import WatchkeeperError

SECRETS = (
    "DATABASE_URL",  # PostgreSQL URLs carry a password
    "SLACK_BOT_TOKEN",
    "SLACK_APP_TOKEN",
    "SLACK_SIGNING_SECRET",
    "PAGERDUTY_API_KEY",
    "PAGERDUTY_WEBHOOK_SECRETS",
    "WATCHKEEPER_TOKEN",
    "WATCHKEEPER_STEP_UP_KEY",  # whoever has it and the database can make everybody's one-time codes
    "WATCHKEEPER_SEAL_KEY",  # whoever has it and the database can write a record that nobody tells from the true one
    "WATCHKEEPER_HEARTBEAT_URL",  # whoever knows it can say that we live
)
ADDRESSES = (
    "SLACK_API_BASE_URL",
    "SOCKET_MODE",
    "INCIDENT_CHANNEL",
    "PAGERDUTY_API_BASE_URL",
    "PAGERDUTY_FROM",
    "PROMETHEUS_URL",
    "WATCHKEEPER_URL",
)
PROCESS = (
    "SSL_CERT_FILE",
    "WATCHKEEPER_CONFIG",
    "WATCHKEEPER_EMBEDDING_MODEL",
    "WATCHKEEPER_EMBEDDING_HASH",
    "WATCHKEEPER_RERANK_MODEL",
    "WATCHKEEPER_RERANK_HASH",
    "WATCHKEEPER_STOP_FILE",
    "WATCHKEEPER_HOST",
    "WATCHKEEPER_PORT",
)
"""What belongs to the process itself, and is therefore never read from a file."""

VARIABLES = (*SECRETS, *ADDRESSES, *PROCESS)

_NEEDED_TO_SERVE = {
    "SLACK_BOT_TOKEN": "install the Slack app and copy its bot token (xoxb-...)",
    "SLACK_SIGNING_SECRET": "copy it from the Slack app's Basic Information; without it anybody could click for others",
    "SLACK_APP_TOKEN": "SOCKET_MODE needs an app-level token (xapp-...) with the scope connections:write",
    "INCIDENT_CHANNEL": "the id of the channel for incident cards, such as C0123456789",
    "PAGERDUTY_API_KEY": "create a REST API key in PagerDuty",
    "PAGERDUTY_FROM": "the e-mail address of the PagerDuty user that acts for Watchkeeper",
    "PAGERDUTY_WEBHOOK_SECRETS": "what PagerDuty showed when the webhook subscription was made (comma list)",
}

_NEEDED_TO_WORK = ("INCIDENT_CHANNEL", "PAGERDUTY_API_KEY", "PAGERDUTY_FROM")
"""What a process that only receives can do without."""

_PLACEHOLDERS = frozenset(
    {"changeme", "change-me", "change_me", "default", "example", "password", "placeholder", "secret", "todo", "xxx"}
)
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_CREDENTIAL_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


class SettingsError(WatchkeeperError):
    """The environment does not hold what Watchkeeper needs; each problem names the variable and the remedy."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class Settings(BaseSettings):
    """
    What the environment says, checked; field names are the variables' names in lower case.

    Built by `load`; the constructor takes values only and looks nowhere else. Secrets are SecretStr, and no error
    ever quotes one.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: SecretStr = SecretStr("sqlite:///watchkeeper.sqlite")

    slack_bot_token: SecretStr | None = None
    slack_app_token: SecretStr | None = None
    slack_signing_secret: SecretStr | None = None
    slack_api_base_url: str = "https://slack.com/api/"
    socket_mode: bool = False
    incident_channel: str | None = None

    pagerduty_api_key: SecretStr | None = None
    pagerduty_api_base_url: str = "https://api.pagerduty.com"
    pagerduty_from: str | None = None
    pagerduty_webhook_secrets: tuple[SecretStr, ...] = ()

    prometheus_url: str | None = None

    watchkeeper_url: str = "http://127.0.0.1:8080"
    watchkeeper_token: SecretStr | None = None
    watchkeeper_step_up_key: SecretStr | None = None
    watchkeeper_seal_key: SecretStr | None = None
    watchkeeper_heartbeat_url: SecretStr | None = None

    ssl_cert_file: Path | None = None
    watchkeeper_config: Path = Path("watchkeeper.toml")
    watchkeeper_stop_file: Path | None = None
    watchkeeper_embedding_model: str | None = None
    watchkeeper_embedding_hash: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    watchkeeper_rerank_model: str | None = None
    watchkeeper_rerank_hash: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    watchkeeper_host: str = "127.0.0.1"
    watchkeeper_port: int = Field(default=8080, ge=0, le=65535)

    _environ: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` found: the stock sources know no NAME_FILE and would let an empty secret pass."""
        return (init_settings,)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """
        Read and check `environ` (the process' own when None).

        Raises SettingsError with every problem found, none of which quotes a secret.
        """
        source = os.environ if environ is None else environ
        found: dict[str, Any] = {}
        problems: list[str] = []
        for name in VARIABLES:
            try:
                value = _read(source, name, from_file=name not in PROCESS, secret=name in SECRETS)
            except SettingsError as error:
                problems.extend(error.problems)
            else:
                if value is not None:
                    found[name.lower()] = _parse_list(value) if name == "PAGERDUTY_WEBHOOK_SECRETS" else value
        try:
            settings = cls(**found)
        except ValidationError as error:
            raise SettingsError([*problems, *_explain(error)]) from None  # the cause would quote its input
        if problems:
            raise SettingsError(problems)
        settings._environ = source  # `secret` reads the names that the config gives
        return settings

    def secret(self, name: str) -> SecretStr | None:
        """
        The credential in variable `name`, or in the file that `name`_FILE names; None when neither is set.

        Names come from `credential` and `action_credential` entries of the configuration. Raises SettingsError when
        the name is no variable's name, the value is empty, or both forms are set.
        """
        if not _CREDENTIAL_NAME.fullmatch(name):
            raise SettingsError([f"{name!r} is no credential's name: write the NAME of a variable, not its value"])
        value = _read(self._environ, name, from_file=True, secret=True)
        return None if value is None else SecretStr(value)

    def missing_for_serving(self) -> tuple[str, ...]:
        """One line for each setting without which `watchkeeper serve` cannot do its work, with its remedy."""
        return self._missing(_NEEDED_TO_SERVE)

    def missing_for_the_doors(self) -> tuple[str, ...]:
        """The same for `watchkeeper serve --no-work`."""
        return self._missing(name for name in _NEEDED_TO_SERVE if name not in _NEEDED_TO_WORK)

    def missing_for_working(self) -> tuple[str, ...]:
        """The same for `watchkeeper worker`."""
        return self._missing(("SLACK_BOT_TOKEN", *_NEEDED_TO_WORK))

    def _missing(self, names: Iterable[str]) -> tuple[str, ...]:
        unused = "SLACK_SIGNING_SECRET" if self.socket_mode else "SLACK_APP_TOKEN"
        return tuple(
            f"{name} is not set: {_NEEDED_TO_SERVE[name]}"
            for name in names
            if not getattr(self, name.lower()) and name != unused
        )

    def too_powerful(self, names: Iterable[str]) -> tuple[str, ...]:
        """One line for each of these that is set here, where nothing may change production."""
        return tuple(
            f"{name} is set, and a process that does no work must not hold what changes production: unset it here"
            for name in dict.fromkeys(names)
            if name in self._environ or f"{name}_FILE" in self._environ
        )

    def missing_credentials(self, names: Iterable[str]) -> tuple[str, ...]:
        """One line for each of these credentials that is not set."""
        return tuple(
            f"{name} is not set, and watchkeeper.toml names it: set it, or {name}_FILE, or remove the entry's key"
            for name in names
            if self.secret(name) is None
        )

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr) -> SecretStr:
        scheme = value.get_secret_value().partition(":")[0].partition("+")[0]
        if scheme not in {"sqlite", "postgresql", "postgres"}:
            raise ValueError("must start with sqlite:/// or postgresql://")
        return value

    @field_validator("slack_api_base_url", "prometheus_url", "watchkeeper_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError("must be an http:// or https:// address with a host")
        return value

    @field_validator("slack_api_base_url")
    @classmethod
    def _token_stays_private(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme == "http" and url.hostname not in _LOOPBACK:
            raise ValueError("would send the bot token unencrypted; use https:// (http:// only for this machine)")
        return value if value.endswith("/") else value + "/"

    @field_validator("watchkeeper_url")
    @classmethod
    def _operators_token_stays_private(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme == "http" and url.hostname not in _LOOPBACK:
            raise ValueError("would send your token unencrypted; use https:// (http:// only for this machine)")
        return value.rstrip("/")

    @field_validator("watchkeeper_heartbeat_url")
    @classmethod
    def _heartbeat_can_be_sent(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        url = urlsplit(value.get_secret_value())
        if not url.hostname or (url.scheme != "https" and (url.scheme != "http" or url.hostname not in _LOOPBACK)):
            raise ValueError("must be an https:// address with a host (http:// only for this machine)")
        return value

    @field_validator("pagerduty_api_base_url")
    @classmethod
    def _encrypted(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme != "https" or not url.hostname:
            raise ValueError("must start with https:// (PagerDuty's client speaks nothing else)")
        return value.rstrip("/")

    @field_validator("watchkeeper_stop_file")
    @classmethod
    def _found_from_anywhere(cls, value: Path | None) -> Path | None:
        if value is not None and not (value.is_absolute() and value.parent.is_dir()):
            raise ValueError(f"must be an absolute path in a folder that exists, not {value}")
        return value

    @field_validator("ssl_cert_file")
    @classmethod
    def _exists(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}; name the bundle of certificates to trust, or unset it")
        return value


def _read(environ: Mapping[str, str], name: str, *, from_file: bool, secret: bool) -> str | None:
    """One variable or its file, stripped; None when it is not set. An empty secret is an error, never "unset"."""
    file = environ.get(f"{name}_FILE") if from_file else None
    value = environ.get(name)
    if file and value:
        raise SettingsError([f"{name} and {name}_FILE are both set: unset one of them"])
    if file:
        try:
            value = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise SettingsError([f"{name}_FILE names {file}, which cannot be read: {reason}"]) from None
    value = value.strip() if value is not None else None
    if not secret:
        return value or None
    if value is not None:
        _refuse_worthless(name, f"{name}_FILE" if file else name, value)
    return value


def _refuse_worthless(name: str, place: str, value: str) -> None:
    """An empty key verifies everybody's signature, and a placeholder is known to everybody."""
    parts = value.split(",") if name == "PAGERDUTY_WEBHOOK_SECRETS" else [value]
    for part in parts:
        if not part.strip():
            raise SettingsError([f"{place} is empty, which would mean no authentication: set the secret, or unset it"])
        if part.strip().lower() in _PLACEHOLDERS:
            raise SettingsError([f"{place} holds a placeholder that everybody knows: set the real secret"])


def _parse_list(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(","))


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]).upper()
        yield f"{name} {problem['msg'].removeprefix('Value error, ')}"
