"""The entries of watchkeeper.toml about whom we trust with more than a click."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bot.config.entries import Role
from bot.config.fields import Entry


class BreakGlass(Entry):
    """Who may start a fix alone, with a one-time code and a reason, and a review afterwards; nobody without one."""

    roles: tuple[Role, ...] = Field(min_length=1)
    environment: Literal["prod", "staging", "dev", "*"] = "*"
    service: str = "*"
