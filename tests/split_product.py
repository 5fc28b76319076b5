"""
The product in several processes, started as if it were one: `python -m tests.split_product serve`.

`serve` becomes the doors without the credentials that change production, and two workers beside them; a worker that is
killed is started again. Other commands are passed on. Each process writes its pid beside the configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from bot.config import load_config

WORKERS = 2


async def serve() -> None:
    """Until SIGTERM."""
    environ = dict(os.environ)
    path = Path(environ["WATCHKEEPER_CONFIG"])
    powers = load_config(path).action_credentials()
    powerless = {name: value for name, value in environ.items() if name not in powers}
    portless = {name: value for name, value in environ.items() if name != "WATCHKEEPER_PORT"}
    tasks = [asyncio.create_task(_keep(path.parent / "doors.pid", powerless, "serve", "--no-work"))]
    tasks += [asyncio.create_task(_keep(path.parent / f"worker-{n}.pid", portless, "worker")) for n in range(WORKERS)]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _keep(pid: Path, environ: Mapping[str, str], *command: str) -> None:
    while True:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bot", *command, env=environ)
        await asyncio.to_thread(pid.write_text, str(process.pid))
        try:
            await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        os.execv(sys.executable, [sys.executable, "-m", "bot", *sys.argv[1:]])  # noqa: S606 - our own arguments
