"""Other people's names: what the reference fleet calls its parts, renamed for one case."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_SERVICES = ("assistant", "copilot", "helpdesk", "answers", "concierge", "docs-qa", "triage", "sales-chat", "tutor")
_MODELS = (
    "qwen3-8b-instruct", "mistral-small-3.2", "gemma-3-12b-it", "llama-3.3-8b", "phi-4-mini", "granite-4-8b",
    "olmo-2-13b", "nemotron-9b",
)  # fmt: skip
_NODES = (
    "ip-10-{a}-{b}-{c}",
    "h100-{a:02d}{b:02d}-{c}",
    "worker-{c}-{a}",
    "aks-gpu-{a}{b}-vmss{c:06d}",
    "node{c}.dc{a}",
)
_RACKS = ("r{a:02d}", "row{b}-rack{a}", "pdu-{a}-{b}", "rack-{a}{b}")
_TENANTS = ("acme", "globex", "initech", "umbrella", "hooli", "stark", "wayne", "tyrell", "cyberdyne", "soylent")
_SOURCES = ("kb-products", "handbook", "wiki", "tickets", "policies", "release-notes")
_KEEP = frozenset({"handler", "le", "method", "status", "code"})
"""Labels whose values belong to the exporter and not to the team."""


@dataclass(frozen=True)
class Names:
    """What stands for each of the reference fleet's own names; everything else keeps its name."""

    mapping: Mapping[str, str]

    def text(self, text: str) -> str:
        """The text with every whole name in it replaced."""
        if not self.mapping:
            return text
        return self._pattern.sub(lambda match: self.mapping[match[0]], text)

    def labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        return {name: value if name in _KEEP else self.text(value) for name, value in labels.items()}

    @property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.mapping, key=len, reverse=True)
        return re.compile(r"(?<![\w.])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![\w.])")


def draw(rng: np.random.Generator, nodes: Sequence[str], racks: Sequence[str], model: str) -> Names:
    """Names for one case; no two of the fleet's own get the same one."""
    mapping = {"chat": str(rng.choice(_SERVICES)), model: str(rng.choice(_MODELS))}
    mapping |= zip(nodes, _many(rng, _NODES, len(nodes)), strict=True)
    mapping |= zip(racks, _many(rng, _RACKS, len(racks)), strict=True)
    tenants = [f"tenant-{place:02d}" for place in range(1, 6)]
    mapping |= zip(tenants, (str(name) for name in rng.permutation(_TENANTS)[: len(tenants)]), strict=True)
    mapping["manuals"] = str(rng.choice(_SOURCES))
    return Names(mapping)


def _many(rng: np.random.Generator, patterns: Sequence[str], count: int) -> list[str]:
    pattern = str(rng.choice(np.asarray(patterns)))
    a, b = (int(number) for number in rng.integers(1, 90, 2))
    first = int(rng.integers(1, 200))
    varying = "c" if "{c" in pattern else "a"
    return [pattern.format(**{"a": a, "b": b, "c": first, varying: first + 3 * place}) for place in range(count)]
