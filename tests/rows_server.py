"""An HTTP or HTTPS server on 127.0.0.1 that answers lists of rows by path, as PagerDuty's REST API does."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trustme
from aiohttp import web

Rows = Mapping[str, Sequence[Mapping[str, Any]] | int]
"""The last word of a path -> its rows, or a status to refuse with."""


@asynccontextmanager
async def rows_served(rows: Rows, folder: Path) -> AsyncIterator[str]:
    """Yields the https address; whoever trusts `folder`/ca.pem (SSL_CERT_FILE) may talk to it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def answer(request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2]
        found = rows.get(name, [])
        if isinstance(found, int):
            return web.json_response({"error": {"message": "refused", "code": 2010}}, status=found)
        return web.json_response({name: list(found), "more": False})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
