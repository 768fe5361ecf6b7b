"""GET /health and /metrics."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from purelm.serving.served import Served


async def health(request: Request) -> Response:
    """200 while requests are answered, 503 while the server stops or where its engine broke."""
    served: Served = request.app.state.served
    alive = served.engine is None or served.engine.alive
    status = "stopping" if served.stopping else "ok" if alive else "broken"
    numbers = {}
    if served.engine is not None:
        now = served.engine.stats()
        numbers = {"running": now.running, "waiting": now.waiting}
    return JSONResponse({"status": status, "model": served.name, **numbers}, 200 if status == "ok" else 503)


async def metrics(request: Request) -> Response:
    """For Prometheus."""
    return Response(request.app.state.served.metrics.text(), media_type=CONTENT_TYPE_LATEST)
