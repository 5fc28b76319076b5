"""
What a well-formed runbook can still get wrong: names that do not exist, a change that nobody verifies, a secret.

The names live in other rooms, so the caller brings them as a `Vocabulary`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import ValidationError

from runbooks.engine.actions.manual import LONGEST_INSTRUCTION
from runbooks.engine.agreement import disagreements
from runbooks.engine.context import CONTEXT_DEFAULTS
from runbooks.engine.declared import CheckAnswers, CheckSays, Range, TextParameter, matches
from runbooks.engine.placeholders import PlaceholderError, placeholders, texts_in
from runbooks.engine.problems import Problem
from runbooks.engine.run import MANUAL, WAIT
from runbooks.engine.values import Action, GuardedAction, Runbook, StepTemplate, only_tells

# Shapes of real credentials. Names of environment variables and `<placeholders>` are fine, values are not.
_SECRETS = (
    re.compile(r"\b(?:sk|pk)-(?:lf-|proj-|ant-)?[A-Za-z0-9_-]{16,}"),
    re.compile(r"\bxox[abeprs]-[A-Za-z0-9-]{10,}"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30,}"),
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    re.compile(r"(?i)\bbearer\s+(?![<${])[A-Za-z0-9._~+/-]{20,}"),
    re.compile(r"(?i)\b(?:password|passwd|secret|token|api[_-]?key)\s*[=:]\s*[\"']?(?![<${\"'])[^\s\"'<>$`,;]{8,}"),
    re.compile(r"://[^/\s:@]+:(?![<${])[^/\s:@]{4,}@"),
)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Every name that a runbook may use: checks, catalogue ids of causes, and the actions by name."""

    checks: Collection[str]
    causes: Collection[str]
    actions: Mapping[str, Action]


def lint(runbook: Runbook, vocabulary: Vocabulary) -> list[Problem]:
    """Everything that makes it unusable, in the order of its lines; empty when its steps may be offered."""
    found = [*_front(runbook, vocabulary), *_declared(runbook), *_secrets(runbook)]
    for step in runbook.steps:
        found += _step(runbook, step, vocabulary)
    return sorted(set(found))


def _front(runbook: Runbook, vocabulary: Vocabulary) -> Iterator[Problem]:
    if not runbook.alerts and not runbook.causes:
        remedy = "write `alerts: [...]`, or nobody will find it"
        yield runbook.problem(1, "it names neither an alert nor a cause", remedy)
    for cause in runbook.causes:
        if cause not in vocabulary.causes:
            line = runbook.line_of("causes")
            yield runbook.problem(
                line, f"the cause `{cause}` is not in the catalogue", "use a catalogue id such as S04"
            )
    for alert in runbook.alerts:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", alert, re.ASCII):
            line = runbook.line_of("alerts")
            yield runbook.problem(line, f"`{alert}` cannot be an alert's name", "use the name as the alert rule has it")
    if not runbook.owner:
        yield runbook.problem(1, "nobody owns it", "write `owner: the team that keeps it true`")
    if not runbook.sections:
        yield runbook.problem(1, "it has no text", "say what is seen, why, and what to do by hand")


def _declared(runbook: Runbook) -> Iterator[Problem]:
    """Parameters that no value could fit, and a default that does not."""
    line = runbook.line_of("params")
    for name, parameter in runbook.params.items():
        try:
            fault = "" if parameter.default is None else parameter.fault(parameter.default)
            if isinstance(parameter, TextParameter) and parameter.pattern is not None:
                matches(parameter.pattern, "")
        except ValueError as error:
            yield runbook.problem(line, f"the parameter `{name}`: {error}", "see README.md for what may stand there")
            continue
        if fault:
            yield runbook.problem(line, f"the default of `{name}` {fault}", "correct the default or the limits")
        lowest, highest = getattr(parameter, "minimum", None), getattr(parameter, "maximum", None)
        if lowest is not None and highest is not None and lowest > highest:
            yield runbook.problem(line, f"no value fits `{name}`", "let `minimum` be at most `maximum`")


def _secrets(runbook: Runbook) -> Iterator[Problem]:
    for secret in _SECRETS:
        for found in secret.finditer(runbook.text):
            line = runbook.text.count("\n", 0, found.start()) + 1
            remedy = "write the name of the variable that holds it, and rotate it"
            yield runbook.problem(line, "this looks like a secret", remedy)


