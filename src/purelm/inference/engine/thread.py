"""A thread that runs an engine, for callers on other threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from purelm.inference.engine.engine import Engine, Ticket
from purelm.inference.engine.request import Busy, Event, Request
from purelm.inference.engine.statistics import Statistics


class EngineThread:
    """Runs `engine` on one thread of its own: every on_event is called there, so it must be quick and not block.

    start() once; submit, cancel and stats from any thread; stop(drain_seconds) at the end.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._news = threading.Condition()
        self._has_news = False
        # time.monotonic() when what still runs is ended; None while requests are taken.
        self._ends: float | None = None
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether requests are served."""
        return self._thread.is_alive() and self._ends is None and self._failure is None

    def start(self) -> None:
        """Begins to serve. Call engine.warm_up() before, or the first requests wait for the compiler."""
        self._thread.start()

    def submit(self, request: Request, on_event: Callable[[Event], None]) -> Ticket:
        """Engine.submit. Raises Busy too after stop(), and RuntimeError if the engine broke."""
        with self._news:
            if self._failure is not None:
                raise RuntimeError("the engine broke, and serves no more") from self._failure
            if self._ends is not None:
                raise Busy("the engine is being shut down")
            ticket = self._engine.submit(request, on_event)
            self._tell()
            return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Engine.cancel."""
        self._engine.cancel(ticket)
        with self._news:
            self._tell()

    def stats(self) -> Statistics:
        """Engine.stats."""
        return self._engine.stats()

    def stop(self, drain_seconds: float) -> None:
        """Takes no more requests; those submitted have `drain_seconds` to finish, then end with reason "shutdown".

        Returns when the thread has ended; again, only a shorter time counts. Not from on_event.
        """
        with self._news:
            ends = time.monotonic() + drain_seconds
            self._ends = ends if self._ends is None else min(self._ends, ends)
            self._tell()
        if self._thread.is_alive():
            self._thread.join()

    def _tell(self) -> None:
        self._has_news = True
        self._news.notify()

    def _run(self) -> None:
        try:
            while True:
                busy = self._engine.step()
                with self._news:
                    if self._ends is not None and (time.monotonic() >= self._ends or not (busy or self._has_news)):
                        break
                    # An engine that has nothing to do has nothing that could become late either.
                    while not busy and not self._has_news:
                        self._news.wait()
                    self._has_news = False
            self._engine.shut_down()
        except Exception as failure:  # Of any kind: nobody may wait for an answer that never comes.
            with self._news:
                self._failure = failure
            self._engine.shut_down("error")
            raise
