"""One HTTP request's answers, whole or streamed; both are made of the same pieces."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from purelm.inference.engine.request import Finished
from purelm.serving.asked import Asked, requests_of
from purelm.serving.errors import ApiError
from purelm.serving.event_stream import DONE, EventStream, event, run_unless_gone
from purelm.serving.generation import Generation, check_reason
from purelm.serving.served import Served
from purelm.serving.writer import Piece, Shown, Writer

# Reasons of the engine that are an answer; the others are errors.
_REASONS = ("stop", "length")


class Form(Protocol):
    """How a route writes a choice. `shown` is None where it has no log-probabilities."""

    prefix: str  # of the answer's id
    whole_object: str
    part_object: str
    strip: bool  # white space at the ends of an answer is left out

    def opening(self, index: int) -> dict[str, Any] | None:
        """A choice of the first chunk, before anything is written; None for none."""

    def whole(self, index: int, text: str, shown: Sequence[Shown] | None, reason: str) -> dict[str, Any]:
        """A choice that is finished."""

    def part(self, index: int, text: str, shown: Sequence[Shown] | None, reason: str | None) -> dict[str, Any]:
        """A choice of a chunk."""


async def answer(request: Request, asked: Asked, prompts: Sequence[tuple[int, ...]], form: Form) -> Response:
    """Asks the engine, and answers as `form` says.

    Raises ApiError where the engine takes no more or an answer is not finished, UserError for what can never run.
    """
    served: Served = request.app.state.served
    answers = _Answers(served, asked, prompts, form)
    if asked.stream:
        return EventStream(answers.stream(), close=answers.cancel, patience=served.limits.seconds)
    try:
        content = await run_unless_gone(answers.whole(), request.receive)
    finally:
        answers.cancel()
    return Response(status_code=499) if content is None else JSONResponse(content)


class _Answers:
    def __init__(self, served: Served, asked: Asked, prompts: Sequence[tuple[int, ...]], form: Form):
        self._served, self._asked, self._prompts, self._form = served, asked, prompts, form
        tokenizer = served.run.tokenizer
        self._writers = [
            Writer(served.automata.token_bytes, separator=tokenizer.separator, stop_id=served.stop_ids,
                   stops=asked.stops, strip=form.strip) for _ in range(len(prompts) * asked.n)]
        self._head = {"id": form.prefix + secrets.token_hex(12), "created": int(time.time()), "model": served.name,
                      "system_fingerprint": served.fingerprint}
        self._watch = served.metrics.watch()
        self._generation = Generation(served, requests_of(served, asked, prompts))

    async def whole(self) -> dict[str, Any]:
        """The response's body."""
        texts = [""] * len(self._writers)
        shown: list[list[Shown]] = [[] for _ in self._writers]
        reasons = [""] * len(self._writers)
        async for index, found in self._generation.events():
            piece = self._piece(index, found)
            texts[index] += piece.text
            shown[index] += piece.shown
            if piece.reason is not None:
                check_reason(piece.reason)
                reasons[index] = piece.reason
        asked = self._asked.alternatives is not None
        choices = [{**self._form.whole(index, texts[index], shown[index] if asked else None, reasons[index]),
                    **self._extra(index)} for index in range(len(self._writers))]
        return {**self._head, "object": self._form.whole_object, "choices": choices, "usage": self._usage(),
                "purelm": {"seed": self._asked.seed}}

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Events; an error after the first is an event too, after a last chunk for each answer that it cut off."""
        opening = [self._form.opening(index) for index in range(len(self._writers))]
        for choice in opening:
            if choice is not None:
                yield self._chunk(choice)
        unfinished = dict.fromkeys(range(len(self._writers)))
        try:
            async for index, found in self._generation.events():
                piece = self._piece(index, found)
                if piece.reason is not None:
                    check_reason(piece.reason)
                    del unfinished[index]
                if piece.text or piece.shown or piece.reason is not None:
                    yield self._part(index, piece)
        except ApiError as error:
            for index in unfinished:
                yield self._part(index, Piece("", (), "length"))
            yield event(error.body())
        else:
            if self._asked.include_usage:
                yield event({**self._chunk_head(), "choices": [], "usage": self._usage()})
        yield DONE

    def cancel(self) -> None:
        """Ends what still runs; to be called at the end."""
        self._generation.cancel()

    def _piece(self, index: int, found: Any) -> Piece:
        self._watch.event(index, found)
        piece = self._writers[index].take(found)
        if isinstance(found, Finished) and found.reason not in _REASONS:
            return piece._replace(text="", shown=())
        return piece if self._asked.alternatives is not None else piece._replace(shown=())

    def _part(self, index: int, piece: Piece) -> bytes:
        choice = self._form.part(index, piece.text, piece.shown or None, piece.reason)
        if piece.reason is None:
            return self._chunk(choice)
        return self._chunk({**choice, **self._extra(index)}, purelm={"seed": self._asked.seed})

    def _chunk_head(self) -> dict[str, Any]:
        return {**self._head, "object": self._form.part_object}

    def _chunk(self, choice: dict[str, Any], **extra: Any) -> bytes:
        usage = {"usage": None} if self._asked.include_usage else {}
        return event({**self._chunk_head(), "choices": [choice], **usage, **extra})

    def _extra(self, index: int) -> dict[str, Any]:
        if not self._asked.return_token_ids:
            return {}
        return {"purelm": {"token_ids": self._writers[index].ids,
                           "prompt_token_ids": list(self._prompts[index // self._asked.n])}}

    def _usage(self) -> dict[str, Any]:
        """Each prompt counts once; of several answers to one prompt, the first one's share of it was computed."""
        prompt = sum(map(len, self._prompts))
        written = sum(len(writer.ids) for writer in self._writers)
        cached = sum(writer.cached_tokens for writer in self._writers[::self._asked.n])
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written,
                "prompt_tokens_details": {"cached_tokens": cached}}
