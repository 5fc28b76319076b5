"""Who calls: the secret that a request carries, the address it comes from, and whether another site made it."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from bot.store.operators import Credential

SECURE_COOKIE = "__Host-watchkeeper"
"""Browsers keep a name that begins like this only from HTTPS, for exactly this host (RFC 6265bis 4.1.3.2)."""

PLAIN_COOKIE = "watchkeeper"
"""On this machine alone, where people look at the page without TLS."""

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


def address_of(request: Request) -> str:
    """The network address, as uvicorn knows it: a proxy on this machine is believed about X-Forwarded-For."""
    return request.client.host if request.client else "unknown"


def is_for_this_machine(request: Request) -> bool:
    """Does the request name this very machine as the host it wants?"""
    return _host(request) in _LOOPBACK


def is_from_this_machine(request: Request) -> bool:
    """Made here, for here, and by no proxy that says so of itself."""
    is_direct = not any(name in request.headers for name in _FORWARDED)
    return is_direct and address_of(request) in _LOOPBACK and is_for_this_machine(request)


def bearer_of(request: Request) -> str:
    """The token of `Authorization: Bearer`, "" when there is none."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def session_of(request: Request) -> str:
    """The session's secret, "" when there is none; the plain name counts on this machine only."""
    plain = request.cookies.get(PLAIN_COOKIE, "") if is_for_this_machine(request) else ""
    return request.cookies.get(SECURE_COOKIE) or plain


def keep_session(response: Response, request: Request, secret: str, item: Credential, now: datetime) -> None:
    """Give the browser its session; JavaScript never sees it, and no other site can send it along."""
    secure = not _is_plain(request)
    response.set_cookie(
        SECURE_COOKIE if secure else PLAIN_COOKIE,
        secret,
        max_age=int((item.expires_at - now).total_seconds()),
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def drop_session(response: Response) -> None:
    """Make the browser forget it, under either name."""
    for name, secure in ((SECURE_COOKIE, True), (PLAIN_COOKIE, False)):
        response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="strict")


def csrf_of(session: str) -> str:
    """What forms carry beside the cookie; only who knows the session's secret can make it."""
    return hmac.new(session.encode("utf-8", "surrogatepass"), b"form", hashlib.sha256).hexdigest()


def is_csrf(session: str, value: str) -> bool:
    return hmac.compare_digest(csrf_of(session).encode(), value.encode("utf-8", "surrogatepass"))


def is_of_another_site(request: Request) -> bool:
    """Did a page of somebody else's make the browser send this? Browsers say so themselves."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and _netloc(origin) != request.headers.get("host", "")


def _is_plain(request: Request) -> bool:
    """Does the person's own browser speak plain HTTP to this machine? Behind a proxy only the Origin knows."""
    origin = request.headers.get("origin")
    if origin is None or origin == "null":
        return is_for_this_machine(request) and "x-forwarded-proto" not in request.headers
    try:
        url = urlsplit(origin)
    except ValueError:
        return False
    return url.scheme == "http" and url.hostname in _LOOPBACK


def _host(request: Request) -> str:
    try:
        return urlsplit("//" + request.headers.get("host", "")).hostname or ""
    except ValueError:
        return ""


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""
