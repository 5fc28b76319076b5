"""Neighbours of the web face that a test does not care about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bot.incidents import Delivery


class NoIntake:
    """Takes everything."""

    async def deliver(self, delivery: Delivery) -> bool:
        return True

    async def dead_letter(self, raw: bytes, why: str, key: str) -> None:
        return None


class Ready:
    """Always ready."""

    async def not_ready_because(self) -> Sequence[str]:
        return ()

    async def count(self) -> None:
        return None

    async def details(self) -> Mapping[str, Any]:
        return {}
