"""The playground at `/`: files that are read once and go out as they are."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

from aiohttp import web

_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}

# Nothing but our own files runs, is shown or is asked, nothing else may frame the page, and a
# browser that knows trusted types refuses to make markup of any text, so also of a model's.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # a browser must not mix the modules of two versions
}


class PageFile(NamedTuple):
    """What is answered for one path."""

    content_type: str
    body: bytes


@functools.cache
def page_files() -> Mapping[str, PageFile]:
    """The files of the page by the paths that they are asked for at."""
    files = {}
    for file in (resources.files("tfllm.gateway") / "page").iterdir():
        suffix = file.name.rpartition(".")[2]
        path = "/" if file.name == "page.html" else f"/page/{file.name}"
        files[path] = PageFile(_TYPES[suffix], file.read_bytes())
    return files


def page_routes() -> list[web.RouteDef]:
    """The routes of the page, for the gateway's application."""
    return [web.get(path, _answer) for path in page_files()]


async def _answer(request: web.Request) -> web.Response:
    file = page_files()[request.path]
    return web.Response(
        body=file.body, content_type=file.content_type, charset="utf-8", headers=_HEADERS
    )
