"""Every fault of the catalogue, by its id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.scenarios.fault import Fault

FAULTS: Mapping[str, type[Fault]] = {}