def _step(runbook: Runbook, step: StepTemplate, vocabulary: Vocabulary) -> Iterator[Problem]:
    asked = [("verify", check) for check in step.verify]
    asked += [("when", step.when.check)] if isinstance(step.when, CheckAnswers) else []
    asked += [("check", step.check.check)] if isinstance(step.check, CheckSays) else []
    for key, check in asked:
        if check not in vocabulary.checks:
            message = f"the check `{check}` does not exist"
            yield runbook.problem(step.line_of(key), message, _nearest(check, vocabulary.checks))
    if not step.prose:
        yield runbook.problem(step.line, f"`{step.title}` has no text", "say how to do it by hand")
    for name, said, done in disagreements(step):
        message = f"the text says {name} {said}, and the block {done}"
        yield runbook.problem(
            step.line_of("with"), message, "make them the same, or write a placeholder such as NAME in the text"
        )
    action = vocabulary.actions.get(step.action)
    if action is None:
        message = f"the action `{step.action}` does not exist"
        yield runbook.problem(step.line_of("action"), message, _nearest(step.action, vocabulary.actions))
        return
    if not (step.verify or step.verify_ranges or only_tells(action)):
        remedy = "name the checks that must turn ok: `verify:`"
        yield runbook.problem(step.line, f"nothing verifies `{step.action}`", remedy)
    if step.undo == "previous" and isinstance(action, GuardedAction) and not action.can_undo:
        yield runbook.problem(
            step.line_of("undo"), f"`{step.action}` cannot be undone", "write `irreversible: WHY` instead"
        )
    if step.check is not None and step.action == WAIT:
        message = "a `wait` does nothing that could have happened"
        yield runbook.problem(step.line_of("check"), message, "remove `check:`")
    yield from _otherwise(runbook, step, action)
    yield from _ranges(runbook, step, action)
    yield from _params(runbook, step, action)


def _otherwise(runbook: Runbook, step: StepTemplate, action: Action) -> Iterator[Problem]:
    line = step.line_of("otherwise")
    if step.otherwise and step.action == MANUAL:
        yield runbook.problem(line, "a person does this step anyway", "remove `otherwise:`")
    if len(step.otherwise) > LONGEST_INSTRUCTION:
        remedy = f"say it in {LONGEST_INSTRUCTION} characters"
        yield runbook.problem(line, "`otherwise` is too long for a card", remedy)
    faults = list(_placeholders(runbook, step, "otherwise", step.otherwise, action, "otherwise"))
    yield from faults
    if not faults and any(used.from_state for used in placeholders(step.otherwise)):
        message = "`otherwise` is for where the state may not be read"
        yield runbook.problem(line, message, "leave out `{replicas_now}` and `{before...}`")


def _ranges(runbook: Runbook, step: StepTemplate, action: Action) -> Iterator[Problem]:
    every = [("verify", each) for each in step.verify_ranges]
    every += [("check", step.check)] if isinstance(step.check, Range) else []
    for key, asked in every:
        if asked.below is not None and asked.above is not None and asked.above >= asked.below:
            message = f"no number is {asked.bounds}"
            yield runbook.problem(step.line_of(key), message, "let `above` be smaller than `below`")
        for label, matcher in asked.query.where.items():
            if not asked.query.is_expression(matcher):
                yield from _placeholders(runbook, step, f"where.{label}", matcher, action, key)


def _params(runbook: Runbook, step: StepTemplate, action: Action) -> Iterator[Problem]:
    """Names, placeholders, and every literal that can be checked before there is an incident."""
    open_names = set(CONTEXT_DEFAULTS) - set(step.params)
    for name, value in step.params.items():
        for text in texts_in(value):
            if "{" in text or "}" in text:
                open_names.add(name)
                yield from _placeholders(runbook, step, name, text, action)
    try:
        action.params.model_validate(dict(step.params))
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            name = str(fault["loc"][0]) if fault["loc"] else "with"
            if name not in open_names or fault["type"] == "extra_forbidden":
                allowed = ", ".join(field.alias or known for known, field in action.params.model_fields.items())
                message = f"`{name}`: {fault['msg'].removeprefix('Value error, ')}"
                yield runbook.problem(step.line_of("with"), message, f"`{step.action}` takes {allowed}")


def _placeholders(
    runbook: Runbook, step: StepTemplate, name: str, text: str, action: Action, key: str = "with"
) -> Iterator[Problem]:
    line = step.line_of(key)
    try:
        used = placeholders(text)
    except PlaceholderError as error:
        yield runbook.problem(line, f"`{name}`: {error}", 'write "{service}" or "{replicas_now + 2}"')
        return
    for placeholder in used:
        if not placeholder.is_known:
            message = f"`{{{placeholder.name}}}` is not a known placeholder"
            yield runbook.problem(line, message, "see README.md for the list")
        elif placeholder.param and placeholder.param not in runbook.params:
            message = f"the runbook declares no parameter `{placeholder.param}`"
            yield runbook.problem(line, message, "declare it in the front matter: `params:`")
        elif placeholder.from_state and not isinstance(action, GuardedAction):
            yield runbook.problem(line, f"`{step.action}` reads no state", f"write `{name}` as a literal")


def _nearest(name: str, known: Collection[str]) -> str:
    """What was meant, if one name is near; else all there are."""
    near = get_close_matches(name, known, n=1, cutoff=0.7)
    return f"did you mean `{near[0]}`?" if near else f"use one of {', '.join(sorted(known))}"
