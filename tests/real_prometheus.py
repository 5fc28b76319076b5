"""A real Prometheus on 127.0.0.1 for tests: over a file of samples, or scraping an exporter of theirs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.evaluation.real_prometheus import INSTALL, prometheus_over, serve_prometheus
from tests.needs import need_program


@contextmanager
def start_prometheus(openmetrics: Path) -> Iterator[str]:
    """Prometheus over the samples of an OpenMetrics file with timestamps; yields its URL."""
    need_program("promtool", INSTALL)
    need_program("prometheus", INSTALL)
    with prometheus_over(openmetrics) as url:
        yield url


@contextmanager
def start_scraping_prometheus(target: str, *, interval: str = "1s") -> Iterator[str]:
    """Prometheus that scrapes `target` ("127.0.0.1:9101", path /metrics) every interval; yields its URL."""
    need_program("prometheus", INSTALL)
    job = {
        "job_name": "test",
        "honor_labels": True,
        "scrape_interval": interval,
        "scrape_timeout": interval,
        "static_configs": [{"targets": [target]}],
    }
    config = {"scrape_configs": [job]}
    with (
        tempfile.TemporaryDirectory(prefix="prometheus-") as folder,
        serve_prometheus(Path(folder), Path(folder) / "tsdb", config) as url,
    ):
        yield url
