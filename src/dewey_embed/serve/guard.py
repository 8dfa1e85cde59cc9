"""Who may ask, and how much: checked before an endpoint sees a request.

`Host` and `Origin` are checked even on loopback, where a page of a foreign site can reach a server
by a name that leads to 127.0.0.1 (DNS rebinding). An address in `Host` is never such a name.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import time

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dewey_embed.serve.errors import ApiError, answer
from dewey_embed.serve.settings import ServeSettings

access = logging.getLogger("dewey_embed.serve.access")

OPEN = re.compile(
    r"/(health|page/[\w-]+\.(js|css|svg)|docs|openapi\.json|static-offline-docs/[\w.-]+)?"
)
"""Paths that may be read without a key: the page asks for one before it sends a text."""

OWN_NAMES = ("localhost",)

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""Headers of every answer that has none of its own."""


class Guard:
    """The checks of a request, around an application."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        self.keys = [key.encode() for key in settings.keys]
        self.names = {*OWN_NAMES, settings.host.lower(), *(each.lower() for each in settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        line = _AccessLine(scope, send)
        request = Request(scope, receive)
        try:
            self._require_host(request.headers)
            self._require_origin(request.headers)
            if not (scope["method"] in ("GET", "HEAD") and OPEN.fullmatch(scope["path"])):
                self._require_key(request.headers)
            self._require_size(request.headers)
        except ApiError as error:
            await answer(request, error)(scope, receive, line.send)
        else:
            await self.app(scope, self._limited(receive), line.send)
        finally:
            line.write()

    def _require_host(self, headers: Headers) -> None:
        """Refuse names that are not this server's.

        Raises:
            ApiError: with the name, and how to allow it.

        """
        host = _name(headers.get("host", ""))
        if host is None or not (host in self.names or _is_address(host)):
            raise ApiError(
                421,
                f"Host is {headers.get('host', '')[:100]!r}, which is not a name of this server; "
                "start it with --allow-host for a name of yours",
            )

    def _require_origin(self, headers: Headers) -> None:
        """Refuse requests that a page of another site sends.

        Raises:
            ApiError: with the origin.

        """
        origin = headers.get("origin")
        if origin is None:
            return
        scheme, _, place = origin.lower().partition("://")
        if scheme in ("http", "https") and (
            place == headers.get("host", "").lower() or _name(place) in self.settings.hosts
        ):
            return
        raise ApiError(
            403,
            f"Origin is {origin[:100]!r}, another site's; start the server with --allow-host "
            "for pages of that host",
        )

    def _require_key(self, headers: Headers) -> None:
        """Refuse requests without one of the keys; all keys are compared, in constant time.

        Raises:
            ApiError: the key is missing or not known; it is not repeated.

        """
        if not self.keys:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        given_bytes = given.strip().encode("utf-8", "surrogateescape")
        matches = [hmac.compare_digest(given_bytes, key) for key in self.keys]
        if kind.lower() != "bearer" or not any(matches):
            raise ApiError(
                401,
                "the key is missing or not known; send Authorization: Bearer KEY",
                kind="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _require_size(self, headers: Headers) -> None:
        """Refuse bodies that say that they are too large.

        Raises:
            ApiError: with both sizes.

        """
        length = headers.get("content-length", "")
        if length.isdigit() and int(length[:20]) > self._most_bytes:
            raise self._too_large(f"{int(length[:20]):,}")

    def _limited(self, receive: Receive) -> Receive:
        """What reads the body, up to the limit."""
        num_bytes = 0

        async def limited() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._most_bytes:
                raise self._too_large(f"more than {self._most_bytes:,}")
            return message

        return limited

    @property
    def _most_bytes(self) -> int:
        return self.settings.max_body_mb * 1_000_000

    def _too_large(self, size: str) -> ApiError:
        return ApiError(
            413,
            f"the body has {size} bytes, the limit is {self._most_bytes:,}; send it in parts, or "
            "start the server with a larger --max-body-mb",
        )


_HOST = re.compile(r"(?:\[([\w:.%]+)\]|([\w.-]+?)\.?)(?::\d+)?", re.ASCII)


def _name(host: str) -> str | None:
    """The name or address of `host[:port]`; `None` where it is neither."""
    found = _HOST.fullmatch(host.strip().lower())
    return None if found is None else found[1] or found[2]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class _AccessLine:
    """One line of the log for a request, without its texts, query or key."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._begun = time.perf_counter()
        self._status, self._bytes = 0, 0

    async def send(self, message: Message) -> None:
        """Send a message on, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            own = {name.lower() for name, _ in message.get("headers", ())}
            added = [
                (name.encode(), value.encode())
                for name, value in HEADERS.items()
                if name.encode() not in own
            ]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        self._bytes += len(message.get("body", b""))
        await self._send(message)

    def write(self) -> None:
        """Write the line."""
        client = self._scope.get("client") or ("-", 0)
        access.info(
            "method=%s path=%r status=%d ms=%.1f bytes=%d client=%s",
            self._scope["method"], self._scope["path"][:200], self._status,
            (time.perf_counter() - self._begun) * 1000, self._bytes, client[0],
        )  # fmt: skip
