"""`watchkeeper probe` runs on a GPU node and exports what no standard exporter says; it needs no configuration."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Annotated

import typer

from bot.incidents import WatchkeeperError


def add_probe_command(app: typer.Typer) -> None:
    """Hang this file's command into the program."""

    @app.command()
    def probe(
        *,
        listen: Annotated[str, typer.Option(help="HOST:PORT to be scraped at.")] = "127.0.0.1:9836",
        node: Annotated[str, typer.Option(help="The node's name in Kubernetes, if the host has another.")] = "",
        kernel_log: Annotated[Path, typer.Option(help="Where the kernel's messages are.")] = Path("/dev/kmsg"),
        gpus: Annotated[
            bool, typer.Option("--gpus", help="Export the GPUs' readings too, for nodes without dcgm-exporter.")
        ] = False,
        every: Annotated[float, typer.Option(help="Seconds between two rounds.")] = 15.0,
    ) -> None:
        """Export nvidia-smi's state and the kernel's XIDs of this node, for Prometheus or the recorder to scrape."""
        from diagnostics.probe import run_probe

        host, _, port = listen.rpartition(":")
        if not host or not port.isdigit():
            raise WatchkeeperError(f"--listen {listen}: say HOST:PORT, such as 127.0.0.1:9836")
        name = node or socket.gethostname()
        try:
            asyncio.run(
                run_probe(host=host, port=int(port), node=name, kernel_log=kernel_log, export_gpus=gpus, every_s=every)
            )
        except OSError as error:
            raise WatchkeeperError(f"cannot listen on {listen}: {error.strerror}") from error
