"""What is made of the answers: their outcome, the schema check, the users' thumbs, the judge, and the guardrails."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lab.answers import USUAL, WITHOUT_TOOLS, AnswerQuality, limit, without_passages
from lab.consumers import Consumer
from lab.exposition import STEP, Family, Registry, counter
from lab.inputs import SEGMENTS
from lab.rails import Rails
from lab.routes import ROUTES, Route
from lab.stage import Stage

_RATED, _JUDGED = 0.03, 0.1
_JUDGE_SIGMA = 0.2
_ANGRY_WHEN_BLOCKED = 0.54
_TOOLS_AFFECTED = 0.155
_CORRUPTION = 0.4
"""The share of garbled answers at which a pod's answers are as bad as `garbled` says."""

RESPONSES = counter("llm_app_responses_total", "Responses by outcome.")
FORMAT = counter("llm_app_format_checks_total", "Schema checks by result.")
FEEDBACK = counter("llm_app_feedback_total", "User feedback.")
JUDGE_SUM = counter("llm_app_judge_score_sum", "Sum of the judge's scores (0 to 1).")
JUDGE_COUNT = counter("llm_app_judge_score_count", "Number of answers judged.")
DRIFT = Family(name="llm_app_input_drift_auc", kind="gauge", help="Domain-classifier AUC of inputs.")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """So many answers of one step by one prompt version and one model; `pod` only where an engine of ours gave them."""

    route: Route
    version: int
    model: str
    number: int
    pod: str = ""


