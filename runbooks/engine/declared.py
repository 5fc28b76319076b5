"""
What an author declares beyond names and texts: typed parameters, conditions of steps, and queries that verify.

All of it is data. There is no expression language, for the reason that placeholders.py gives.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import re2
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Strict, TypeAdapter, model_validator

from runbooks.engine.placeholders import SCOPE_KEYS

# 1 second to 1 hour, as people write it.
DURATION = r"^(?:(?:[1-9][0-9]{0,2}|[12][0-9]{3}|3[0-5][0-9]{2}|3600) ?s|(?:[1-9]|[1-5][0-9]|60) ?m|1 ?h)$"
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_LABEL = r"^[a-zA-Z_][a-zA-Z0-9_]*$"


def _a_number(value: Any) -> Any:
    """JSON Schema's notion of an integer: 4 and 4.0, and neither `"4"` nor true."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a whole number")  # noqa: TRY004 - pydantic makes its own error of this one
    return value


Duration = Annotated[str, Field(pattern=DURATION)]
Number = Annotated[float, Strict()]  # neither a text nor a boolean
Whole = Annotated[int, BeforeValidator(_a_number)]
Label = Annotated[str, Field(pattern=_LABEL)]
Plain = str | int | float | bool
Narrow = Literal["down", "up", "any"]
MOST_CHARACTERS = 200
"""Of a text that people give: it stands on the card, whole."""


def seconds(duration: str) -> float:
    """`90s`, `4m` or `1h` in seconds; the text fits DURATION."""
    return float(duration[:-1]) * _SECONDS[duration[-1]]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MetricQuery(_Declared):
    """
    One question about one metric of the service, in the terms of the product's own query model.

    `family` says which of the service's selectors bounds it; `where` narrows it further (`"x"` equals, `"!x"` differs,
    `"~re"` and `"!~re"` match the whole value). Every function but `value` needs a `window`, and `quantile` needs its
    `quantile`, 0 to 1.
    """

    metric: Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")]
    family: Literal["serving", "gpu", "gateway", "application", "kubernetes"] = "serving"
    where: dict[Label, str] = {}
    function: Literal["value", "rate", "increase", "delta", "changes", "max_over_time", "avg_over_time", "quantile"] = (
        "value"
    )
    window: Duration | None = None
    by: tuple[Label, ...] = ()
    aggregation: Literal["sum", "max", "min", "avg", "count"] = "sum"
    quantile: Annotated[Number, Field(ge=0, le=1)] | None = None

    @staticmethod
    def is_expression(matcher: str) -> bool:
        """A regular expression is taken as it is: its braces are its own, and no name may widen it."""
        return matcher.startswith(("~", "!~"))

    @model_validator(mode="after")
    def _fits_its_function(self) -> Self:
        if (self.function == "value") != (self.window is None):
            raise ValueError("every function needs a `window` such as 5m, and `value` takes none")
        if (self.function == "quantile") != (self.quantile is not None):
            raise ValueError("the function `quantile` needs a `quantile` such as 0.95, and no other takes one")
        return self


class Range(_Declared):
    """The query's numbers, in every group, must be `below`, `above` or between the two; the unit is the metric's."""

    query: MetricQuery
    below: Number | None = None
    above: Number | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.below is None and self.above is None:
            raise ValueError("say `below: NUMBER` or `above: NUMBER`")
        return self

    def holds(self, value: float) -> bool:
        """Not a number lies nowhere."""
        return (self.below is None or value < self.below) and (self.above is None or value > self.above)

    @property
    def bounds(self) -> str:
        """What must be so, for a person."""
        bounds = [f"above {self.above:g}"] if self.above is not None else []
        bounds += [f"below {self.below:g}"] if self.below is not None else []
        return " and ".join(bounds)


class CheckAnswers(_Declared):
    """The step applies when the diagnosis has this answer of the check; what nobody asked is `unknown`."""

    check: Annotated[str, Field(pattern=r"\S")]
    answer: Annotated[Literal["ok", "bad", "unknown"], Field(alias="is")]


class ConfinedTo(_Declared):
    """The step applies when the diagnosis confines the trouble to one value of this dimension."""

    scope: Literal[SCOPE_KEYS]  # type: ignore[valid-type]  # the names stand once, in placeholders.py


Condition = CheckAnswers | ConfinedTo


