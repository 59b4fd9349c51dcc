"""The playground: one page with its style and script, which load nothing from elsewhere."""

from importlib.resources import files
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

_FILES: Final = {
    "/": ("playground.html", "text/html"),
    "/playground.css": ("playground.css", "text/css"),
    "/playground.js": ("playground.js", "text/javascript"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add(app: FastAPI) -> None:
    """Add the page to an application."""
    for path, (name, kind) in _FILES.items():
        _add(app, path, files(__name__).joinpath(name).read_bytes(), kind)


def _add(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    async def send(client: Request) -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    app.add_route(path, send, include_in_schema=False)
