"""Random requests to every endpoint of the server, within the process: answered or refused."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from concurrent.futures import Future
from typing import Any
from urllib.parse import quote

import anyio

from tests.fuzz.cases import Check, Draw
from tests.fuzz.engine import HANG_S
from tests.fuzz.folders import scratch

Answer = Future[tuple[int, bytes, str]]
Requests = asyncio.Queue[tuple[tuple[str, str, str, bytes, bytes], Answer]]
"""Each with the future that its answer, or what it raised, is put into."""

SEARCH = {"query": "rent", "k": 2, "mode": "hybrid", "filter": {"year": {">=": 2}}, "by": "passage"}
BODIES: dict[str, Any] = {
    "/v1/indexes/{name}/search": SEARCH,
    "/v1/indexes/{name}/documents": {"documents": [{"id": "a", "text": "rent", "title": "t"}]},
    "/v1/indexes/{name}/documents/delete": {"ids": ["lease"]},
    "/documents": {"text": "rent", "title": "t"},
    "/documents/{document_id}/ask": {"query": "rent"},
    "/mcp": {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}},
}
"""A good body of each endpoint that the tests of bodies do not have."""

NAMES = (
    "leases",
    "lease",
    "letters/1",
    "..",
    "../../etc/passwd",
    "%2e%2e",
    "a\0b",
    "é",
    "",
    "x" * 300,
)
QUERIES = ("", "limit=1", "limit=-1&after=a", "start=1&end=3", "start=x", "words=rent", "a=%ff")
HEADERS = (b"application/json", b"application/json; charset=x", b"text/plain", b"")


def http() -> Check:
    """Any request is answered by 2xx or 4xx, in time, and JSON is JSON."""
    from dewey_embed import Dewey, Document, Index
    from dewey_embed.serve.app import create_app
    from dewey_embed.serve.server import Server
    from dewey_embed.serve.settings import ServeSettings
    from tests.model.random_folders import make_folder
    from tests.serve.test_schema import EMBEDDING, random_body

    folder = scratch()
    make_folder(folder / "mean", 28)
    model = Dewey.load(folder / "mean", dtype="float32")
    index = Index.open(folder / "leases", model)
    texts = {"lease": "The tenant pays the rent.", "letters/1": "Ships carry timber."}
    index.add([Document(id=name, text=text) for name, text in texts.items()])
    settings = ServeSettings(max_inputs=32, read_only=True)
    app = create_app(Server(model, {"leases": index}, settings))
    loop = asyncio.new_event_loop()
    requests: Requests = asyncio.Queue()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    served = asyncio.run_coroutine_threadsafe(_serve(app, requests), loop)
    routes = [
        (method, path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ] + [("post", "/mcp"), ("get", "/documents/{document_id}"), ("get", "/indexes/{name}"),
         ("post", "/documents"), ("post", "/documents/{document_id}/ask"), ("post", "/files"),
         ("get", "/page/{name}"), ("post", "/")]  # fmt: skip
    posts = [route for route in routes if route[0] == "post"]
    bodies = EMBEDDING | BODIES

    def check(data: bytes) -> None:
        draw = Draw(data)
        choice = draw.number(255)
        among = routes if choice > 224 else posts
        method, template = among[choice % len(among)]
        name = NAMES[draw.number(len(NAMES) - 1) if choice > 192 else 0]
        path = template.replace("{name}", name).replace("{document_id}", name)
        query = QUERIES[draw.number(len(QUERIES) - 1)]
        media = HEADERS[max(draw.number(31) - 28, 0)]
        kind = draw.number(3)
        body = draw.rest()
        assert not served.done()
        if kind:
            seed = random.Random(body)
            body = random_body(bodies.get(template, {"a": 1}), seed)
        request = (method.upper(), path, query, media, body)
        waiting: Answer = Future()
        loop.call_soon_threadsafe(requests.put_nowait, (request, waiting))
        status, answer, media = waiting.result()
        assert 200 <= status < 500, (method, path, body, answer[:300])
        if media.startswith("application/json"):
            json.loads(answer)

    return check


async def _serve(app, requests: Requests) -> None:
    """Answer requests within one task, so that threads made for one serve the next, too."""
    async with app.router.lifespan_context(app):
        while True:
            request, waiting = await requests.get()
            try:
                with anyio.fail_after(HANG_S):
                    waiting.set_result(await _asked(app, *request))
            except Exception as error:
                waiting.set_exception(error)


async def _asked(app, method, path, query, media, body) -> tuple[int, bytes, str]:
    """The status, body and media type of the answer to a request."""
    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http"},
        **{"method": method, "path": path, "raw_path": quote(path, errors="replace").encode()},
        **{"query_string": query.encode(), "root_path": "", "client": ("127.0.0.1", 1)},
        **{"server": ("127.0.0.1", 80), "state": {}},
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", media)],
    }
    given = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if given:
            return given.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    gone.set()
    headers = dict(sent[0].get("headers", []))
    answer = b"".join(each.get("body", b"") for each in sent[1:])
    return sent[0]["status"], answer, headers.get(b"content-type", b"").decode("latin-1")
