"""
The form in which people choose values for a plan's parameters; pure.

Slack's limits (docs.slack.dev/reference/surfaces/views): 24 characters of title, 3,000 of private_metadata, 100 blocks,
100 options of at most 75 characters. A plan with more parameters is changed with `watchkeeper narrow`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bot import narrate
from bot.incidents import Choices
from bot.slack.escape import inline, plain
from runbooks.engine.declared import (
    MOST_CHARACTERS,
    BooleanParameter,
    EnumParameter,
    IntegerParameter,
    NumberParameter,
    Parameter,
    TextParameter,
)

CALLBACK = "plan_values"
MOST_FIELDS = 50
_FIELD = "value"
_BLOCK = "param:"
_MOST_OPTIONS = 100
_MOST_OPTION = 75

View = dict[str, Any]


def form(choices: Choices) -> View:
    """A field for each parameter, filled with what the plan has now."""
    about = f"*{inline(choices.title, 150)}*\n{narrate.OTHER_VALUES}"
    fields = [_field(name, parameter, choices.values.get(name, "")) for name, parameter in choices.declared.items()]
    return {
        "type": "modal",
        "callback_id": CALLBACK,
        "title": _plain("Change values"),
        "submit": _plain("Make new fix"),
        "close": _plain("Cancel"),
        "private_metadata": json.dumps({"plan": choices.plan_id, "digest": choices.digest}),
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": about, "verbatim": True}},
            *fields[:MOST_FIELDS],
        ],
    }


def said(sentence: str) -> View:
    """What stands in the form's place when it was sent."""
    section = {"type": "section", "text": {"type": "plain_text", "text": plain(sentence, 2900)}}
    return {"type": "modal", "title": _plain("Change values"), "close": _plain("Close"), "blocks": [section]}


def errors(faults: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with each field, as Slack shows it beneath."""
    return {_BLOCK + name: plain(f"It {fault}.", 200) for name, fault in faults.items()}


def submitted(view: Mapping[str, Any]) -> tuple[str, str, dict[str, str]] | None:
    """The plan, the hash of what the person read, and the values; None when the form is none of ours."""
    try:
        meant = json.loads(view["private_metadata"])
        plan_id, digest = meant["plan"], meant["digest"]
        filled = {
            block.removeprefix(_BLOCK): _value(fields[_FIELD])
            for block, fields in view["state"]["values"].items()
            if block.startswith(_BLOCK)
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if not isinstance(plan_id, str) or not isinstance(digest, str):
        return None
    return plan_id, digest, {name: text for name, text in filled.items() if text is not None}


def _value(state: Mapping[str, Any]) -> str | None:
    option = state.get("selected_option")
    value = option.get("value") if option else state.get("value")
    return value if isinstance(value, str) else None


def _field(name: str, parameter: Parameter, value: str) -> View:
    block: View = {
        "type": "input",
        "block_id": _BLOCK + name,
        "label": _plain(name),
        "element": {"action_id": _FIELD, **_element(parameter, value)},
    }
    if hint := "; ".join(filter(None, (parameter.description, _limits(parameter)))):
        block["hint"] = _plain(plain(hint, 300))
    return block


def _element(parameter: Parameter, value: str) -> View:
    initial = {"initial_value": value} if value else {}
    match parameter:
        case EnumParameter(enum=names) if len(names) <= _MOST_OPTIONS and max(map(len, names)) <= _MOST_OPTION:
            return _select(names, value)
        case BooleanParameter():
            return _select(("true", "false"), value)
        case IntegerParameter(minimum=lowest, maximum=highest):
            bounds = {"min_value": lowest, "max_value": highest}
            given = {key: str(bound) for key, bound in bounds.items() if bound is not None}
            return {"type": "number_input", "is_decimal_allowed": False, **given, **initial}
        case NumberParameter(minimum=least, maximum=most):
            ends = {"min_value": least, "max_value": most}
            given = {key: f"{bound:.15g}" for key, bound in ends.items() if bound is not None}
            return {"type": "number_input", "is_decimal_allowed": True, **given, **initial}
    return {"type": "plain_text_input", "max_length": MOST_CHARACTERS, **initial}


def _select(names: tuple[str, ...], value: str) -> View:
    options = {name: {"text": _plain(name), "value": name} for name in names}
    chosen = {"initial_option": options[value]} if value in options else {}
    return {"type": "static_select", "options": list(options.values()), **chosen}


def _limits(parameter: Parameter) -> str:
    match parameter:
        case IntegerParameter() | NumberParameter():
            lowest, highest = parameter.minimum, parameter.maximum
            bounds = [f"at least {lowest:g}"] if lowest is not None else []
            return ", ".join([*bounds, *([f"at most {highest:g}"] if highest is not None else [])])
        case TextParameter(pattern=pattern) if pattern:
            return f"matches {pattern}"
        case EnumParameter(enum=names):
            return f"one of {', '.join(names)}"
    return ""


def _plain(text: str) -> View:
    return {"type": "plain_text", "text": text, "emoji": False}
