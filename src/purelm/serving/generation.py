"""From the engine's thread to the server's loop: the events of the requests that one HTTP request made."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Sequence
from typing import Any

from purelm.inference.engine.request import Busy, Event, Finished, Request, Tokens
from purelm.serving.errors import ApiError, busy, stopping
from purelm.serving.served import Served


class Generation:
    """Submitted requests, whose events come out of `events` in the order in which the engine gave them.

    Made on the loop. `cancel` ends what still runs; it must be called whatever happens.
    """

    def __init__(self, served: Served, requests: Sequence[Request]):
        """Submits all requests, or none.

        Raises ApiError 429 where the queue is full and 503 where the server stops, and UserError for a request that
        can never run.
        """
        self._served, self._loop = served, asyncio.get_running_loop()
        self._events: collections.deque[tuple[int, Event]] = collections.deque()
        self._arrived, self._buffered, self._overflowed = asyncio.Event(), 0, False
        self._tickets: dict[int, Any] = {}
        try:
            for number, request in enumerate(requests):
                self._tickets[number] = self._submit(number, request)
        except BaseException:
            self.cancel()
            raise

    def _submit(self, number: int, request: Request) -> Any:
        def on_event(event: Event) -> None:  # On the engine's thread.
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._take, number, event)

        if self._served.stopping:
            raise stopping()
        try:
            return self._served.engine.submit(request, on_event)
        except Busy as error:
            raise stopping() if self._served.stopping else busy("too many requests are waiting") from error

    def _take(self, number: int, event: Event) -> None:
        if self._overflowed:
            return
        if isinstance(event, Finished):
            self._tickets.pop(number, None)
        elif self._buffered > self._served.limits.buffered_tokens:
            self._overflowed = True
            self.cancel()
            return
        else:
            self._buffered += len(event.tokens)
        self._events.append((number, event))
        self._arrived.set()

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """(number of the request, event), to the last request's Finished.

        Raises ApiError 408 where more was written than may wait to be read.
        """
        while True:
            await self._arrived.wait()
            while self._events:
                number, event = self._events.popleft()
                if isinstance(event, Tokens):
                    self._buffered -= len(event.tokens)
                yield number, event
            self._arrived.clear()
            if self._overflowed:
                raise ApiError(408, "the answer was not read as fast as it was written; its request was ended",
                               code="slow_reader")
            if not self._tickets and not self._events:
                return

    def cancel(self) -> None:
        """Ends what still runs, so that its slot is free for others."""
        for ticket in self._tickets.values():
            self._served.engine.cancel(ticket)
        self._tickets.clear()


def check_reason(reason: str) -> None:
    """Raises the ApiError of an answer that was not written to its end."""
    if reason == "deadline":
        raise ApiError(504, "the answer was not finished within the time that a request may take", code="deadline")
    if reason == "shutdown":
        raise stopping()
    if reason == "error":
        raise ApiError(500, "the model's logits are not finite: its parameters are damaged, or its training diverged",
                       code="not_finite")
    if reason == "cancelled":
        raise ApiError(500, "the request was cancelled", code="cancelled")
