"""A server for the page's tests that says exactly what a test wants, in OpenAI's shapes, with the page's own files.

What is asked decides what is answered: the last word of the last message or prompt names one of ANSWERS below."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from purelm.serving.server import address, listen
from purelm.serving.static import index, static_file

XSS = ["<script>", "window.hacked = 1", "</script>", "<img src=x onerror=", "'window.hacked = 1'", ">"]
POEM = ["The", " moon", " is", " a", " lantern", ",", "\n", "hung", " over", " the", " quiet", " sea", "."]
# Words by the last word of what is asked; the others are written by `_write`.
ANSWERS = {"xss": XSS, "long": [" word", " after", " word", "\n"] * 1500, "characters": list("数字一二三") * 1200}
MODEL = {"id": "stand-in", "object": "model", "created": 0, "owned_by": "purelm", "purelm": {
    "task": "language_modeling", "architecture": "decoder", "context_length": 64, "vocabulary_size": 300,
    "parameters": 1234567, "can": ["completions", "chat", "predict", "attention"], "labels": None, "step": 100}}
TAGGED = {"index": 0, "tokens": ["Ada", "Lovelace", "lived", "in", "London", "."],
          "tags": ["B-person", "I-person", "O", "O", "B-location", "O"],
          "entities": [{"type": "person", "text": "Ada Lovelace", "start": 0, "end": 2},
                       {"type": "location", "text": "London", "start": 4, "end": 5}],
          "probabilities": [0.97, 0.93, 0.99, 0.99, 0.81, 0.99]}
LABELS = {"index": 0, "label": "card_arrival", "probability": 0.71,
          "probabilities": {"card_arrival": 0.71, "card_linking": 0.2, "card_delivery_estimate": 0.05}}


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}},
                        status)


def _logprob(position: int) -> float:
    return math.log([0.97, 0.6, 0.3, 0.11, 0.02][position % 5])


def alternatives(word: str, position: int) -> list[tuple[str, float]]:
    """The word and four others, as the stand-in claims them."""
    return [(word, _logprob(position)), *((f" other{k}", _logprob(position) - 0.3 * (k + 1)) for k in range(4))]


def _chat_choice(index: int, word: str, position: int) -> dict[str, Any]:
    def one(name: str, value: float) -> dict[str, Any]:
        return {"token": name, "logprob": value, "bytes": list(name.encode())}
    content = {**one(word, _logprob(position)), "top_logprobs": [one(*pair) for pair in alternatives(word, position)]}
    return {"index": index, "delta": {"content": word}, "finish_reason": None, "logprobs": {"content": [content]}}


def _completion_choice(index: int, word: str, position: int) -> dict[str, Any]:
    return {"index": index, "text": word, "finish_reason": None, "logprobs": {
        "tokens": [word], "token_logprobs": [_logprob(position)], "top_logprobs": [dict(alternatives(word, position))],
        "text_offset": [0]}}


async def _write(asked: str, body: dict[str, Any], chat: bool) -> AsyncIterator[str]:
    """The stream: `slow` never ends, `broken` ends without [DONE], `wrong` ends with an error."""
    choice = _chat_choice if chat else _completion_choice
    words = ANSWERS.get(asked, POEM)
    if asked == "slow":
        words = [" again"] * 100_000
    if asked == "seeded":
        words = [f" {(body['seed'] * 7 + k) % 101}" for k in range(8)]
    for position, word in enumerate(words[:6] if asked in ("broken", "wrong") else words):
        choices = [choice(k, word, position + k) for k in range(body.get("n", 1))]
        yield f"data: {json.dumps({'choices': choices})}\n\n"
        if asked not in ANSWERS or asked == "xss":
            await asyncio.sleep(0.01)
    if asked == "broken":
        return
    if asked == "wrong":
        yield f"data: {json.dumps({'error': {'message': 'the logits were not finite'}})}\n\n"
        return
    last = {"index": 0, "finish_reason": "stop", **({"delta": {}} if chat else {"text": ""})}
    yield f"data: {json.dumps({'choices': [last]})}\n\n"
    given = len(str(body["prompt"]).split()) if "prompt" in body else 9
    usage = {"prompt_tokens": given, "completion_tokens": len(words), "total_tokens": given + len(words)}
    yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"
    yield "data: [DONE]\n\n"


def make_stand_in(model: dict[str, Any] = MODEL, *, key: str | None = None) -> Starlette:
    """The application; `bodies` of its state are the requests it got, `gone` how many streams were left early."""
    async def models(request: Request) -> Response:
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            return _error(401, "wrong API key")
        return JSONResponse({"object": "list", "data": [model]})

    async def answer(request: Request) -> Response:
        body = await request.json()
        app.state.bodies.append(body)
        chat = request.url.path.endswith("chat/completions")
        said = body["messages"][-1]["content"] if chat else body["prompt"]
        asked = said.split()[-1]
        if asked == "refused":
            return _error(400, "temperature: 9 is more than 2")

        async def stream() -> AsyncIterator[str]:
            ended = False
            try:
                async for event in _write(asked, body, chat):
                    yield event
                ended = True
            finally:
                app.state.gone += not ended
        return StreamingResponse(stream(), media_type="text/event-stream")

    async def predict(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [TAGGED if "London" in (await request.json())["input"]
                                                        else LABELS]})

    async def attention(request: Request) -> Response:
        body = await request.json()
        app.state.bodies.append(body)
        tokens = body["text"].replace(" ", "| ").split("|")
        if len(tokens) > model["purelm"]["context_length"]:
            return _error(400, f"{len(tokens)} tokens are more than 64")
        weights = [[round((1 + (k == q // 2) * 5) / (q + 6), 4) if k <= q else 0 for k in range(len(tokens))]
                   for q in range(len(tokens))]
        return JSONResponse({"tokens": tokens, "layers": 3, "heads": 2, "weights": weights})

    app = Starlette(routes=[
        Route("/", index), Route("/static/{name}", static_file), Route("/v1/models", models),
        Route("/v1/chat/completions", answer, methods=["POST"]), Route("/v1/completions", answer, methods=["POST"]),
        Route("/v1/predict", predict, methods=["POST"]), Route("/v1/attention", attention, methods=["POST"])])

    app.state.bodies, app.state.gone = [], 0
    return app


class _Strict:
    """The strictest policy under which the page must work."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def strict(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", b"default-src 'self'")]
            await send(message)
        await self.app(scope, receive, strict)


@contextlib.contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """The address of a server of the application in a thread, stopped at the end."""
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(_Strict(app), log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield address(listening)
    finally:
        server.should_exit = True
        thread.join()
