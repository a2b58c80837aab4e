"""What stands before every request: whose page it comes from, who asks, and how much is sent."""

from __future__ import annotations

import json
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenuto.web.login import COOKIE, Login

LARGEST = 5 << 20
"""Bytes of a request's body."""
LOCAL = {"localhost", "127.0.0.1", "::1"}
MARK = "x-tenuto"
"""A header that the page's own script sends; other sites' pages cannot without being asked first."""
STATIC, LOGIN = "/static/", "/login"
"""Reached without a login."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "SAMEORIGIN",
}
POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
)


class Guard:
    """Refuses before any view is asked."""

    def __init__(self, app: ASGIApp, *, login: Login | None, local: bool) -> None:
        """local: the server listens on loopback alone, so every other host name is a trick (DNS rebinding)."""
        self.app, self.login, self.local = app, login, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if refusal := self._refusal(scope, headers):
            await _answer(send, *refusal)
            return
        if self.login is not None and not self._open(scope["path"]) and not self._known(headers):
            await self._ask_for_login(scope, send)
            return
        bounded = _Bounded(receive)

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    own.setdefault(name, value)
                own.setdefault("Content-Security-Policy", POLICY)
                own.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self.app(scope, bounded, dressed)
        except TooMuch:
            await _answer(send, 413, f"larger than {LARGEST:,} bytes")

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self.local and _name(host) not in LOCAL:
            return 421, "this page is reached as localhost or 127.0.0.1"
        if scope["method"] in ("GET", "HEAD"):
            return None
        if scope["method"] != "POST":
            return 405, "only GET and POST"
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if site != "same-origin" or (origin is not None and _netloc(origin) != host):
            return 403, "a request from another site"
        if headers.get(MARK) is None or not headers.get("content-type", "").startswith("application/json"):
            return 403, "not a request of this page"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > LARGEST:
            return 413, f"larger than {LARGEST:,} bytes"
        return None

    def _open(self, path: str) -> bool:
        return path == LOGIN or path.startswith(STATIC)

    def _known(self, headers: Headers) -> bool:
        assert self.login is not None
        token = token_of(headers.get("cookie", ""))
        return bool(token) and self.login.knows(token)

    async def _ask_for_login(self, scope: Scope, send: Send) -> None:
        wants_page = scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", "")
        if not wants_page:
            await _answer(send, 401, "log in first")
            return
        target = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
        location = f"{LOGIN}?next={quote(target)}".encode("latin-1")
        await send({"type": "http.response.start", "status": 303, "headers": [(b"location", location)]})
        await send({"type": "http.response.body", "body": b""})


class TooMuch(Exception):
    """A body that is larger than it said."""


class _Bounded:
    """The body, counted while it comes."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._seen = receive, 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > LARGEST:
            raise TooMuch
        return message


def _name(host: str) -> str | None:
    """The host without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def token_of(cookies: str) -> str:
    try:
        own = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return ""
    return own.value if own else ""


async def _answer(send: Send, status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
