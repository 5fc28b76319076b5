"""Q01 and Q02: a new version of a prompt loses the form that the application reads, or turns too many callers away."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime

from lab import prompt_texts
from lab.answers import TURNED_AWAY, USUAL, WITHOUT_A_FORM, drawn
from lab.prompt_store import PRODUCTION
from lab.scenarios.fault import Fault
from lab.scenarios.prompt_change import PromptChange
from lab.stage import Stage


class _BadPrompt(Fault):
    """The bad text is in the prompt store; any production version with a better text heals."""

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.version = 0
        self.change = self.ideas()[0]

    @abstractmethod
    def ideas(self) -> tuple[PromptChange, ...]:
        """What people write who do not see what they break."""

    def draw(self, stage: Stage) -> None:
        ideas = self.ideas()
        self.change = ideas[int(stage.rng.integers(len(ideas)))]
        self.spoil(stage)

    @abstractmethod
    def spoil(self, stage: Stage) -> None:
        """Draw what the model makes of such a text."""

    def begin(self, stage: Stage, at: datetime) -> None:
        self.version = self.change.publish(stage, at)

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        self.change.set_live(stage, self.version, at, is_live=level > 0)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "prompt_version", [str(self.version)]

    def is_healthy(self, stage: Stage) -> bool:
        text = stage.prompts.labelled(self.change.name, PRODUCTION).prompt
        return stage.answering.to(text, needs_json=True) == USUAL


class FormLost(_BadPrompt):
    """The application parses JSON that nobody asks the model for any more; tools get arguments that are none."""

    id = "Q01"
    title = "A prompt change broke the output format"
    alert = "LLMFormatValidity"

    def ideas(self) -> tuple[PromptChange, ...]:
        return tuple(PromptChange(text=text, message=said) for said, text in prompt_texts.WITHOUT_FORM.items())

    def spoil(self, stage: Stage) -> None:
        stage.answering.without_form = drawn(stage.rng, WITHOUT_A_FORM, self.strength)


class TooRestrictive(_BadPrompt):
    """The model declines what it should answer, and says little about the rest: answers get short."""

    id = "Q02"
    title = "A prompt change makes the model refuse"
    alert = "LLMRefusalRate"

    def ideas(self) -> tuple[PromptChange, ...]:
        return tuple(PromptChange(text=text, message=said) for said, text in prompt_texts.TURNING_AWAY.items())

    def spoil(self, stage: Stage) -> None:
        stage.answering.turned_away = drawn(stage.rng, TURNED_AWAY, self.strength)
