"""A thread that runs an engine, for callers on other threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

from purelm.inference.engine.engine import Engine, Ticket
from purelm.inference.engine.request import Event, Request
from purelm.inference.engine.statistics import Statistics


class EngineThread:
    """Runs `engine` on one thread of its own: every on_event is called there, so it must be quick and not block.

    start() once; submit, cancel and stats from any thread; stop(drain_seconds) at the end.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._work = threading.Condition()
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether requests are being served."""
        return self._thread.is_alive() and not self._stopping

    def start(self) -> None:
        """Begins to serve. Call engine.warm_up() before, or the first requests wait for the compiler."""
        self._thread.start()

    def submit(self, request: Request, on_event: Callable[[Event], None]) -> Ticket:
        """Engine.submit; Busy too once stop() was called. Raises what broke the engine's thread, if anything did."""
        raise NotImplementedError

    def cancel(self, ticket: Ticket) -> None:
        """Engine.cancel."""
        self._engine.cancel(ticket)
        with self._work:
            self._work.notify()

    def stats(self) -> Statistics:
        """Engine.stats."""
        return self._engine.stats()

    def stop(self, drain_seconds: float) -> None:
        """Takes no more requests; those submitted have `drain_seconds` to finish, then end with reason "shutdown"."""
        raise NotImplementedError

    def _run(self) -> None:
        raise NotImplementedError
