"""The JSON Schema that editors complete by, and the parser: they accept and refuse the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]

from runbooks.engine.parse import parse
from runbooks.engine.placeholders import SCOPE_KEYS
from runbooks.engine.problems import RunbookError
from runbooks.engine.schema import schema, schema_for
from tests.runbooks.test_lint import VOCABULARY

SCHEMA = schema()
VALIDATORS = {
    kind: Draft202012Validator({**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{kind}"}]}, format_checker=FormatChecker())
    for kind in ("frontMatter", "step")
}
FRONT = {"format": 1, "title": "T"}
STEP = {"action": "manual", "with": {"instruction": "Look"}}
QUERY = {"metric": "vllm:num_requests_waiting"}
RANGE = {"query": QUERY, "below": 8}

ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 99) | st.sampled_from([0.5, 1.0, "", " ", "a", "a b c", "90s", "bad"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "type", "query", "scope"]), inner, max_size=2)
    ),
    max_leaves=4,
)
"""Anything at all, of a few values that mean something here and there. 1e-7 would be text in our YAML, so none."""

WORDS = st.one_of(st.sampled_from(["a", " a ", "", " ", ["a"], [], ["a", "a"], ["a", ""], ["a", 1], {"a": "b"}]), ANY)
DATES = st.sampled_from(["2026-11-22", "2026-02-30", "2026-1-1", "20261122", "2026-W01-1", "", 2026, None])
TIMES = st.sampled_from(
    ["90s", "1 s", "3600s", "3601s", "60m", "61m", "1h", "2h", "0s", "007s", "4", 4, "4d", "", None]
)
LIMITS = st.sampled_from([None, 0, 4, 4.0, 0.5, -1, "4", True])
TYPES = st.sampled_from(["text", "integer", "number", "boolean", "enum", "whole", 1, None])
LABELS = st.sampled_from(["pod", "_x", "9x", "a-b", ""])


def some_of(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with some of these keys, and now and then one that nobody knows."""
    return st.fixed_dictionaries({}, optional={**values, "surplus": ANY} if len(values) > 2 else values)


PARAMETER = some_of(
    type=TYPES,
    description=st.sampled_from(["d", "", None, 1]),
    pattern=st.sampled_from(["[a-z]+", None, 1]),
    minimum=LIMITS,
    maximum=LIMITS,
    narrow=st.sampled_from(["down", "any", "in", None]),
    default=st.one_of(LIMITS, st.sampled_from(["a", ""])),
    enum=st.sampled_from([["a", "b"], ["a", "a"], [], [""], [1], "a"]),
)
QUERIES = some_of(
    metric=st.sampled_from(["up", "vllm:x", "9x", "", 1]),
    family=st.sampled_from(["serving", "gpu", "fleet", None]),
    where=st.one_of(st.dictionaries(LABELS, st.sampled_from(["x", "~y", "", 1]), max_size=2), ANY),
    function=st.sampled_from(["value", "rate", "quantile", "sum", None]),
    window=TIMES,
    by=st.one_of(st.lists(LABELS, max_size=2), st.sampled_from(["pod", {"pod": "x"}, None])),
    aggregation=st.sampled_from(["sum", "count", "p50", None]),
    quantile=st.sampled_from([None, 0, 0.5, 1, 2, "0.5", True]),
)
RANGES = st.one_of(
    some_of(query=QUERIES, below=LIMITS, above=LIMITS), st.just(RANGE), st.just({**RANGE, "above": None})
)
FRONTS = some_of(
    format=st.sampled_from([1, 1, 1, 1.0, True, 2, "1", None]),
    id=st.sampled_from(["t", "", 1, None]),  # the schema cannot know the file's name, and here it is t
    title=st.sampled_from(["T", "T", "T", " ", "", 1, None]),
    alerts=WORDS,
    causes=WORDS,
    services=WORDS,
    labels=st.one_of(st.dictionaries(st.sampled_from(["a", "b"]), WORDS, max_size=2), ANY),
    owner=st.sampled_from(["o", " ", "", 1, None]),
    reviewed=DATES,
    review_by=DATES,
    params=st.one_of(st.dictionaries(st.sampled_from(["a", "a_1", "A", "1", "x" * 61]), PARAMETER, max_size=2), ANY),
)
STEPS = some_of(
    **{
        "action": st.sampled_from(["manual", "no.such", "", 1, None]),
        "with": st.one_of(st.dictionaries(st.sampled_from(["a", "b"]), ANY, max_size=2), ANY),
        "when": st.one_of(
            some_of(
                check=st.sampled_from(["queue", "", " ", 1]), **{"is": st.sampled_from(["ok", "bad", "well", True])}
            ),
            some_of(scope=st.sampled_from([*SCOPE_KEYS, "fleet", None])),
            ANY,
        ),
        "verify": st.one_of(WORDS, RANGES, st.lists(st.one_of(st.sampled_from(["a", "b", "", 1]), RANGES), max_size=3)),
        "check": st.one_of(
            some_of(
                check=st.sampled_from(["queue", "", " ", 1]), **{"is": st.sampled_from(["ok", "bad", "unknown", True])}
            ),
            RANGES,
            ANY,
        ),
        "undo": st.sampled_from(["previous", "none", "maybe", True, None]),
        "irreversible": st.sampled_from(["it is gone", "gone", " a  b ", "", True, ["a", "b", "c"]]),
        "settle": TIMES,
        "timeout": TIMES,
        "otherwise": st.sampled_from(["roll it back", " ", "", 1, None]),
    }
)


