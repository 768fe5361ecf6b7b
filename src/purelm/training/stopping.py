"""Signals that ask a training to stop after its step."""

from __future__ import annotations

import os
import signal
from typing import Any

import jax

from purelm.training.checkpoints import Checkpoints


class StopRequest:
    """Turns SIGTERM and ctrl-C into a flag that the loop reads between steps; a second ctrl-C stops at once.

    Of several processes, jax's coordination service takes SIGTERM, so that all stop at the same step; ctrl-C is
    handed on to it.
    """

    def __init__(self):
        self.signal: int | None = None

    def __enter__(self) -> StopRequest:
        numbers = (signal.SIGINT,) if jax.process_count() > 1 else (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: Any) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def reached(self, checkpoints: Checkpoints, step: int) -> bool:
        """Whether to stop after `step`; every process must ask at every step."""
        if jax.process_count() == 1:
            return self.signal is not None
        if checkpoints.reached_preemption(step):
            self.signal = self.signal or signal.SIGTERM
            return True
        return False
