"""The page at / and its files."""

from __future__ import annotations

import importlib.resources
import pathlib

from starlette.requests import Request
from starlette.responses import Response

from purelm.serving.errors import ApiError

_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
          ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml", ".json": "application/json"}


async def index(request: Request) -> Response:
    """The page."""
    del request
    return _file("index.html")


async def static_file(request: Request) -> Response:
    """One of the page's files, by its bare name."""
    return _file(request.path_params["name"])


def _file(name: str) -> Response:
    folder = importlib.resources.files("purelm.serving") / "page"
    # Only names that the folder lists are read, so that no name leads out of it.
    known = {entry.name: entry for entry in folder.iterdir() if entry.is_file()} if folder.is_dir() else {}
    suffix = pathlib.PurePosixPath(name).suffix
    if name not in known or suffix not in _TYPES:
        raise ApiError(404, f"there is no file {name!r} of the page", code="unknown_url")
    return Response(known[name].read_bytes(), media_type=_TYPES[suffix], headers={"Cache-Control": "no-cache"})
