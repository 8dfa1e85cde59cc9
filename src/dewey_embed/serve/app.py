"""The application: the table of its endpoints, and what stands around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.routing import Route

from dewey_embed.serve import (
    cohere,
    errors,
    indexes,
    metrics,
    openai,
    page,
    page_documents,
    spans,
    tei,
    voyage,
)
from dewey_embed.serve.guard import Guard
from dewey_embed.serve.mcp import McpEndpoint
from dewey_embed.serve.server import Server

ROUTERS: tuple[APIRouter, ...] = (
    openai.router,
    voyage.router,
    cohere.router,
    tei.router,
    spans.router,
    indexes.router,
    indexes.uploads,
    page_documents.router,
    page.router,
)
"""The endpoints of each API."""


def create_app(server: Server) -> FastAPI:
    """The application that serves a model and indexes."""
    agents = McpEndpoint(server.indexes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with agents.running():
            yield

    app: FastAPI = FastAPIOffline(
        title="Dewey",
        version=version("dewey-embed"),
        summary="Vectors of long documents and of their chunks from one pass; indexes of both.",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.server = server
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.router.routes.append(Route("/mcp", endpoint=agents))
    app.add_middleware(Guard, settings=server.settings)
    app.add_middleware(metrics.CountRequests)
    return app
