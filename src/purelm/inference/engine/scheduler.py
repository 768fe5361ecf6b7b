"""Who runs next, on the host: no device, no clock of its own, and nobody is told anything from here.

First come, first served. Whoever is admitted holds a slot and all pages that it can need until it ends.
"""

from __future__ import annotations

import collections
from typing import NamedTuple, get_args

import numpy as np

from purelm.inference.decode_loop import window_start
from purelm.inference.engine.job import Job, has_ended
from purelm.inference.engine.limits import Limits
from purelm.inference.engine.pages import Chunk, Pages
from purelm.inference.engine.programs import NOT_FINITE, NOTHING
from purelm.inference.engine.request import Event, Finished, Reason, Request, Token, Tokens
from purelm.inference.engine.slots import Slots
from purelm.inference.engine.waiting import Ticket, Waiting
from purelm.inference.engine.windows import next_piece


class Prefill(NamedTuple):
    """A call of the prefill program: the job's tokens from `start` of its window on, [1, size], `count` of them real.
    draws: they are the last of the window, so that the next token can be drawn."""

    job: Job
    tokens_1T: np.ndarray
    start: int
    count: int
    draws: bool


class Scheduler:
    """What runs and waits. pages: None of a recurrent network.

    prefilling, decoding: jobs by what they need next. events: what is to be told, in order. counts, finished: as in
    Statistics.
    """

    def __init__(self, limits: Limits, waiting: Waiting, slots: Slots, pages: Pages | None, chunk: int) -> None:
        self.prefilling: collections.deque[Job] = collections.deque()
        self.decoding: list[Job] = []
        self.events: list[tuple[Ticket, Event]] = []
        self.counts = dict.fromkeys(("prompt_tokens", "reused_tokens", "generated_tokens"), 0)
        self.finished = dict.fromkeys(get_args(Reason), 0)
        self._limits = limits
        self._waiting = waiting
        self._slots = slots
        self._pages = pages
        self._chunk = chunk

    @property
    def running(self) -> list[Job]:
        """All jobs that have a slot."""
        return [*self.prefilling, *self.decoding]

    def end_unwanted(self, now: float) -> None:
        """Ends what was cancelled, what is late at `now` (time.monotonic()), and what nobody listens to."""

        def reason(ticket: Ticket) -> Reason | None:
            if ticket.cancelled or ticket.deaf:
                return "cancelled"
            return "deadline" if ticket.deadline is not None and now >= ticket.deadline else None

        for ticket in self._waiting.remove(lambda ticket: reason(ticket) is not None):
            self._finish(ticket, reason(ticket) or "cancelled")
        for job in self.running:
            why = reason(job.ticket)
            if why is not None:
                self.end(job, why)

    def end_all(self, reason: Reason) -> None:
        """Ends what runs and what waits."""
        for job in self.running:
            self.end(job, reason)
        for ticket in self._waiting.remove(lambda ticket: True):
            self._finish(ticket, reason)

    def admit(self) -> None:
        """Gives slots and pages to those that wait, in their order, while there are enough for the first of them."""
        while self._slots.any_free:
            ticket = self._waiting.first()
            if ticket is None:
                return
            request, lease = ticket.request, None
            if request.constraint is not None and has_ended(request, 0):
                self._finish(self._waiting.pop(), "stop")
                continue
            if self._pages is not None:
                prompt = request.prompt_ids
                text = np.array(prompt[window_start(len(prompt), self._limits.window):], np.int32)
                lease = self._pages.lease(self._limits.pages_of(request), self._shared_chunks(text),
                                          renewed=self._limits.slides(request))
                if lease is None:
                    return
            self._waiting.pop()
            self._seat(Job(ticket, self._slots.reserve(), lease), request)

    def next_prefill(self) -> Prefill | None:
        """The next chunk of the first job that needs one; it counts as read from now on."""
        if not self.prefilling:
            return None
        job = self.prefilling[0]
        text = self._slots.text(job)
        chunks = self._shared_chunks(text)
        if self._pages is not None:
            # What another has read since this one was admitted: a sibling, say, with the same prompt.
            self._count_reused(job, self._take(job, chunks))
        start = job.read
        piece = next_piece(start, len(text), self._chunk)
        tokens_1T = np.zeros((1, piece.size), np.int32)
        tokens_1T[0, :piece.count] = text[start:start + piece.count]
        if self._pages is not None and piece.count == self._chunk:
            self._pages.keep(job.lease, start // self._chunk, tuple(tokens_1T[0].tolist()))
        job.read += piece.count
        draws = job.read == len(text)
        if draws:
            self.decoding.append(self.prefilling.popleft())
        return Prefill(job, tokens_1T, start, piece.count, draws)

    def accept(self, job: Job, tokens: list[Token]) -> None:
        """Adds drawn tokens to a job, up to its end; their ids may be NOTHING or NOT_FINITE."""
        ticket, accepted, reason = job.ticket, [], None
        if ticket.finished or ticket.cancelled or ticket.deaf:
            return
        for token in tokens:
            if token.id == NOTHING or reason is not None:
                break
            if token.id == NOT_FINITE:
                reason = "error"
                break
            self._slots.append(job, token.id)
            accepted.append(token)
            reason = job.accept(token.id)
        if accepted:
            self.counts["generated_tokens"] += len(accepted)
            self.events.append((ticket, Tokens(tuple(accepted))))
        if reason is not None:
            self.end(job, reason)
        elif accepted and self._slots.turn(job):
            self._begin_window(job)

    def end(self, job: Job, reason: Reason) -> None:
        """Frees what the job holds."""
        if job in self.decoding:
            self.decoding.remove(job)
        else:
            self.prefilling.remove(job)
        self._slots.leave(job)
        if self._pages is not None:
            self._pages.end(job.lease)
        self._finish(job.ticket, reason, job.cached_tokens)

    def _finish(self, ticket: Ticket, reason: Reason, cached_tokens: int = 0) -> None:
        ticket.finished = True
        self.finished[reason] += 1
        self.events.append((ticket, Finished(reason, cached_tokens)))

    def _seat(self, job: Job, request: Request) -> None:
        self._slots.sit(job)
        self.counts["prompt_tokens"] += len(request.prompt_ids)
        if self._pages is not None:
            self._begin_reading(job)
        self.prefilling.append(job)

    def _begin_window(self, job: Job) -> None:
        """Sends a job whose window is full back to be read from its next window's start, before those that came later.
        """
        job.read = 0
        if self._pages is not None:
            self._pages.renew(job.lease, self._shared_chunks(self._slots.text(job)))
            self._begin_reading(job)
        self.decoding.remove(job)
        self.prefilling.appendleft(job)

    def _begin_reading(self, job: Job) -> None:
        """After a new lease: what its path holds is read already."""
        job.read = len(job.lease.path) * self._chunk
        self._count_reused(job, job.read)
        self._slots.set_pages(job)

    def _take(self, job: Job, chunks: list[Chunk]) -> int:
        """Takes known pages for the job's next chunks; how many tokens that spares."""
        before = job.read
        while job.read < len(chunks) * self._chunk and job.read % self._chunk == 0:
            number = job.read // self._chunk
            if not self._pages.take(job.lease, number, chunks[number]):
                break
            job.read += self._chunk
        if job.read > before:
            self._slots.set_pages(job)
        return job.read - before

    def _count_reused(self, job: Job, tokens: int) -> None:
        self.counts["reused_tokens"] += tokens
        if not job.generated:
            job.cached_tokens += tokens

    def _shared_chunks(self, text: np.ndarray) -> list[Chunk]:
        """The whole chunks of a window that others may have read; its last token is always its own to read."""
        chunk = self._chunk
        return [tuple(text[number * chunk:(number + 1) * chunk].tolist()) for number in range((len(text) - 1) // chunk)]
