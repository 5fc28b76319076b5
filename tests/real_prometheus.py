"""A real Prometheus on 127.0.0.1 for tests: over a file of samples, or scraping an exporter of theirs."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.needs import need_program

INSTALL = "apt-get install prometheus"
_READY_WITHIN_S = 30.0


@contextmanager
def start_prometheus(openmetrics: Path) -> Iterator[str]:
    """Prometheus over the samples of an OpenMetrics file with timestamps (not .gz); yields its URL."""
    promtool = need_program("promtool", INSTALL)
    with tempfile.TemporaryDirectory(prefix="prometheus-") as folder:
        blocks = Path(folder) / "blocks"
        command = [promtool, "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(openmetrics), str(blocks)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with _serve(Path(folder), blocks, {"scrape_configs": []}) as url:
            yield url


@contextmanager
def start_scraping_prometheus(target: str, *, interval: str = "1s") -> Iterator[str]:
    """Prometheus that scrapes `target` ("127.0.0.1:9101", path /metrics) every interval; yields its URL."""
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
        _serve(Path(folder), Path(folder) / "tsdb", config) as url,
    ):
        yield url


@contextmanager
def _serve(folder: Path, storage: Path, config: Mapping[str, object]) -> Iterator[str]:
    prometheus = need_program("prometheus", INSTALL)
    config_file = folder / "prometheus.yml"
    config_file.write_text(json.dumps(config))  # JSON is YAML
    address = f"127.0.0.1:{_free_port()}"
    log = folder / "log"
    command = [
        prometheus,
        f"--config.file={config_file}",
        f"--storage.tsdb.path={storage}",
        "--storage.tsdb.retention.time=100y",  # the samples may be as old as they like
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            _wait_until_ready(f"http://{address}", process, log)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/-/ready", timeout=1, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"Prometheus did not get ready: {log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
