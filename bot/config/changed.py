"""The entries of watchkeeper.toml that say what else fixes may change: engines, stores, what PagerDuty automates."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from bot.config.fields import CredentialName, Entry, Name, Pattern, WebAddress, refuse_plain


class _Changed(Entry):
    """An HTTP API that fixes of some services may change; `action_credential` names what it asks for, if anything."""

    name: Name
    action_credential: CredentialName | None = None  # before the address, whose check looks at it
    url: WebAddress
    services: tuple[str, ...] = Field(min_length=1)
    ca_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _is_private(cls, url: str, info: ValidationInfo) -> str:
        """Without a credential plain HTTP is fine: inside a cluster engines and vector stores rarely have TLS."""
        if info.data.get("action_credential") is not None:
            refuse_plain(url)
        return url


class InferenceEngine(_Changed):
    """A vLLM engine's admin API; `lora_paths` are regular expressions for whole paths of LoRA adapters."""

    lora_paths: tuple[Pattern, ...] = ()


class VectorStore(_Changed):
    """
    A vector store; `collections` are regular expressions for whole names of collections that may be worked on.

    `source_field` is the field that names a point's data source, `quarantine_key` the one that retrieval's filter
    leaves out. In OpenSearch and Elasticsearch a collection is an index or an alias.
    """

    kind: Literal["qdrant", "opensearch", "elasticsearch"] = "qdrant"
    collections: tuple[Pattern, ...] = Field(min_length=1)
    source_field: str | None = Field(default=None, min_length=1)
    quarantine_key: str | None = Field(default=None, min_length=1, validate_default=True)

    @field_validator("quarantine_key")
    @classmethod
    def _has_both(cls, key: str | None, info: ValidationInfo) -> str | None:
        if (key is None) != (info.data.get("source_field") is None):
            raise ValueError("to quarantine takes both; write `source_field` and `quarantine_key`, or neither")
        if key is None and info.data.get("kind") != "qdrant":
            raise ValueError("nothing else can be done there; write `source_field` and `quarantine_key`")
        return key


class SecretStore(_Changed):
    """
    A database mount of a HashiCorp Vault or an OpenBao; `action_credential` is a token that may rotate its roles.

    `roles` are regular expressions for whole names of static roles whose password may be rolled.
    """

    kind: Literal["vault"] = "vault"
    action_credential: CredentialName
    roles: tuple[Pattern, ...] = Field(min_length=1)
    mount: str = Field(default="database", pattern=r"^[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,4}$")
    namespace: str = Field(default="", pattern=r"^([A-Za-z0-9_-]{1,64}/?){0,5}$")


class _Automated(Entry):
    """
    Something that PagerDuty runs, by its id there.

    `tier` is how much its steps can hurt; whoever keeps this file says so, never a runbook.
    """

    name: Name
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    tier: Literal["R1", "R2", "R3"] = "R3"


class Workflow(_Automated):
    """An incident workflow that `pagerduty.start_workflow` may start."""


class AutomationAction(_Automated):
    """An Automation Action that `pagerduty.start_automation` may start."""
