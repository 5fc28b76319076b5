"""The two prompt changes around the reference incident: the guilty one and the harmless one six minutes earlier."""

from __future__ import annotations

from datetime import timedelta

from diagnostics.changes.change import Change
from tests.synthetic import ONSET

_OLD = "You are the assistant of a shop.\nAnswer from the passages only.\n{{passages}}\n{{question}}"

GUILTY = Change(
    id="prompts:chat-system:8",
    at=ONSET,
    kind="prompt",
    service="chat",
    source="prompts",
    summary="production of prompt chat-system is on version 8, before that on version 7",
    author="bob",
    before=_OLD,
    after=f"Current time: {{{{now}}}}\n{_OLD}",
    scope={"prompt": ("chat-system",), "prompt_version": ("8",)},
    undo={"prompt": "chat-system", "label": "production", "version": "8", "previous_version": "7"},
)
DECOY = Change(
    id="prompts:chat-summary:4",
    at=ONSET - timedelta(minutes=6),
    kind="prompt",
    service="chat",
    source="prompts",
    summary="production of prompt chat-summary is on version 4, before that on version 3",
    author="carol",
    before="Summarise in five points.\n{{history}}",
    after="Summarise in four points.\n{{history}}",
    scope={"prompt": ("chat-summary",), "prompt_version": ("4",)},
    undo={"prompt": "chat-summary", "label": "production", "version": "4", "previous_version": "3"},
)
