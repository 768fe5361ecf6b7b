"""Continuous batching: requests come and go at any time, and each gets what it would get alone, bit for bit.

Orca's iteration-level scheduling (Yu et al. 2022, OSDI) over vLLM's pages (Kwon et al. 2023, arXiv 2309.06180), with
prompts in chunks between decode steps (Agrawal et al. 2023, SARATHI, arXiv 2308.16369) and reuse of known beginnings.
Alone or in a crowd, a request runs through the same programs, of shapes that never change, in calls that its own text
decides; what a row computes does not depend on the others; and whoever is admitted has all pages that it can need, so
that nobody is put off or computed again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from purelm.config import ModelConfig
from purelm.inference.engine import programs
from purelm.inference.engine.job import Job
from purelm.inference.engine.limits import check_request, make_limits
from purelm.inference.engine.pace import Pace
from purelm.inference.engine.pages import Pages
from purelm.inference.engine.programs import Drawn, Plan
from purelm.inference.engine.request import Event, Reason, Request, Token
from purelm.inference.engine.rows import Rows
from purelm.inference.engine.scheduler import Scheduler
from purelm.inference.engine.slots import Slots
from purelm.inference.engine.statistics import Statistics
from purelm.inference.engine.waiting import Ticket, Waiting
from purelm.inference.engine.windows import sizes
from purelm.models import unstack_layers

__all__ = ["Engine", "Ticket"]

_LOG = logging.getLogger(__name__)

# While more requests read than write, they read on without a round between, so that rounds come to have full rows; but
# those that write wait no longer than this.
_LONGEST_PAUSE = 0.2


class _Flight(NamedTuple):
    """A call of a program whose results have not been read: Drawn [S, B], in whose column each job is. tokens: that a
    prefill reads; 0 is a round."""

    jobs: list[tuple[Job, int]]
    drawn: Drawn
    started: float
    tokens: int


class Engine:
    """Serves many requests at once with one language model (decoder or recurrent).

    Submit requests, and call `step` while it answers True: from one thread (EngineThread has one). Use: chat or
    completion servers, evaluation by generation.
    """

    def __init__(
        self, config: ModelConfig, params: Any, *, vocabulary_size: int, slots: int, page_size: int, num_pages: int,
        chunk: int, max_waiting: int, prefix_reuse: bool = True, max_tokens: int | None = None,
        dtype: Any | None = None, int8: bool = False,
    ) -> None:
        """Takes memory for all pages; compiles nothing yet.

        Args:
          config: the model's. params: its parameters, stacked or not, quantized or not.
          vocabulary_size: the tokenizer's; ids from it on are never drawn.
          slots: requests that run at once; each step costs as if all were taken.
          page_size, num_pages: tokens of a page; pages in all, of which page 0 holds nothing. Not read for a recurrent
            network.
          chunk: tokens that a prefill reads at once, a multiple of page_size; prompts share whole chunks.
          max_waiting: requests that may wait for a slot.
          prefix_reuse: whether prompts that begin alike share what was computed for the beginning.
          max_tokens: of a request, prompt (from its window on) and answer together; None is 4 x context_length.
          dtype: of the keys and values; None is the compute type. int8: as 8-bit integers in place of it: more pages
            in the same memory, at some cost of exactness. Neither is read for a recurrent network.

        Raises UserError for a model that is not served, and for sizes that do not fit each other.
        """
        self._limits = make_limits(
            config, vocabulary_size=vocabulary_size, slots=slots, page_size=page_size, num_pages=num_pages, chunk=chunk,
            max_waiting=max_waiting, max_tokens=max_tokens)
        self._plan = Plan(config, vocabulary_size)
        self._params = unstack_layers(params)
        self._memory = programs.memory_of(config).init(
            config, slots=slots, num_pages=num_pages, page_size=page_size, dtype=dtype, int8=int8)
        paged = self._limits.page_size > 0
        # A whole number of chunks, so that the padding of the last one has entries too.
        table = -(-config.context_length // chunk) * chunk // page_size if paged else 0
        self._slots = Slots(slots, window=self._limits.window, pages=table, max_tokens=self._limits.max_tokens,
                            vocabulary_size=config.vocabulary_size)
        self._num_slots, self._chunk = slots, chunk
        self._pages = Pages(num_pages, chunk // page_size, reuse=prefix_reuse) if paged else None
        self._waiting = Waiting(max_waiting)
        self._scheduler = Scheduler(self._limits, self._waiting, self._slots, self._pages, chunk)
        self._pace = Pace()
        self._flights: list[_Flight] = []
        self._landed = self._last_round = 0.0
        self._counts = dict.fromkeys(("prefills", "rounds", "steps"), 0)

    def warm_up(self) -> None:
        """Compiles every program there is; nothing is compiled afterwards. Only while nothing runs."""
        rows = self._slots.for_decode([])
        row = jax.tree.map(lambda array: array[:1], rows)
        for size in sizes(self._chunk):
            self._run_prefill(row, np.zeros((1, size), np.int32), slot=0, start=0, count=0)
        self._run_decode(rows, 1)
        jax.block_until_ready(self._memory)

    def submit(self, request: Request, on_event: Callable[[Event], None]) -> Ticket:
        """Puts a request in the queue; from any thread.

        on_event gets each Tokens in order and one Finished at the end, always from the thread that calls `step`, never
        from here. An exception that it raises cancels the request, and nothing else.

        Raises Busy when the queue is full, UserError for a request that can never run.
        """
        check_request(request, self._limits)
        return self._waiting.add(request, on_event)

    def cancel(self, ticket: Ticket) -> None:
        """Ends a request at the next step with Finished("cancelled"), unless it is finished; from any thread."""
        ticket.cancelled = True

    def step(self) -> bool:
        """One round: expire deadlines, admit, a prefill (several that are quick), some decode steps. False: there was
        nothing to do.

        The device works on while this returns: the next call reads what it has drawn.
        """
        self._land()
        self._scheduler.end_unwanted(time.monotonic())
        self._scheduler.admit()
        # Those that a prefill makes ready join the round after this one, since their token is not known yet.
        ready = list(self._scheduler.decoding)
        self._start_prefills()
        if ready and not self._pauses(len(ready)):
            self._start_round(ready)
        told = bool(self._scheduler.events)
        self._tell()
        return told or bool(self._flights)

    def shut_down(self, reason: Reason = "shutdown") -> None:
        """Ends every request with Finished(reason); from the thread that calls `step`."""
        self._flights = []
        self._scheduler.end_all(reason)
        self._tell()

    def stats(self) -> Statistics:
        """Numbers of this moment; from any thread."""
        pages, scheduler = self._pages, self._scheduler
        used, cached, free = (0, 0, 0) if pages is None else (pages.used, pages.cached, pages.free)
        return Statistics(
            running=len(scheduler.prefilling) + len(scheduler.decoding), waiting=len(self._waiting),
            slots=self._num_slots, pages_used=used, pages_cached=cached, pages_free=free,
            seconds_per_step=self._pace.seconds_per_step, finished=dict(scheduler.finished), **scheduler.counts,
            **self._counts)

    def _land(self) -> None:
        """Reads what the last step has started. A prefill's token is told at once, while the device still decodes."""
        flights, self._flights = self._flights, []
        for flight in flights:
            drawn = _fetched(flight)
            now = time.perf_counter()
            seconds = now - max(flight.started, self._landed)
            if flight.tokens:
                self._pace.measured_prefill(seconds, flight.tokens)
            else:
                steps = int((drawn.ids != programs.NOTHING).any(axis=1).sum())
                self._counts["steps"] += steps
                self._pace.measured(seconds, steps)
            self._landed = now
            for job, column in flight.jobs:
                self._scheduler.accept(job, _tokens(drawn, column, job.request.alternatives))
            if flight.tokens:
                self._tell()

    def _start_prefills(self) -> None:
        chunk, tokens = self._scheduler.next_prefill(), 0
        while chunk is not None:
            started, job = time.perf_counter(), chunk.job
            row = self._slots.for_prefill(job, draws=chunk.draws)
            drawn = self._run_prefill(row, chunk.tokens_1T, slot=job.slot, start=chunk.start, count=chunk.count)
            self._counts["prefills"] += 1
            self._flights.append(_Flight([(job, 0)], drawn, started, chunk.tokens_1T.size))
            tokens += chunk.tokens_1T.size
            chunk = self._scheduler.next_prefill() if self._pace.reads_on(tokens) else None

    def _start_round(self, jobs: list[Job]) -> None:
        started, rows = time.perf_counter(), self._slots.for_decode(jobs)
        drawn = self._run_decode(rows, self._steps(jobs))
        self._counts["rounds"] += 1
        self._last_round = started
        self._flights.append(_Flight([(job, job.slot) for job in jobs], drawn, started, 0))

    def _pauses(self, writing: int) -> bool:
        return len(self._scheduler.prefilling) > writing and time.perf_counter() < self._last_round + _LONGEST_PAUSE

    def _steps(self, jobs: list[Job]) -> int:
        """Of the next round: one where a prompt is being read, or a constraint has to be asked before each token."""
        if self._scheduler.prefilling or any(job.request.constraint is not None for job in jobs):
            return 1
        steps = self._pace.steps()
        # Whoever waits gets a slot as soon as one can be free.
        return min(steps, *map(self._slots.budget, jobs)) if len(self._waiting) else steps

    def _run_prefill(self, row: Rows, tokens_1T: np.ndarray, *, slot: int, start: int, count: int) -> Drawn:
        self._memory, drawn = programs.prefill(
            self._plan, self._params, self._memory, row, tokens_1T, *map(np.int32, (slot, start, count)))
        return drawn

    def _run_decode(self, rows: Rows, steps: int) -> Drawn:
        self._memory, drawn = programs.decode(self._plan, self._params, self._memory, rows, np.int32(steps))
        return drawn

    def _tell(self) -> None:
        """Gives the events out, in their order."""
        events, self._scheduler.events = self._scheduler.events, []
        for ticket, event in events:
            if ticket.deaf:
                continue
            try:
                ticket.on_event(event)
            except Exception:  # The caller's own code, of any kind: only its request is to suffer.
                _LOG.exception("on_event of request %d failed; the request is cancelled", ticket.number)
                ticket.deaf = True


