"""Continuous batching: requests come and go at any time, and each gets what it would get alone, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from purelm.config import ModelConfig
from purelm.inference.engine.request import Event, Request
from purelm.inference.engine.statistics import Statistics


class Ticket:
    """A submitted request; made by `submit`, read by `cancel`. number: counts from 0 in each engine."""

    number: int


class Engine:
    """Serves many requests at once with a language model (decoder or recurrent); see the module's docstring."""

    def __init__(
        self, config: ModelConfig, params: Any, *, vocabulary_size: int, slots: int, page_size: int, num_pages: int,
        chunk: int, max_waiting: int, prefix_reuse: bool = True, max_tokens: int | None = None,
        dtype: Any | None = None,
    ) -> None:
        """See the class."""
        raise NotImplementedError

    def warm_up(self) -> None:
        """Compiles every program there is; nothing is compiled afterwards."""
        raise NotImplementedError

    def submit(self, request: Request, on_event: Callable[[Event], None]) -> Ticket:
        """Puts a request in the queue; from any thread.

        on_event gets each Tokens in order and one Finished at the end, always from the thread that calls `step`, never
        from here. An exception that it raises cancels the request, and nothing else.

        Raises Busy when the queue is full, UserError for a request that can never run.
        """
        raise NotImplementedError

    def cancel(self, ticket: Ticket) -> None:
        """Ends a request at the next step with Finished("cancelled"), unless it is finished; from any thread."""
        raise NotImplementedError

    def step(self) -> bool:
        """One round: expire deadlines, admit, one prefill chunk, some decode steps. False: there was nothing to do."""
        raise NotImplementedError

    def shut_down(self) -> None:
        """Ends every request with Finished("shutdown"); from the thread that calls `step`."""
        raise NotImplementedError

    def stats(self) -> Statistics:
        """Numbers of this moment; from any thread."""
        raise NotImplementedError
