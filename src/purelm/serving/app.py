"""The routes: OpenAI's protocol, what it has no name for, the page, and what watches the server."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from purelm.errors import UserError
from purelm.serving.attention import attention
from purelm.serving.chat import chat
from purelm.serving.completions import completions
from purelm.serving.errors import ApiError
from purelm.serving.guard import Guard
from purelm.serving.models_route import list_models, one_model
from purelm.serving.predict import predict
from purelm.serving.served import Served
from purelm.serving.static import index, static_file
from purelm.serving.watching import health, metrics


def make_app(served: Served) -> Starlette:
    """The application that serves one run; its engine is started already."""
    routes = [
        Route("/", index),
        Route("/static/{name}", static_file),
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/v1/models", list_models),
        Route("/v1/models/{id:path}", one_model),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/predict", predict, methods=["POST"]),
        Route("/v1/attention", attention, methods=["POST"]),
    ]
    middleware = []
    if served.cors_origin is not None:
        middleware.append(Middleware(CORSMiddleware, allow_origins=[served.cors_origin], allow_methods=["*"],
                                     allow_headers=["*"]))
    middleware.append(Middleware(Guard, served=served, routes=frozenset(route.path for route in routes)))
    app = Starlette(routes=routes, middleware=middleware, exception_handlers={
        ApiError: _api_error, UserError: _user_error, HTTPException: _http_error, Exception: _unknown_error})
    app.router.redirect_slashes = False  # To where the client's Host header says, and not as an error of the API.
    app.state.served = served
    return app


def error_response(error: ApiError) -> Response:
    return JSONResponse(error.body(), error.status, headers=error.headers)


def _api_error(_: Request, error: Any) -> Response:
    return error_response(error)


def _user_error(_: Request, error: Any) -> Response:
    return error_response(ApiError(400, str(error)))


def _http_error(request: Request, error: Any) -> Response:
    messages = {404: f"there is no {request.url.path}; see /v1/models for what can be asked",
                405: f"{request.method} {request.url.path}: another method is wanted"}
    message = messages[error.status_code] if error.status_code in messages else str(error.detail)
    return error_response(ApiError(error.status_code, message, code="unknown_url" if error.status_code == 404 else None,
                                   headers=dict(error.headers or {})))


def _unknown_error(_: Request, error: Exception) -> Response:
    """What the client sees; Starlette raises the error again, so that its traceback is in the log."""
    del error
    return error_response(ApiError(500, "the server made a mistake; its log says which"))