def _fetched(flight: _Flight) -> Drawn:
    """NumPy arrays [S, B] of what somebody asked for; waits for the program's end."""
    wanted = max((job.request.alternatives or 0 for job, _ in flight.jobs), default=0)
    asked = any(job.request.alternatives is not None for job, _ in flight.jobs)
    drawn = flight.drawn
    return Drawn(
        np.asarray(drawn.ids), np.asarray(drawn.log_probabilities) if asked else None,
        *((np.asarray(drawn.alternative_ids), np.asarray(drawn.alternatives)) if wanted else (None, None)))


def _tokens(drawn: Drawn, column: int, alternatives: int | None) -> list[Token]:
    """What a row has drawn, with as much beside it as it asked for."""
    tokens = []
    for number, token in enumerate(drawn.ids[:, column].tolist()):
        if token == programs.NOTHING:
            break
        if alternatives is None:
            tokens.append(Token(token, None))
            continue
        likeliest = ()
        if alternatives:
            likeliest = zip(drawn.alternative_ids[number, column, :alternatives].tolist(),
                            drawn.alternatives[number, column, :alternatives].tolist())
        tokens.append(Token(token, float(drawn.log_probabilities[number, column]),
                            tuple((i, value) for i, value in likeliest if value > -np.inf)))
    return tokens
