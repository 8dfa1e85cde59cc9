"""The page for people at `/`: its files, as they lie in the package, under a strict policy."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import Response

from dewey_embed.serve.errors import ApiError

router = APIRouter(include_in_schema=False)

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
"""Scripts and styles come from this server alone, and none stands in a page or an attribute."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",
}


@router.get("/")
def page() -> Response:
    """The page."""
    return asset("index.html")


@router.get("/page/{name}")
def asset(name: str) -> Response:
    """A file of the page.

    Raises:
        ApiError: there is none of this name.

    """
    found = {
        each.name: each for each in files(__package__).joinpath("page").iterdir() if each.is_file()
    }
    extension = name[name.rfind(".") :]
    if name not in found or extension not in MEDIA_TYPES:
        raise ApiError(404, "the page has no such file")
    return Response(found[name].read_bytes(), headers=HEADERS, media_type=MEDIA_TYPES[extension])
