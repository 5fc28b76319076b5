"""The Kubernetes stand-in behind a real port, with lab time that the test moves."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any, Self

import uvicorn
from kubernetes import client as k8s

from lab.kubernetes import KubernetesApi
from tests.lab.played_worlds import CREDENTIALS, LIVE_START, SmallWorld


class Server:
    """The stand-in behind a real port, with lab time that the test moves."""

    def __init__(self) -> None:
        self.world = SmallWorld()
        self.time = LIVE_START
        self.api = KubernetesApi(
            cluster=self.world.cluster,
            now=lambda: self.time,
            read_token=CREDENTIALS.kube_read,
            action_token=CREDENTIALS.kube_action,
        )
        config = uvicorn.Config(self.api.app(), host="127.0.0.1", port=0, log_level="warning")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def client(self, token: str = CREDENTIALS.kube_action) -> Any:
        configuration = k8s.Configuration()
        configuration.host = self.url
        configuration.api_key = {"authorization": f"Bearer {token}"}
        configuration.retries = False
        return k8s.ApiClient(configuration)

    def pass_time(self, minutes: float) -> None:
        """The controllers run once a quarter of a minute."""
        for _ in range(int(minutes * 4)):
            self.time += timedelta(seconds=15)
            self.api.cluster.advance(self.time)
