"""Types of parameters that several actions take; each matches a whole value or refuses it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)


def _whole(value: Any) -> Any:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not a whole number")  # noqa: TRY004 - pydantic turns only ValueError into a fault of the field
    return value


# Digits count as a number, since a change's literals are texts; True and 7.0 do not.
Whole = Annotated[int, BeforeValidator(_whole)]

# The name of a datasource or a cluster in the configuration. Pydantic's `$` does not match before a last newline.
ConfigName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