@dataclass(kw_only=True)
class Verdicts:
    """
    The application's counters of how good its answers are, by prompt version, model and pod.

    The summary route keeps no record of who answered it, and nobody parses what it says. Thumbs and scores come later
    than answers where the judge has a lag; before the history's first step the fleet answered as it does in it.
    """

    registry: Registry
    stage: Stage
    service: str = "chat"
    model: str = "llama-3.1-8b-instruct"
    _unrated: deque[Sequence[tuple[Answers, AnswerQuality]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._rails = Rails(registry=self.registry, stage=self.stage, service=self.service)

    def step(
        self,
        finished: Mapping[str, int],
        outside: Mapping[str, int],
        versions: Mapping[str, Mapping[int, float]],
        who: Sequence[Consumer],
    ) -> None:
        """
        Judge what each pod and each outside model answered in this step, by the versions that were in use.

        `who` shares the requests out among the tenants.
        """
        given = list(self._answers(finished, outside, versions))
        judged = [(answers, quality(self.stage, answers)) for answers in given]
        for answers, good in judged:
            self._check(answers, good)
        if not self._unrated:
            self._unrated.extend([judged] * round(self.stage.judge.lag / STEP))
        self._unrated.append(judged)
        for answers, good in self._unrated.popleft():
            if not answers.pod or answers.pod in finished:  # with a pod its series are gone
                self._rate(answers, good)
        self.stage.tools.malformed = self._malformed(given)
        numbers: dict[tuple[Route, int], int] = {}
        for answers in given:
            key = (answers.route, answers.version)
            numbers[key] = numbers.get(key, 0) + answers.number
        self._rails.step(numbers, who)
        for segment in SEGMENTS:
            auc = round(self.stage.inputs.auc(segment) + self.stage.rng.normal(0, 0.008), 4)
            self.registry.set(DRIFT, {"service": self.service, "segment": segment}, auc)

    def _answers(
        self, finished: Mapping[str, int], outside: Mapping[str, int], versions: Mapping[str, Mapping[int, float]]
    ) -> Iterator[Answers]:
        parts = [(route, one, route.share * share) for route in ROUTES for one, share in versions[route.prompt].items()]
        whole = sum(share for _, _, share in parts)
        apart: dict[tuple[str, int], int] = {}
        for pod, number in finished.items():
            drawn = self.stage.rng.multinomial(number, [share / whole for _, _, share in parts]).tolist()
            for (route, version, _), mine in zip(parts, drawn, strict=True):
                if route.only:
                    apart[route.name, version] = apart.get((route.name, version), 0) + mine
                else:
                    yield Answers(route=route, version=version, model=self.model, number=mine, pod=pod)
        for route, version, _ in parts:
            if route.only:
                mine = apart.get((route.name, version), 0)
                yield Answers(route=route, version=version, model=self.model, number=mine)
        newest = max(versions[ROUTES[0].prompt])
        for model, number in outside.items():
            yield Answers(route=ROUTES[0], version=newest, model=model, number=number)

    def _malformed(self, given: Sequence[Answers]) -> float:
        """Tools get arguments that are none where a prompt no longer asks for the form in which they are read."""
        parsed = [answers for answers in given if answers.route.needs_json]
        texts = {
            answers.version: self.stage.prompts.get(answers.route.prompt, answers.version).prompt for answers in parsed
        }
        valid = {version: self.stage.answering.to(text, needs_json=True).valid for version, text in texts.items()}
        lost = sum(answers.number * (USUAL.valid - valid[answers.version]) for answers in parsed)
        return _TOOLS_AFFECTED * lost / max(1, sum(answers.number for answers in parsed))

    def _check(self, answers: Answers, good: AnswerQuality) -> None:
        """What becomes of every answer, and what the schema check says of it."""
        which = self._which(answers)
        self._spread(RESPONSES, which, "outcome", good.outcomes, answers.number)
        if answers.route.needs_json:
            self._spread(FORMAT, which, "result", {"valid": good.valid, "invalid": 1 - good.valid}, answers.number)

    def _rate(self, answers: Answers, good: AnswerQuality) -> None:
        """What 3 % of the users say, and the judge of one answer in ten. Who was blocked wrongly says so, too."""
        which, rng, judge = self._which(answers), self.stage.rng, self.stage.judge
        down = min(1.0, good.thumbs_down + _ANGRY_WHEN_BLOCKED * self.stage.guardrails.wrongly_blocked)
        self._spread(
            FEEDBACK, which, "rating", {"up": 1 - down, "down": down}, int(rng.binomial(answers.number, _RATED))
        )
        scores = rng.normal(good.judge + judge.bias, _JUDGE_SIGMA, int(rng.binomial(answers.number, _JUDGED)))
        which["evaluator_version"] = judge.version
        self.registry.add(JUDGE_SUM, which, round(float(scores.sum()), 4))
        self.registry.add(JUDGE_COUNT, which, len(scores))

    def _which(self, answers: Answers) -> dict[str, str]:
        about = {"service": self.service, "prompt_name": answers.route.prompt, "prompt_version": str(answers.version)}
        return about | {"model": answers.model, **({"pod": answers.pod} if answers.pod else {})}

    def _spread(
        self, family: Family, about: Mapping[str, str], label: str, shares: Mapping[str, float], n: int
    ) -> None:
        """Count n events over a label's values; every value exists from the start, so that a rate can see it rise."""
        drawn = self.stage.rng.multinomial(n, list(shares.values())).tolist()
        for value, amount in zip(shares, drawn, strict=True):
            self.registry.add(family, {**about, label: value}, amount)


def quality(stage: Stage, answers: Answers) -> AnswerQuality:
    """How good these answers are: by their prompt's very text, by who gave them, and by what the model had to read."""
    text, spoilt = stage.prompts.get(answers.route.prompt, answers.version).prompt, stage.answering
    found = spoilt.to(text, needs_json=answers.route.needs_json)
    if answers.model in spoilt.outside:
        found = found.moved(spoilt.outside[answers.model])
    if answers.pod:
        pod = stage.cluster.get("pods", answers.pod)
        words = {word for arg in pod["spec"]["containers"][0].get("args", []) for word in arg.split("=")}
        for name in spoilt.weights.keys() & words:
            found = found.moved(spoilt.weights[name])
        found = found.moved(spoilt.garbled, stage.hardware.corrupts(pod["spec"]["nodeName"]) / _CORRUPTION)
    if answers.route.retrieval:
        found = without_passages(found, 1 - stage.knowledge_store.passages_share())
        found = found.moved(spoilt.unfamiliar, stage.inputs.level)
        found = found.moved(WITHOUT_TOOLS, stage.tools.failing)
        cap = limit(stage.flags.max_tokens, stage.normal.output_tokens)
        found = found.capped(cap)
    return found
