"""A request that runs: where it is, and whether a token ends it."""

from __future__ import annotations

import numpy as np

from purelm.inference import automata
from purelm.inference.automata import TokenAutomaton
from purelm.inference.engine.pages import Lease
from purelm.inference.engine.request import Reason, Request
from purelm.inference.engine.waiting import Ticket
from purelm.inference.stops import stop_tuple


class Job:
    """slot: its row. lease: its pages (None of a recurrent network). read: tokens of its window that memory holds.
    generated: tokens drawn. cached_tokens: of its prompt, spared. stop_state, constraint_state: of its automata."""

    def __init__(self, ticket: Ticket, slot: int, lease: Lease | None) -> None:
        self.ticket = ticket
        self.slot = slot
        self.lease = lease
        self.read = 0
        self.generated = 0
        self.cached_tokens = 0
        self._stop_state = 0
        self._constraint_state = 0

    @property
    def request(self) -> Request:
        """What is asked."""
        return self.ticket.request

    def allowed(self, vocabulary_size: int) -> np.ndarray:
        """Bool [vocabulary_size]: what the constraint allows next."""
        states = np.array([self._constraint_state])
        return automata.allowed_with_end(self.request.constraint, states, self.request.stop_id, vocabulary_size)[0]

    def accept(self, token: int) -> Reason | None:
        """Counts a token of the answer; why the answer ends with it, if it does."""
        request = self.request
        self.generated += 1
        if token in stop_tuple(request.stop_id):
            return "stop"
        if request.stop is not None:
            self._stop_state = _next(request.stop, self._stop_state, token)
            if request.stop.final_Q[self._stop_state]:
                return "stop"
        if request.constraint is not None:
            self._constraint_state = _next(request.constraint, self._constraint_state, token)
            if has_ended(request, self._constraint_state):
                return "stop"
        return "length" if self.generated == request.max_new_tokens else None


def has_ended(request: Request, state: int) -> bool:
    """Whether the constraint allows nothing more in `state`, not even a stop id."""
    if (request.constraint.next_QC[state] >= 0).any():
        return False
    return not stop_tuple(request.stop_id) or not request.constraint.final_Q[state]


def _next(automaton: TokenAutomaton, state: int, token: int) -> int:
    return int(automata.advance(automaton, np.array([state]), np.array([token]))[0])