class CheckSays(_Declared):
    """The step has happened when the check, asked now, has this answer, and has not when it has the other one."""

    model_config = ConfigDict(serialize_by_alias=True)

    check: Annotated[str, Field(pattern=r"\S")]
    answer: Annotated[Literal["ok", "bad"], Field(alias="is")] = "ok"


Sign = CheckSays | Range
"""What shows that a step has happened: a check's answer, or a query whose number then lies in the range."""


def signs(check: Sign | None) -> str:
    """What must be so for the step to have happened, for a person; "" where nothing is named."""
    if isinstance(check, Range):
        return f"{check.query.metric} is {check.bounds}"
    return f"{check.check} is {check.answer}" if check else ""


class _Parameter(_Declared):
    description: str = ""


class TextParameter(_Parameter):
    """`pattern` (RE2) must match the whole value."""

    type: Literal["text"]
    pattern: str | None = None
    default: str | None = None

    def fault(self, value: Any) -> str:
        """What the value must be and is not; "" when it may be used. Nothing is converted: `"4"` is no integer."""
        if not isinstance(value, str):
            return "must be a text"
        if len(value) > MOST_CHARACTERS:
            return f"must have at most {MOST_CHARACTERS} characters"
        if not value.isprintable() or unicodedata.normalize("NFKC", value) != value:
            return "must be one line of plain characters, none of them invisible or a look-alike in another width"
        return "" if self.pattern is None or matches(self.pattern, value) else f"must match {self.pattern}"


class IntegerParameter(_Parameter):
    """`narrow` says which way an approved value may still go (left out: no way)."""

    type: Literal["integer"]
    narrow: Narrow | None = None
    minimum: Whole | None = None
    maximum: Whole | None = None
    default: Whole | None = None

    def fault(self, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, int):
            return "must be a whole number"
        return _outside(value, self.minimum, self.maximum)


class NumberParameter(_Parameter):
    """`narrow` as in IntegerParameter."""

    type: Literal["number"]
    narrow: Narrow | None = None
    minimum: Number | None = None
    maximum: Number | None = None
    default: Number | None = None

    def fault(self, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return "must be a number"
        return _outside(value, self.minimum, self.maximum)


class BooleanParameter(_Parameter):
    type: Literal["boolean"]
    default: Annotated[bool, Strict()] | None = None

    def fault(self, value: Any) -> str:
        return "" if isinstance(value, bool) else "must be true or false"


class EnumParameter(_Parameter):
    type: Literal["enum"]
    enum: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    default: str | None = None

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if len(set(self.enum)) < len(self.enum):
            raise ValueError("`enum` names something twice")
        return self

    def fault(self, value: Any) -> str:
        return "" if value in self.enum else f"must be one of {', '.join(self.enum)}"


Parameter = Annotated[
    TextParameter | IntegerParameter | NumberParameter | BooleanParameter | EnumParameter, Discriminator("type")
]

PARAMETER: TypeAdapter[Parameter] = TypeAdapter(Parameter)
RANGE: TypeAdapter[Range] = TypeAdapter(Range)
CHECK_SAYS: TypeAdapter[CheckSays] = TypeAdapter(CheckSays)
CHECK_ANSWERS: TypeAdapter[CheckAnswers] = TypeAdapter(CheckAnswers)
CONFINED_TO: TypeAdapter[ConfinedTo] = TypeAdapter(ConfinedTo)


def _outside(value: float, minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and value < minimum:
        return f"must be at least {minimum:g}"
    return f"must be at most {maximum:g}" if maximum is not None and value > maximum else ""


def matches(pattern: str, value: str) -> bool:
    """Does the RE2 expression match all of the value? Raises ValueError when it is none."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options).fullmatch(value) is not None
    except re2.error as error:
        raise ValueError(f"`{pattern[:60]}` is not a regular expression of RE2") from error


def settled(declared: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Plain]:
    """
    A value for each declared parameter: the one given, or its default.

    Raises ValueError, naming the parameter, when one has no value, a wrong one, or is not declared.
    """
    if unknown := sorted(set(given) - set(declared)):
        raise ValueError(f"the runbook has no parameter {', '.join(unknown)}")
    values: dict[str, Plain] = {}
    for name, parameter in declared.items():
        value = given.get(name, parameter.default)
        if value is None:
            about = f" ({parameter.description})" if parameter.description else ""
            raise ValueError(f"the parameter {name}{about} needs a value")
        if fault := parameter.fault(value):
            raise ValueError(f"the parameter {name} {fault}")
        values[name] = value
    return values
