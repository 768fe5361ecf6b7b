"""Requests that wait for a slot, and the handles that callers have of theirs."""

from __future__ import annotations

import collections
import itertools
import threading
import time
from collections.abc import Callable

from purelm.inference.engine.request import Busy, Event, Request


class Ticket:
    """A submitted request, for `cancel`. number: counts from 0 in each engine.

    deadline: in time.monotonic() seconds, or None. cancelled: asked for. deaf: on_event raised, and is called no more.
    finished: its last event is due or past.
    """

    def __init__(self, number: int, request: Request, on_event: Callable[[Event], None]) -> None:
        self.number = number
        self.request = request
        self.on_event = on_event
        self.deadline = None if request.seconds is None else time.monotonic() + request.seconds
        self.cancelled = False
        self.deaf = False
        self.finished = False


class Waiting:
    """First come, first served; at most max_waiting; from any thread."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._tickets: collections.deque[Ticket] = collections.deque()
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._tickets)

    def add(self, request: Request, on_event: Callable[[Event], None]) -> Ticket:
        """A new ticket at the end. Raises Busy where there are max_waiting."""
        with self._lock:
            if len(self._tickets) >= self._max_waiting:
                raise Busy(f"{self._max_waiting} requests are waiting already: ask again later")
            ticket = Ticket(next(self._numbers), request, on_event)
            self._tickets.append(ticket)
            return ticket

    def first(self) -> Ticket | None:
        """Whose turn it is, if anybody waits."""
        with self._lock:
            return self._tickets[0] if self._tickets else None

    def pop(self) -> Ticket:
        """Takes the first one out."""
        with self._lock:
            return self._tickets.popleft()

    def remove(self, unwanted: Callable[[Ticket], bool]) -> list[Ticket]:
        """Takes out those that are unwanted, and returns them in their order."""
        with self._lock:
            taken = [ticket for ticket in self._tickets if unwanted(ticket)]
            if taken:
                self._tickets = collections.deque(ticket for ticket in self._tickets if ticket not in taken)
            return taken
