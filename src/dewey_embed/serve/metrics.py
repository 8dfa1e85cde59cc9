"""Figures of a running server, in Prometheus' format: all counters and histograms stand here."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REGISTRY = CollectorRegistry()
"""The server's own registry: nothing of other libraries is shown."""

METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})
"""Any other would be a label without end."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Bounds of histograms of time: from a short query to a document of 128K tokens on a CPU."""

REQUESTS = Counter(
    "dewey_requests", "Requests answered.", ("method", "path", "status"), registry=REGISTRY
)
REQUEST_SECONDS = Histogram(
    "dewey_request_seconds",
    "Seconds from a request to its answer.",
    ("path",),
    buckets=SECONDS,
    registry=REGISTRY,
)
TEXTS = Counter("dewey_texts", "Texts that were encoded.", registry=REGISTRY)
TOKENS = Counter("dewey_tokens", "Tokens of these texts.", registry=REGISTRY)
ProcessCollector(registry=REGISTRY)


def exposition() -> tuple[bytes, str]:
    """All figures as Prometheus reads them, and the content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST


class CountRequests:
    """Middleware that counts requests, and the time that each takes, by its endpoint's path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 499  # of a client that was gone before there was an answer

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting_status)
        finally:
            path = _path_of_endpoint(scope)
            method = scope["method"] if scope["method"] in METHODS else "other"
            REQUESTS.labels(method, path, status).inc()
            REQUEST_SECONDS.labels(path).observe(time.perf_counter() - started)


def _path_of_endpoint(scope: Scope) -> str:
    """The path as it stands in the table of endpoints: any other would be a label without end."""
    route: Any = scope.get("route")
    return getattr(route, "path", None) or "other"
