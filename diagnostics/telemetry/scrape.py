"""Fetch one target's `/metrics`, within limits, and say clearly why when that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from diagnostics.telemetry.exposition import ExpositionError, Read, SeriesIds, read_exposition, read_openmetrics

_ACCEPT = "text/plain;version=0.0.4;q=1,*/*;q=0.1"


class ScrapeError(Exception):
    """A target could not be scraped; the message says why, for a person."""


@dataclass(frozen=True, kw_only=True)
class ScrapeTarget:
    """
    One exporter. `labels` are attached to its series where they lack them (Prometheus' `honor_labels: true`).

    Without labels the series get `instance`, the host and port of the URL. Raises ValueError for a URL that is not
    http or https.
    """

    url: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{self.url!r} is not an http or https address to scrape")
        if not self.labels:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            object.__setattr__(self, "labels", {"instance": f"{parts.hostname}:{port}"})


@dataclass(frozen=True, kw_only=True)
class ScrapeLimits:
    """Beyond these a scrape fails as a whole, like Prometheus' body_size_limit and sample_limit."""

    timeout_s: float = 10.0
    body_bytes: int = 32 * 2**20
    samples: int = 20_000


async def scrape(client: httpx.AsyncClient, target: ScrapeTarget, ids: SeriesIds, limits: ScrapeLimits) -> Read:
    """One scrape, all or nothing. Raises ScrapeError."""
    try:
        async with asyncio.timeout(limits.timeout_s):
            text, content_type = await _fetch(client, target.url, limits.body_bytes)
    except TimeoutError as error:
        raise ScrapeError(f"no full answer within {limits.timeout_s:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise ScrapeError(f"{type(error).__name__}: {error}") from error
    try:
        if content_type.startswith("application/openmetrics-text"):
            return read_openmetrics(text, ids, max_samples=limits.samples, needs_time=False)
        return read_exposition(text, ids, max_samples=limits.samples)
    except ExpositionError as error:
        raise ScrapeError(f"the answer is no exposition: {error}") from error


async def _fetch(client: httpx.AsyncClient, url: str, most: int) -> tuple[str, str]:
    async with client.stream("GET", url, headers={"Accept": _ACCEPT}, follow_redirects=False) as response:
        if response.status_code != httpx.codes.OK:
            raise ScrapeError(f"it answered {response.status_code}")
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk  # counted after unpacking, so a small compressed body cannot grow without end
            if len(body) > most:
                raise ScrapeError(f"the answer is larger than {most} bytes")
    try:
        return body.decode(), response.headers.get("Content-Type", "")
    except UnicodeDecodeError as error:
        raise ScrapeError(f"the answer is not UTF-8: {error}") from error
