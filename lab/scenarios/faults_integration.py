"""The faults of what is around the engines: providers, retrieval, tools, guardrails, clients; and of money."""

from __future__ import annotations

from collections.abc import Mapping

from lab.scenarios.fault import Fault
from lab.scenarios.provider_faults import CredentialVoid, CreditUsedUp, ProviderOutage, RateLimitReached
from lab.scenarios.request_path_faults import GuardrailSlow, PromptsTooLong, RetryStorm, ToolFails
from lab.scenarios.retrieval_faults import EmbedderMismatched, IndexLostDocuments, VectorStoreSlow
from lab.scenarios.spend_faults import ExpensiveModel, JobWithoutLimit, LeakedKey

FAULTS: Mapping[str, type[Fault]] = {
    "I01": RateLimitReached,
    "I02": ProviderOutage,
    "I03": CreditUsedUp,
    "I04": CredentialVoid,
    "I05": VectorStoreSlow,
    "I06": EmbedderMismatched,
    "I07": IndexLostDocuments,
    "I08": ToolFails,
    "I09": GuardrailSlow,
    "I10": RetryStorm,
    "I12": PromptsTooLong,
    "X04": JobWithoutLimit,
    "X05": LeakedKey,
    "X07": ExpensiveModel,
}
