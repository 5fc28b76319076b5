"""What every stand-in of a far end tells the lab: what was written to it, and what it was asked wrongly."""

from __future__ import annotations

from typing import Protocol

from fastapi import FastAPI

from lab.cluster_objects import Json


class Recording(Protocol):
    """A stand-in that keeps both, oldest first."""

    @property
    def writes(self) -> list[Json]: ...

    @property
    def violations(self) -> list[Json]: ...


def tell_records(app: FastAPI, of: Recording) -> None:
    """Serve both below /_lab/, which the product is never told."""

    async def writes() -> list[Json]:
        return of.writes

    async def violations() -> list[Json]:
        return of.violations

    app.add_api_route("/_lab/writes", writes, methods=["GET"])
    app.add_api_route("/_lab/violations", violations, methods=["GET"])
