"""What every request passes: the API key, whether the server still takes requests, headers, and the count."""

from __future__ import annotations

import hmac
import time

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from purelm.serving.errors import ApiError, stopping
from purelm.serving.served import Served

# 'self' alone: the page has no outside resource, and nothing inline.
_HEADERS = ((b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
             b"form-action 'self'"), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_OTHER = "other"


class Guard:
    """ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp, served: Served, routes: frozenset[str]):
        self._app, self._served, self._routes = app, served, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, done = time.perf_counter(), 499, False

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                response = JSONResponse(refusal.body(), refusal.status, headers=refusal.headers)
                await response(scope, receive, watched)
            else:
                await self._app(scope, receive, watched)
            done = True
        finally:
            status = status if done else 500
            # Only routes that there are: clients must not make names of metrics.
            route = scope["path"] if scope["path"] in self._routes else _OTHER
            self._served.metrics.requests.labels(route, status).inc()
            self._served.metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> ApiError | None:
        if not scope["path"].startswith("/v1/") or scope["method"] == "OPTIONS":
            return None
        if not self._has_key(scope):
            return ApiError(401, "the API key is missing or wrong; give it as Authorization: Bearer KEY",
                            code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return stopping() if self._served.stopping and scope["method"] == "POST" else None

    def _has_key(self, scope: Scope) -> bool:
        if self._served.api_key is None:
            return True
        given = b",".join(value for name, value in scope["headers"] if name == b"authorization")
        kind, _, key = given.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._served.api_key.encode())