def accepted_by_schema(kind: str, value: Any) -> bool:
    return bool(VALIDATORS[kind].is_valid(value))


def accepted_by_parser(front: dict[str, Any], step: dict[str, Any]) -> bool:
    text = f"---\n{block(front)}---\n\n### Do\n\nBy hand.\n\n```yaml step\n{block(step)}```\n"
    try:
        parse(text, "t")
    except RunbookError:
        return False
    return True


def block(value: dict[str, Any]) -> str:
    return "".join(f"{name}: {json.dumps(each)}\n" for name, each in value.items())


@settings(max_examples=100, deadline=None)
@given(FRONTS)
@example({})
def test_front_matter(changes: dict[str, Any]) -> None:
    """Whatever stands in the front matter, an editor and the parser say the same."""
    front = {**FRONT, **changes}

    assert accepted_by_schema("frontMatter", front) == accepted_by_parser(front, STEP)


@settings(max_examples=100, deadline=None)
@given(PARAMETER)
@example({"type": "integer", "default": 4.0})
def test_a_parameter(parameter: dict[str, Any]) -> None:
    """Alone, since two random ones are rarely both right."""
    front = {**FRONT, "params": {"a": parameter}}

    assert accepted_by_schema("frontMatter", front) == accepted_by_parser(front, STEP)


@settings(max_examples=100, deadline=None)
@given(STEPS)
@example({})
def test_a_step(changes: dict[str, Any]) -> None:
    """Whatever stands in a step's block."""
    step = {**STEP, **changes}

    assert accepted_by_schema("step", step) == accepted_by_parser(FRONT, step)


@settings(max_examples=100, deadline=None)
@given(QUERIES)
@example({"function": "quantile", "window": "2m", "quantile": 0.5})
@example({"function": "rate", "window": None})
def test_a_query(changes: dict[str, Any]) -> None:
    """Alone, for the same reason."""
    step = {**STEP, "verify": [{**RANGE, "query": {**QUERY, **changes}}]}

    assert accepted_by_schema("step", step) == accepted_by_parser(FRONT, step)


@pytest.mark.parametrize("missing", [*FRONT, *STEP])
def test_what_is_required(missing: str) -> None:
    """`format`, `title` and `action` must be there, in both."""
    front = {name: value for name, value in FRONT.items() if name != missing}
    step = {name: value for name, value in STEP.items() if name != missing}

    accepted = accepted_by_schema("frontMatter", front) and accepted_by_schema("step", step)
    assert accepted == accepted_by_parser(front, step) == (missing == "with")


def test_it_is_a_schema_and_knows_all_that_is_used() -> None:
    """Draft 2020-12; its dimensions are the placeholders'; with names, it accepts what is there and no other."""
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$defs"]["step"]["properties"]["when"]["oneOf"][1]["properties"]["scope"]["enum"] == list(SCOPE_KEYS)
    named = Draft202012Validator({**schema_for(VOCABULARY), "anyOf": [{"$ref": "#/$defs/step"}]})
    assert named.is_valid({"action": "kubernetes.scale", "verify": ["queue", RANGE]})
    assert not named.is_valid({"action": "kubernetes.delete"})
    assert not named.is_valid({"action": "kubernetes.scale", "verify": "quue"})
