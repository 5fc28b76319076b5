"""What the application exports of its agents' tool calls: by tool, what it does, who called, and who approved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lab.exposition import Registry, counter
from lab.tools import AGENTS, CALLS_PER_REQUEST, TOOLS, Tools

CALLS = counter("llm_app_tool_calls_total", "Tool calls.")


@dataclass(kw_only=True)
class ToolExporter:
    """Calls that change nothing need no approval and count as approved."""

    registry: Registry
    tools: Tools
    rng: np.random.Generator
    service: str = "chat"

    def step(self, requests: int) -> None:
        """Account for the calls that this many answered requests made."""
        for agent, share in AGENTS.items():
            for tool in TOOLS:
                mean = requests * CALLS_PER_REQUEST * share * tool.share * self.tools.calls(agent, tool)
                self._count(agent, tool.name, tool.verb, int(self.rng.poisson(mean)))

    def _count(self, agent: str, tool: str, verb: str, n: int) -> None:
        about = {"service": self.service, "tool": tool, "verb": verb, "agent": agent}
        missing = self.tools.without_approval(agent) if verb == "write" else 0.0
        unapproved = int(self.rng.binomial(n, missing))
        wrong = self.tools.errors(tool)
        outcomes = {"ok": 1 - wrong, "error": wrong}
        self.registry.spread(self.rng, CALLS, {**about, "approved": "yes"}, ("outcome", outcomes), n - unapproved)
        if verb == "write":
            self.registry.spread(self.rng, CALLS, {**about, "approved": "no"}, ("outcome", outcomes), unapproved)
