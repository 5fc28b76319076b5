"""A headless Chromium that a test can look into, through its own debugging protocol over a WebSocket."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.needs import need_program

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")


class Tab:
    """One page in the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._calls = 0
        self.console: list[str] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": params})
        async for message in self._socket:
            body: dict[str, Any] = json.loads(message.data)
            if body.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}:
                self.console.append(json.dumps(body["params"]))
            if body.get("id") == self._calls:
                assert "error" not in body, body["error"]
                result: dict[str, Any] = body["result"]
                return result
        raise AssertionError("the browser hung up")

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        async with asyncio.timeout(15):
            while not await self.run(f"Boolean({condition})"):
                await asyncio.sleep(0.05)

    async def picture(self, path: Path) -> None:
        """A screenshot of what is visible."""
        shot = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))


@asynccontextmanager
async def browser_tab(url: str, folder: Path, *, width: int = 1440, height: int = 1200) -> AsyncIterator[Tab]:
    """Open a page; the profile lives in `folder`. Skips the test when there is no Chromium."""
    chromium = need_program("chromium", "apt-get install chromium")
    profile = folder / "chromium"
    process = await asyncio.create_subprocess_exec(
        chromium,
        *_FLAGS,
        f"--window-size={width},{height}",
        f"--user-data-dir={profile}",
        "--remote-debugging-port=0",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _debugging_port(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                page = next(target for target in await answer.json() if target["type"] == "page")
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Runtime", "Log"):
                    await tab.call(f"{domain}.enable")
                await tab.call("Emulation.setDeviceMetricsOverride", **_metrics(width, height))
                await tab.call("Page.navigate", url=url)
                yield tab
    finally:
        process.kill()
        await process.wait()


def _metrics(width: int, height: int) -> dict[str, Any]:
    return {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}


async def _debugging_port(file: Path) -> int:
    async with asyncio.timeout(20):
        while True:
            text = await asyncio.to_thread(_text_of, file)
            if "\n" in text:
                return int(text.splitlines()[0])
            await asyncio.sleep(0.05)


def _text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""
