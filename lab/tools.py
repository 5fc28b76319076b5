"""The tools that agents call: which exist, how often they fail, how often they write, and what failing costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

USUAL_ERRORS = 0.007


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool, whether it changes something, and its share of an agent's calls."""

    name: str
    verb: str  # read or write
    share: float


TOOLS = (
    Tool(name="search_orders", verb="read", share=0.55),
    Tool(name="calendar", verb="read", share=0.25),
    Tool(name="create_ticket", verb="write", share=0.20),
)

AGENTS: Mapping[str, float] = {"support": 0.7, "planner": 0.3}
"""Agent -> its share of all calls."""

CALLS_PER_REQUEST = 0.6

_PROMPT_PER_FAILURE = 0.9  # the failed call and its message are in the prompt of every further turn
_ANSWER_PER_FAILURE = 0.67
_TURNS_PER_FAILURE = 0.45
_UNASKED = 0.85  # of the writes to which something urged an agent


@dataclass(kw_only=True)
class Tools:
    """
    What is unusual about tools; at rest nothing is.

    `error_ratio` is by tool. `writes` says by agent how many times more often than usual it calls tools that write,
    `unapproved` which share of those nobody approved.
    `acts_alone` is the same as `writes` under a prompt that lets agents act without approval. What the prompts in use
    and the content that agents read make of both at each step is in `urged`; `malformed` is the share of calls whose
    arguments nobody can parse. Nobody calls a tool in `switched_off`; agents in `read_only` change nothing.
    """

    error_ratio: dict[str, float] = field(default_factory=dict)
    writes: dict[str, float] = field(default_factory=dict)
    unapproved: dict[str, float] = field(default_factory=dict)
    acts_alone: dict[str, float] = field(default_factory=dict)
    urged: dict[str, float] = field(default_factory=dict)
    malformed: float = 0.0
    switched_off: set[str] = field(default_factory=set)
    read_only: set[str] = field(default_factory=set)

    def errors(self, tool: str) -> float:
        return self.error_ratio.get(tool, USUAL_ERRORS) + self.malformed

    def calls(self, agent: str, tool: Tool) -> float:
        """How many times more often than usual an agent calls a tool."""
        if tool.name in self.switched_off or (tool.verb == "write" and agent in self.read_only):
            return 0.0
        return self.write_growth(agent) if tool.verb == "write" else 1.0

    def write_growth(self, agent: str) -> float:
        """How many times more often than usual an agent writes."""
        return self.writes.get(agent, 1.0) * self.urged.get(agent, 1.0)

    def without_approval(self, agent: str) -> float:
        """The share of an agent's writes that nobody approved."""
        urged = self.urged.get(agent, 1.0)
        return max(self.unapproved.get(agent, 0.0), _UNASKED * (1 - 1 / urged) if urged > 1 else 0.0)

    @property
    def prompt_growth(self) -> float:
        """By how much prompts are longer, since agents try what failed again and again."""
        return 1 + _PROMPT_PER_FAILURE * self.failing

    @property
    def answer_growth(self) -> float:
        return 1 + _ANSWER_PER_FAILURE * self.failing

    @property
    def turns(self) -> float:
        """Requests of a session for each one that it usually has."""
        return 1 + _TURNS_PER_FAILURE * self.failing

    @property
    def failing(self) -> float:
        """
        How much more often than usual the backend of the tool that is worst off fails.

        Agents stick to the tool that they need. Arguments that nobody can parse never reach a backend.
        """
        called = (ratio for tool, ratio in self.error_ratio.items() if tool not in self.switched_off)
        return max(0.0, *(ratio - USUAL_ERRORS for ratio in called), 0.0)
