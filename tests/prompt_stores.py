"""A real MLflow and a real Phoenix on 127.0.0.1, each from its package in an environment of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.needs import lack

INSTALL = "make prompt-stores"
_PROGRAMS = Path(__file__).parents[1] / ".venv-stores" / "bin"
_PATIENCE_S = 240.0  # the first start compiles thousands of modules


@contextmanager
def real_mlflow() -> Iterator[str]:
    """An MLflow server with an empty registry; yields its URL."""
    program = _program("mlflow", "WATCHKEEPER_MLFLOW")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="mlflow-") as folder:
        command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        places = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", f"{folder}/files"]
        no_jobs = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with _running([*command, *places], folder, no_jobs, f"http://127.0.0.1:{port}", "/health") as url:
            yield url


@contextmanager
def real_phoenix() -> Iterator[str]:
    """A Phoenix server without prompts; yields its URL."""
    program = _program("phoenix", "WATCHKEEPER_PHOENIX")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="phoenix-") as folder:
        environment = {
            "PHOENIX_WORKING_DIR": folder,
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(_free_port()),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }
        with _running([program, "serve"], folder, environment, f"http://127.0.0.1:{port}", "/healthz") as url:
            yield url


def _program(name: str, variable: str) -> str:
    """By its variable, in our own environment for stores, or by the PATH; else the test skips, and fails in CI."""
    found = os.environ.get(variable) or shutil.which(name, path=f"{_PROGRAMS}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        lack(f"{name} is not installed: {INSTALL}")
    return found


@contextmanager
def _running(command: list[str], folder: str, more: Mapping[str, str], url: str, path: str) -> Iterator[str]:
    environment = {
        "PATH": f"{Path(command[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "HOME": folder,
        "LC_ALL": "C.UTF-8",
        **more,
    }
    log = Path(folder) / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(process, f"{url}{path}", log)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its folder goes, too, and a polite end takes Phoenix 10 s
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2.0).status_code == 200:
                return
        time.sleep(0.2)
    raise AssertionError(f"{process.args!r} does not answer: {log.read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
