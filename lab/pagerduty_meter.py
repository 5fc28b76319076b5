"""PagerDuty's limit of requests per key and minute, as it tells it in headers."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi.responses import JSONResponse, Response

PER_MINUTE = 960
WINDOW_S = 60.0


class Meter:
    """Counts the calls of one minute; `per_minute` may be lowered by a test while it runs."""

    def __init__(self, *, per_minute: int = PER_MINUTE, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._began = clock()
        self._count = 0

    def refusal(self) -> Response | None:
        """Count one call; an answer when it is one too many."""
        if self._clock() - self._began >= WINDOW_S:
            self._began, self._count = self._clock(), 0
        self._count += 1
        if self._count <= self.per_minute:
            return None
        return JSONResponse({"error": {"message": "Rate Limit Exceeded", "code": 2020}}, status_code=429)

    def headers(self) -> dict[str, str]:
        left_s = WINDOW_S - (self._clock() - self._began)
        return {
            "ratelimit-limit": str(self.per_minute),
            "ratelimit-remaining": str(max(0, self.per_minute - self._count)),
            "ratelimit-reset": str(max(0, round(left_s))),
        }
