"""Values that people give: read by their declared type and no other way; of an approved plan only narrowed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.engine.chosen import WrongValueError, as_text, changed, from_text
from runbooks.engine.declared import PARAMETER, Parameter

DECLARED: dict[str, Parameter] = {
    name: PARAMETER.validate_python(declared)
    for name, declared in {
        "replicas": {"type": "integer", "minimum": 1, "maximum": 8, "narrow": "down"},
        "ratio": {"type": "number", "minimum": 0, "maximum": 1, "narrow": "up"},
        "free": {"type": "integer", "maximum": 9, "narrow": "any"},
        "days": {"type": "integer"},
        "tenant": {"type": "text", "pattern": "[a-z]+"},
        "words": {"type": "text"},
        "pool": {"type": "enum", "enum": ["spot", "reserved"]},
        "force": {"type": "boolean"},
    }.items()
}
PRESENT: dict[str, Any] = {
    "replicas": 4, "ratio": 0.5, "free": 5, "days": 3, "tenant": "acme", "words": "a b", "pool": "spot", "force": False,
}  # fmt: skip


def wanted(name: str, text: str, *, is_approved: bool = False) -> Any:
    return changed(DECLARED, PRESENT, {name: text}, is_approved=is_approved)[name]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("replicas", "8", 8),
        ("replicas", " 2 ", 2),
        ("ratio", "0.75", 0.75),
        ("ratio", "1", 1.0),
        ("days", "-3", -3),
        ("tenant", "globex", "globex"),
        ("words", "Grüße, 1 < 2", "Grüße, 1 < 2"),
        ("pool", "reserved", "reserved"),
        ("force", "true", True),
    ],
)
def test_a_text_becomes_the_value_that_it_says(name: str, text: str, value: Any) -> None:
    """By the declared type; what nobody named stays."""
    values = changed(DECLARED, PRESENT, {name: text}, is_approved=False)

    assert values == {**PRESENT, name: value}
    assert type(values[name]) is type(PRESENT[name])


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("replicas", "9", "at most 8"),
        ("replicas", "0", "at least 1"),
        ("replicas", "4.0", "whole number"),
        ("replicas", "4e0", "whole number"),
        ("replicas", "٤", "whole number"),  # a four, in Arabic digits
        ("replicas", "1_000", "whole number"),
        ("replicas", "9" * 400, "whole number"),
        ("replicas", "", "whole number"),
        ("ratio", "nan", "a number"),
        ("ratio", "inf", "a number"),
        ("ratio", "1e-3", "a number"),
        ("tenant", "acme; drop", "must match"),
        ("tenant", "\u0430cme", "must match"),  # its first letter is Cyrillic
        ("tenant", "acme\n", "one line"),
        ("words", "x" * 201, "200 characters"),
        ("words", "a\u202eb", "invisible"),
        ("words", "a\u200bb", "invisible"),
        ("words", "\uff41\uff42", "look-alike"),
        ("words", "{service}\x00", "invisible"),
        ("pool", "Spot", "one of spot, reserved"),
        ("force", "yes", "true or false"),
        ("nobody", "1", "not a parameter"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(name: str, text: str, fault: str) -> None:
    """Wrong types, tricks with characters, values that are too long, names that nobody declared."""
    with pytest.raises(WrongValueError) as refusal:
        wanted(name, text)

    assert list(refusal.value.faults) == [name]
    assert fault in refusal.value.faults[name]


@pytest.mark.parametrize(
    ("name", "text", "may"),
    [
        ("replicas", "3", True),
        ("replicas", "4", True),
        ("replicas", "5", False),
        ("ratio", "0.6", True),
        ("ratio", "0.4", False),
        ("free", "1", True),
        ("free", "9", True),
        ("free", "10", False),
        ("days", "3", True),
        ("days", "2", False),
        ("tenant", "globex", False),
        ("pool", "reserved", False),
        ("force", "true", False),
    ],
)
def test_an_approved_value_only_goes_the_way_that_its_author_allows(name: str, text: str, *, may: bool) -> None:
    """What says nothing about it stays as it was approved."""
    if may:
        assert wanted(name, text, is_approved=True) == from_text(DECLARED[name], text)
    else:
        with pytest.raises(WrongValueError, match=name):
            wanted(name, text, is_approved=True)


@given(st.sampled_from(sorted(DECLARED)), st.text(max_size=220))
def test_no_text_at_all_gets_past_the_type(name: str, text: str) -> None:
    """Whatever is typed: a value that its own declaration takes and that survives the way back, or a refusal."""
    parameter = DECLARED[name]
    try:
        value = from_text(parameter, text)
    except ValueError:
        return
    assert parameter.fault(value) == ""
    assert from_text(parameter, as_text(value)) == value
