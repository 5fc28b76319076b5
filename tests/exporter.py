"""A tiny exporter on 127.0.0.1 whose answer a test sets, and which remembers who asked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Exporter:
    """`body` gives what `/metrics` says; `asked` counts questions by the first word of the User-Agent."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.url = f"http://{address}/metrics"
        self.status = 200
        self.headers: dict[str, str] = {"Content-Type": "text/plain; version=0.0.4"}
        self.body: Callable[[], bytes] = lambda: b""
        self.asked: Counter[str] = Counter()

    def says(self, *lines: str) -> None:
        """Answer with these lines from now on."""
        self.body = lambda: "".join(f"{line}\n" for line in lines).encode()


@contextmanager
def start_exporter() -> Iterator[Exporter]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            exporter.asked[self.headers.get("User-Agent", "").split("/")[0]] += 1
            body = exporter.body()
            self.send_response(exporter.status)
            for name, value in exporter.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
            """Tests read results, not access logs."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    exporter = Exporter(f"127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield exporter
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
