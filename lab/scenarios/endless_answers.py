"""S11: answers do not end by themselves, after a new prompt or another model's template."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from lab.answers import ENDLESS, USUAL, drawn
from lab.cluster import MODEL
from lab.cluster_objects import Json
from lab.prompt_store import PRODUCTION
from lab.scenarios.engine_rollout import EngineRollout, set_argument
from lab.scenarios.fault import Shape
from lab.scenarios.prompt_change import PromptChange
from lab.stage import Deed, Stage

_TEMPLATES = ("/templates/chat-v2.jinja", "/templates/llama-tools.jinja", "/templates/support-2026.jinja")
_EXAMPLE = (
    "An example of a good conversation:\n### Customer: My lamp flickers.\n### Assistant: Is the bulb tight?\n"
    "### Customer: It was not. Thank you!\n### Assistant:"
)


class EndlessAnswers(EngineRollout):
    """Heals with a template, or a prompt, after which the model knows where its turn ends."""

    id = "S11"
    title = "Answers do not end by themselves"
    alert = "LLMHighE2E"
    kind = "model"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.is_prompt = False
        self.template = _TEMPLATES[0]
        self.quality = ENDLESS

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        self.is_prompt = bool(stage.rng.random() < 0.5)
        self.template = str(stage.rng.choice(_TEMPLATES))
        self.quality = drawn(stage.rng, ENDLESS, self.strength)

    def deeds(self, onset: datetime, until: datetime, shape: Shape, stage: Stage) -> Iterator[Deed]:
        """A prompt is in use within a minute; a rollout has its lead."""
        if self.is_prompt:
            yield Deed(at=onset, do=lambda stage: self._publish(stage, onset))
        else:
            yield from super().deeds(onset, until, shape, stage)

    def edit(self, container: Json, stage: Stage) -> str:
        stage.answering.weights[self.template] = self.quality
        set_argument(container, "--chat-template", self.template)
        return f"chat template {self.template.rpartition('/')[2]} of the new fine-tune"

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "model", [MODEL]

    def _publish(self, stage: Stage, at: datetime) -> None:
        stage.answering.endless = self.quality
        text = stage.prompts.labelled("chat-system", PRODUCTION).prompt
        rules, separator, rest = text.partition("\n\nPassages:")
        PromptChange(text=f"{rules}\n\n{_EXAMPLE}{separator}{rest}", message="Show the tone by an example").publish(
            stage, at
        )

    def is_healthy(self, stage: Stage) -> bool:
        if not self.is_prompt:
            return super().is_healthy(stage)
        text = stage.prompts.labelled("chat-system", PRODUCTION).prompt
        return stage.answering.to(text, needs_json=True) == USUAL
