"""
Values -> HTML for people. Everything that is shown is text: escaped, without characters that only programs see.

There is no script on these pages, and the policy of their headers would run none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, RedirectResponse, Response

from bot import narrate
from bot.redact import clean_text
from bot.slack.escape import is_web_address

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, forms would come from the origin "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

STYLE = files("bot.web").joinpath("static/style.css").read_bytes()
ICON = files("bot.web").joinpath("static/icon.svg").read_bytes()


class Renderer:
    """The templates, compiled once; a name that a page forgot to give is an error, never an empty place."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("bot.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "when": when,
            "seconds": narrate.seconds,
            "percent": narrate.percent,
            "how_sure": narrate.how_sure,
            "part": lambda text: quote(str(text), safe=""),
            "web_address": lambda url: url if is_web_address(url) else "",
        }
        self._templates.globals |= {"narrate": narrate}

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """One page; `values` are what its template names."""
        now = datetime.now(UTC)
        html = self._templates.get_template(template).render(now=now, **values)
        return HTMLResponse(html, status, headers=dict(HEADERS))


def when(at: datetime | None) -> str:
    """ "2026-11-22 14:03:05 UTC"; one clock for everybody, the one of the graphs."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if at else "not yet"


def elsewhere(path: str) -> Response:
    """Go on with a GET there."""
    return RedirectResponse(path, 303, headers=dict(HEADERS))


def asset(content: bytes, media_type: str) -> Response:
    """A file of ours; browsers ask again after an hour."""
    return Response(content, media_type=media_type, headers={**HEADERS, "Cache-Control": "max-age=3600"})


def _shown(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return clean_text(value)
    return "" if value is None else value
