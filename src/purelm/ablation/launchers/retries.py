"""Tasks that wait for a worker, and the signals that a launcher of several workers takes."""

from __future__ import annotations

import collections
import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from purelm.ablation.launchers import TaskFailure, unfinished


@dataclasses.dataclass(frozen=True)
class Task:
    """Cells that go to one worker, and how many workers they cost so far."""

    keys: tuple[str, ...]
    deaths: int = 0


class Queue:
    """Tasks that wait; one whose worker died waits again, until it has cost too many.

    Attributes:
      waiting: in order.
      failures: tasks that were given up.
    """

    def __init__(self, workdir: str, tasks: Sequence[Sequence[str]], retries: int):
        self._workdir, self._retries = workdir, retries
        self.waiting = collections.deque(Task(tuple(keys)) for keys in tasks)
        self.failures: list[TaskFailure] = []

    def put_back(self, task: Task, reason: str) -> None:
        """What is unfinished of a task whose worker died waits again, before all others, and in halves, as it may have
        been too large."""
        keys, deaths = tuple(unfinished(self._workdir, task.keys)), task.deaths + 1
        if not keys:
            return
        if deaths > self._retries:
            self.failures.append(TaskFailure(keys, f"worker died {deaths} times ({reason})"))
            return
        half = (len(keys) + 1) // 2
        self.waiting.extendleft(Task(part, deaths) for part in (keys[half:], keys[:half]) if part)


@contextmanager
def signals_to(ask: Callable[[int], None]) -> Iterator[None]:
    """Hands the numbers of ctrl-C and SIGTERM to `ask`; only the main thread gets any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda came, _: ask(came)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
