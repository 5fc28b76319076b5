"""A real Prometheus of our own on 127.0.0.1: over a file of samples, ended when we are done with it."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

INSTALL = "apt-get install prometheus"
_READY_WITHIN_S = 60.0
_LOAD_WITHIN_S = 300.0


class PrometheusError(Exception):
    """Prometheus or promtool is missing, refuses the samples, or does not get ready; the text says which."""


@contextmanager
def prometheus_over(openmetrics: Path) -> Iterator[str]:
    """Prometheus over an OpenMetrics file with timestamps (also .gz); yields its URL. Raises PrometheusError."""
    with tempfile.TemporaryDirectory(prefix="prometheus-") as name:
        folder = Path(name)
        blocks = folder / "blocks"
        _load(_unpacked(openmetrics, folder), blocks)
        with serve_prometheus(folder, blocks, {"scrape_configs": []}) as url:
            yield url


@contextmanager
def serve_prometheus(folder: Path, storage: Path, config: Mapping[str, object]) -> Iterator[str]:
    """Prometheus with this configuration and storage, its log in `folder`; yields its URL. Raises PrometheusError."""
    config_file = folder / "prometheus.yml"
    config_file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    address = f"127.0.0.1:{_free_port()}"
    log = folder / "log"
    command = [
        _program("prometheus"),
        f"--config.file={config_file}",
        f"--storage.tsdb.path={storage}",
        "--storage.tsdb.retention.time=100y",  # the samples may be as old as they like
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:  # noqa: S603 - our own command
        try:
            _wait_until_ready(f"http://{address}", process, log)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(timeout=20)


def _load(openmetrics: Path, blocks: Path) -> None:
    command = [_program("promtool"), "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(openmetrics)]
    try:
        subprocess.run([*command, str(blocks)], check=True, capture_output=True, timeout=_LOAD_WITHIN_S)  # noqa: S603 - our own command
    except subprocess.CalledProcessError as error:
        raise PrometheusError(f"promtool cannot load the samples: {error.stderr.decode()[-300:].strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise PrometheusError(f"promtool did not load the samples within {_LOAD_WITHIN_S:g} s") from error


def _unpacked(openmetrics: Path, folder: Path) -> Path:
    if openmetrics.suffix != ".gz":
        return openmetrics
    plain = folder / "metrics.om"
    with gzip.open(openmetrics) as packed, plain.open("wb") as file:
        shutil.copyfileobj(packed, file)
    return plain


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise PrometheusError(f"{name} is not installed: {INSTALL}")
    return found


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
    raise PrometheusError(f"Prometheus did not get ready: {log.read_text(encoding='utf-8')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
