"""A rehearsed plan as JSON for programs, and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from bot import narrate
from bot.library import vocabulary
from bot.redact import safe_text
from bot.rehearsals import Offer
from runbooks.engine.declared import CheckAnswers, Condition, signs
from runbooks.engine.rehearsal import RehearsedStep
from runbooks.engine.values import PlannedStep, Tier, plan_json

DIGEST_NOTE = "The digest is this rehearsal's: each plan has a nonce of its own, so an offered one has another."


def as_json(offer: Offer) -> dict[str, Any]:
    """Everything that would run, and the plan in the form that its digest covers (None where there is none)."""
    plan = offer.rehearsal.plan
    return {
        "runbook": {
            "id": offer.runbook.runbook_id,
            "title": offer.runbook.title,
            "revision": offer.runbook.revision,
        },
        "incident": offer.incident.incident_id,
        "service": offer.incident.service,
        "environment": plan.environment if plan else None,
        "causes": [{"cause": each.cause, "probability": each.probability} for each in offer.found.causes[:3]],
        "steps": [_step_json(each) for each in offer.rehearsal.steps],
        "tier": plan.tier.name if plan else None,
        "blast_radius": _touched(offer),
        "approval": {"who": offer.who, "needed": offer.needed} if offer.who else None,
        "withheld": offer.withheld or None,
        "refusal": offer.rehearsal.refusal or None,
        "digest": plan.digest if plan else None,
        "plan": plan_json(plan) if plan else None,
        "notes": [*offer.notes, *([DIGEST_NOTE] if plan else [])],
    }


def _step_json(step: RehearsedStep) -> dict[str, Any]:
    template, planned = step.template, step.planned
    told: dict[str, Any] = {
        "title": template.title,
        "action": template.action,
        "applies": step.applies,
        "when": in_words(template.when) or None,
        "refusal": step.refusal or None,
    }
    if planned is None:
        return told
    return told | {
        "effect": planned.effect,
        "target": planned.target,
        "with": dict(planned.params),
        "before": dict(planned.before),
        "tier": planned.tier.name,
        "undo": {"action": planned.undo_action, "with": dict(planned.undo)} if planned.undo is not None else None,
        "verify": [*planned.verify, *(each.query.metric for each in planned.verify_ranges)],
        "check": signs(planned.check) or None,
        "settle_s": planned.settle_s,
        "timeout_s": planned.timeout_s,
        "dry_run": vocabulary().actions[planned.action].dry_run.value,
    }


def show(offer: Offer, out: TextIO) -> None:
    """Print it as `out` likes it; where no terminal is, a line stays a line."""
    console = Console(file=out, highlight=False, soft_wrap=not out.isatty())
    for line in _lines(offer):
        console.print(line)


def _lines(offer: Offer) -> Iterator[Text]:
    first = offer.found.causes[0] if offer.found.causes else None
    yield _text(f"{offer.runbook.runbook_id}: {offer.runbook.title}", "bold")
    sure = f"; diagnosis: {first.title or first.cause} ({narrate.how_sure(first.probability)})" if first else ""
    yield _text(f"for {offer.incident.incident_id}, {offer.incident.service}{sure}")
    for number, step in enumerate(offer.rehearsal.steps, start=1):
        yield Text()
        yield from _step(number, step)
    yield Text()
    yield from _verdict(offer)


def _step(number: int, step: RehearsedStep) -> Iterator[Text]:
    template = step.template
    if not step.applies:
        yield _text(f"{number}. {template.title}: left out, since {in_words(template.when)} does not hold", "dim")
    elif step.planned is None:
        yield _text(f"{number}. {template.title} ({template.action}): cannot be planned", "bold red")
        yield _row("because", step.refusal.removeprefix(f"{template.title}: "))
    else:
        yield _text(f"{number}. {template.title} ({step.planned.action}, {step.planned.tier.name})", "bold")
        if step.refusal:
            yield _row("by hand", f"since {step.refusal.removeprefix(f'{template.title}: ')}")
        yield from _planned(step.planned)


def _planned(step: PlannedStep) -> Iterator[Text]:
    yield _row("does", step.effect)
    yield _row("target", step.target)
    yield _row("with", _pairs(step.params))
    yield _row("now", _pairs(step.before) or "nothing is read")
    yield _row("undo", f"{step.undo_action} {_pairs(step.undo)}" if step.undo is not None else "none")
    asked = [*step.verify, *(f"{each.query.metric} {each.bounds}" for each in step.verify_ranges)]
    settles = f", from {step.settle_s:g} s after it on" if asked else ""
    yield _row("verify", f"{', '.join(asked) or 'nothing'}{settles}")
    if step.check is not None:
        yield _row("check", f"has happened when {signs(step.check)}; asked before it acts, and when an answer is lost")
    yield _row("dry run", vocabulary().actions[step.action].dry_run.value)


def _verdict(offer: Offer) -> Iterator[Text]:
    plan = offer.rehearsal.plan
    if plan is None:
        yield _text(f"No plan can be made: {offer.rehearsal.refusal}", "bold red")
    else:
        yield _row("risk", f"{plan.tier.name}: {narrate.TIER[plan.tier]}")
        yield _row("touches", ", ".join(_touched(offer)) or "nothing")
        if offer.who:
            yield _row("approval", offer.who)
        yield _row("digest", plan.digest)
    if offer.withheld:
        yield _text(f"It would not be offered: {offer.withheld}.", "yellow")
    for note in (*offer.notes, *([DIGEST_NOTE] if plan else [])):
        yield _text(note, "dim")


def _touched(offer: Offer) -> list[str]:
    """What would be changed, each thing once."""
    steps = offer.rehearsal.plan.steps if offer.rehearsal.plan else ()
    return list(dict.fromkeys(step.target for step in steps if step.tier > Tier.R0))


def in_words(condition: Condition | None) -> str:
    """When a step applies, for a person; "" when always."""
    if isinstance(condition, CheckAnswers):
        return f"{condition.check} is {condition.answer}"
    return f"the trouble is confined to one {condition.scope.replace('_', ' ')}" if condition else ""


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items() if value is not None)


def _row(name: str, words: str) -> Text:
    return Text.assemble((f"   {name:<9}", "cyan"), _text(words))


def _text(words: str, style: str = "") -> Text:
    return Text(safe_text(words), style=style)
