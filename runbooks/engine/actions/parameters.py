"""Parameters that several actions take: types that match a whole value or refuse it, and the choice of a source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field

from runbooks.engine.values import ActionError

_Access = TypeVar("_Access")

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


def chosen_source(accesses: Mapping[str, _Access], source: str | None, system: str) -> _Access:
    """The access of the datasource with this name, or the only one there is. Raises ActionError."""
    if not accesses:
        raise ActionError(
            f"no {system} has an `action_credential` in the configuration, so nothing can be changed there"
        )
    if source is None and len(accesses) == 1:
        return next(iter(accesses.values()))
    access = accesses.get(source or "")
    if access is None:
        raise ActionError(f"say in `source` which {system} is meant: {', '.join(sorted(accesses))}")
    return access
