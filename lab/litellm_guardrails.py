"""
The guardrail of the LiteLLM stand-in, with the version of its policy: which one is enforced decides what it blocks.

It stands in for one of Amazon Bedrock, whose policies are published as 1, 2, 3 and so on; LiteLLM holds the number.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from lab.guardrails import Guardrails

Json = dict[str, Any]
NAME, ID = "moderation", "6f1c9a52-3d0e-4c57-9a41-2f1b7c0de901"


@dataclass(kw_only=True)
class GuardrailVersions:
    """The service's guardrails by version: those that were enforced, and the usual one."""

    guardrails: Guardrails
    _published: dict[str, Guardrails] = field(default_factory=dict)

    def __post_init__(self) -> None:
        usual = Guardrails()
        self._published[_number(usual.policy_version)] = usual

    @property
    def enforced(self) -> str:
        return _number(self.guardrails.policy_version)

    def enforce(self, version: str) -> bool:
        """Whether there is such a version; requests are checked against it from now on."""
        if version == self.enforced:
            return True
        wanted = self._published.get(version)
        if wanted is None:
            return False
        self._published[self.enforced] = replace(self.guardrails)
        for name, value in vars(wanted).items():
            setattr(self.guardrails, name, value)
        return True

    @property
    def row(self) -> Json:
        """As LiteLLM lists it."""
        params = {"guardrail": "bedrock", "mode": "pre_call", "guardrailIdentifier": "gr-chat"}
        return {
            "guardrail_id": ID,
            "guardrail_name": NAME,
            "litellm_params": {**params, "guardrailVersion": self.enforced},
            "guardrail_info": {},
            "guardrail_definition_location": "db",
        }


def _number(version: str) -> str:
    """The published number of a version that people call by another name."""
    return version if version.isdigit() else "15"
