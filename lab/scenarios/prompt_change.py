"""A new production version of a prompt, as its author publishes it and as the change log tells it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lab.prompt_store import PRODUCTION
from lab.stage import LoggedChange, Stage

_AUTHORS = ("bob", "erin", "frank", "grace")


@dataclass(frozen=True, kw_only=True)
class PromptChange:
    """Somebody's idea of a better prompt: the text, and how they explain it."""

    text: str
    message: str
    name: str = "chat-system"
    author: str = ""  # drawn when it does not matter

    def publish(self, stage: Stage, at: datetime, *, is_guilty: bool = True) -> int:
        """Create the version, give it the production label and log that it moved; returns the version's number."""
        before = stage.prompts.labelled(self.name, PRODUCTION)
        author = self.author or str(stage.rng.choice(_AUTHORS))
        after = stage.prompts.create(
            self.name, self.text, at=at, created_by=author, labels=(PRODUCTION,), commit_message=self.message
        )
        change = LoggedChange(
            at=at,
            kind="prompt",
            source="langfuse",
            summary=f"{self.name}: production moved from version {before.version} to {after.version}: {self.message}",
            author=author,
            scope={"prompt": (self.name,), "prompt_version": (str(after.version),)},
            before=before.prompt,
            after=after.prompt,
            is_guilty=is_guilty,
        )
        stage.log.append(change)
        return after.version

    def set_live(self, stage: Stage, version: int, at: datetime, *, is_live: bool) -> None:
        """Let production be this version, or the one before it."""
        stage.prompts.add_labels(self.name, version if is_live else version - 1, (PRODUCTION,), at=at)
