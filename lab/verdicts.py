"""What is made of the answers: their outcome, the schema check, the users' thumbs, the judge, and the guardrails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lab.answers import AnswerQuality, answer_quality
from lab.exposition import Family, Registry, counter
from lab.routes import ROUTES, Route
from lab.stage import Stage

_RATED, _JUDGED = 0.03, 0.1
_JUDGE_SIGMA = 0.2

RESPONSES = counter("llm_app_responses_total", "Responses by outcome.")
FORMAT = counter("llm_app_format_checks_total", "Schema checks by result.")
FEEDBACK = counter("llm_app_feedback_total", "User feedback.")
JUDGE_SUM = counter("llm_app_judge_score_sum", "Sum of the judge's scores (0 to 1).")
JUDGE_COUNT = counter("llm_app_judge_score_count", "Number of answers judged.")
GUARDRAIL = counter("llm_app_guardrail_total", "Guardrail decisions.")
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

    The summary route keeps no record of who answered it, and nobody parses what it says.
    """

    registry: Registry
    stage: Stage
    service: str = "chat"
    model: str = "llama-3.1-8b-instruct"

    def step(
        self, finished: Mapping[str, int], outside: Mapping[str, int], versions: Mapping[str, Mapping[int, float]]
    ) -> None:
        """Judge what each pod and each outside model answered in this step, by the versions that were in use."""
        for answers in self._answers(finished, outside, versions):
            self._count(answers)
        rail = {"service": self.service, "rail": "input", "policy_version": self.stage.guardrails.policy_version}
        blocked = self.stage.guardrails.blocked
        decisions = {"allow": 1 - blocked, "block": blocked}
        self._spread(GUARDRAIL, {**rail, "surface": "user"}, "decision", decisions, sum(finished.values()))
        auc = round(self.stage.rng.normal(0.5, 0.008), 4)
        self.registry.set(DRIFT, {"service": self.service, "segment": "all"}, auc)

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

    def _quality(self, answers: Answers) -> AnswerQuality:
        """How good these answers are, judged by the very text of their prompt."""
        text = self.stage.prompts.get(answers.route.prompt, answers.version).prompt
        return answer_quality(text, needs_json=answers.route.needs_json)

    def _count(self, answers: Answers) -> None:
        """What becomes of every answer, and what the schema check, 3 % of the users and a tenth's judge say of it."""
        quality, rng = self._quality(answers), self.stage.rng
        which = {"service": self.service, "prompt_name": answers.route.prompt, "prompt_version": str(answers.version)}
        which |= {"model": answers.model, **({"pod": answers.pod} if answers.pod else {})}
        self._spread(RESPONSES, which, "outcome", quality.outcomes, answers.number)
        if answers.route.needs_json:
            formats = {"valid": quality.valid, "invalid": 1 - quality.valid}
            self._spread(FORMAT, which, "result", formats, answers.number)
        ratings = {"up": 1 - quality.thumbs_down, "down": quality.thumbs_down}
        self._spread(FEEDBACK, which, "rating", ratings, int(rng.binomial(answers.number, _RATED)))
        judge = self.stage.judge
        scores = rng.normal(quality.judge + judge.bias, _JUDGE_SIGMA, int(rng.binomial(answers.number, _JUDGED)))
        which["evaluator_version"] = judge.version
        self.registry.add(JUDGE_SUM, which, round(float(scores.sum()), 4))
        self.registry.add(JUDGE_COUNT, which, len(scores))

    def _spread(
        self, family: Family, about: Mapping[str, str], label: str, shares: Mapping[str, float], n: int
    ) -> None:
        """Count n events over a label's values; every value exists from the start, so that a rate can see it rise."""
        drawn = self.stage.rng.multinomial(n, list(shares.values())).tolist()
        for value, amount in zip(shares, drawn, strict=True):
            self.registry.add(family, {**about, label: value}, amount)
