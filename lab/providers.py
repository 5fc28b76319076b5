"""Outside model providers as the gateway meets them: accounts, prices, how a provider refuses, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OPENAI = "openai"
ANTHROPIC = "anthropic"


@dataclass(frozen=True, kw_only=True)
class Account:
    """Who pays at a provider, and the API keys that the gateway takes in turn."""

    name: str
    keys: tuple[str, ...]


ACCOUNTS: Mapping[str, Account] = {
    OPENAI: Account(name="openai-prod", keys=("openai-1", "openai-2")),
    ANTHROPIC: Account(name="anthropic-prod", keys=("anthropic-1",)),
}


@dataclass(frozen=True, kw_only=True)
class Price:
    """USD per token."""

    input: float
    output: float


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """
    A provider's no: HTTP status, its own error code, and the exception that LiteLLM makes of it.

    `takes_s` is how long the answer takes; `wait_s` how long clients wait before the next try, of which `retried` make
    one: SDKs try 429 and 5xx again, and never 401 or 403.
    """

    status: str
    code: str
    exception: str
    takes_s: float = 0.2
    wait_s: float = 7.0
    retried: float = 2 / 3

    @property
    def kind(self) -> str:
        """How the application's edge counts it: 429 by itself, otherwise by class."""
        return "429" if self.status == "429" else f"{self.status[0]}xx"


LIMITED: Mapping[str, Refusal] = {
    OPENAI: Refusal(status="429", code="rate_limit_exceeded", exception="RateLimitError"),
    ANTHROPIC: Refusal(status="429", code="rate_limit_error", exception="RateLimitError"),
}

FAILED: Mapping[str, Refusal] = {
    OPENAI: Refusal(status="500", code="api_error", exception="InternalServerError"),
    ANTHROPIC: Refusal(status="500", code="api_error", exception="InternalServerError"),
}
"""What a provider says now and then, whatever one does."""

OVERLOADED: Mapping[str, Refusal] = {
    OPENAI: Refusal(
        status="503", code="server_error", exception="ServiceUnavailableError", takes_s=6.0, wait_s=2.0, retried=0.95
    ),
    ANTHROPIC: Refusal(
        status="529", code="overloaded_error", exception="InternalServerError", takes_s=6.0, wait_s=2.0, retried=0.95
    ),
}

OUT_OF_CREDIT: Mapping[str, Refusal] = {
    OPENAI: Refusal(status="429", code="insufficient_quota", exception="RateLimitError", wait_s=2.0, retried=0.48),
    ANTHROPIC: Refusal(
        status="429", code="enforced_spend_limit_reached", exception="RateLimitError", wait_s=2.0, retried=0.48
    ),
}

NOT_AUTHENTICATED: Mapping[str, Refusal] = {
    OPENAI: Refusal(status="401", code="invalid_api_key", exception="AuthenticationError", takes_s=0.08, retried=0.0),
    ANTHROPIC: Refusal(
        status="401", code="authentication_error", exception="AuthenticationError", takes_s=0.08, retried=0.0
    ),
}

NOT_PERMITTED = Refusal(
    status="403", code="permission_error", exception="PermissionDeniedError", takes_s=0.08, retried=0.0
)

TOO_LONG = Refusal(
    status="400", code="context_length_exceeded", exception="ContextWindowExceededError", takes_s=0.05, retried=0.0
)
"""What an engine says of a prompt beyond its context window; no token is generated."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """
    Why a provider refuses what its quota would allow.

    `share` of the requests made with `key` ("" is any key of the account) is refused so, whichever model they ask for;
    the others take `slowness` times as long as usual.
    """

    refusal: Refusal
    share: float = 1.0
    key: str = ""
    slowness: float = 1.0

    def share_of(self, provider: str) -> float:
        """The share of all requests to the provider that it refuses: the gateway uses the keys in turn."""
        return self.share / len(ACCOUNTS[provider].keys) if self.key else self.share
