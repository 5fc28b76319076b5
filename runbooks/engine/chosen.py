"""Values that people give for a runbook's parameters: read from text, checked, and after an approval only narrowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from runbooks.engine.declared import BooleanParameter, IntegerParameter, NumberParameter, Parameter, Plain

_WHOLE = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?", re.ASCII)


class WrongValueError(ValueError):
    """Values that may not be used: `faults` says of each parameter what it must be."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name} {fault}" for name, fault in faults.items()))
        self.faults = dict(faults)


def changed(
    declared: Mapping[str, Parameter], present: Mapping[str, Any], given: Mapping[str, str], *, is_approved: bool
) -> dict[str, Plain]:
    """
    All values of a plan after people gave these texts for some of them.

    Of an approved plan a value may only be narrowed, the way its parameter says. Raises WrongValueError for names that
    nobody declared and values that do not fit, all of them at once.
    """
    values: dict[str, Plain] = dict(present)
    faults: dict[str, str] = {}
    for name, text in given.items():
        if (parameter := declared.get(name)) is None:
            faults[name[:60]] = "is not a parameter of this runbook"
            continue
        try:
            value = from_text(parameter, text)
        except ValueError as error:
            faults[name] = str(error)
            continue
        if is_approved and (fault := widened(parameter, present.get(name), value)):
            faults[name] = fault
        values[name] = value
    if faults:
        raise WrongValueError(faults)
    return values


def from_text(parameter: Parameter, text: str) -> Plain:
    """The value that somebody typed; spaces around it do not count. Raises ValueError with what it must be."""
    text = text.strip(" ")
    value: Plain = text
    if isinstance(parameter, IntegerParameter) and _WHOLE.fullmatch(text):
        value = int(text)
    elif isinstance(parameter, NumberParameter) and _DECIMAL.fullmatch(text):
        value = float(text)
    elif isinstance(parameter, BooleanParameter) and text in ("true", "false"):
        value = text == "true"
    if fault := parameter.fault(value):
        raise ValueError(fault)
    return value


def as_text(value: Plain) -> str:
    """As `from_text` reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def widened(parameter: Parameter, approved: Any, wanted: Any) -> str:
    """Why an approved value may not become this one; "" when it is the same, or narrower."""
    if wanted == approved:
        return ""
    way = parameter.narrow if isinstance(parameter, IntegerParameter | NumberParameter) else None
    if way is None:
        return f"was approved as {as_text(approved)} and may not change any more"
    if way == "any" or (wanted < approved) == (way == "down"):
        return ""
    return f"was approved as {as_text(approved)} and may only go {way}"
