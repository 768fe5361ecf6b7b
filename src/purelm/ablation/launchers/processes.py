"""Cells in worker processes of this machine, a device each."""

from __future__ import annotations

import json
import os
import pathlib
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import purelm
from purelm.ablation.fingerprints import code_fingerprint
from purelm.ablation.launchers import TaskFailure
from purelm.ablation.launchers.devices import available_cores, local_devices, shares, worker_environment
from purelm.ablation.launchers.retries import Queue, Task, signals_to
from purelm.ablation.worker import Stopped
from purelm.errors import UserError

_TICK_SECONDS = 1.0
_SECONDS_TO_SAVE = 120.0
_SOURCE = str(pathlib.Path(purelm.__file__).parents[1])  # Where this process has purelm from, however that came about.


class ProcessLauncher:
    """A pool of worker processes that take one task after another.

    Attributes:
      workers: how many; None is one for each device (on CPU, one).
      retries: new workers that a task gets after its first one died; a task of several cells is halved then, as it
        may have been too large.
    """

    def __init__(self, workers: int | None = None, retries: int = 2):
        self._platform, self._devices = local_devices()
        self.workers = self._devices if workers is None else workers
        self.retries = retries
        if self.workers < 1:
            raise UserError(f"--workers={self.workers}: must be at least 1")
        worker_environment(self._platform, self._devices, 0, self.workers)  # Refuses what cannot be.

    def run(self, workdir: str, tasks: Sequence[Sequence[str]], *, together: bool,
            on_change: Callable[[], None]) -> list[TaskFailure]:
        """See launchers.Launcher."""
        if not tasks:
            return []
        pool = _Pool(workdir, together, Queue(workdir, tasks, self.retries), self.retries, on_change)
        with signals_to(pool.ask):
            try:
                for number in range(min(self.workers, len(tasks))):
                    pool.start(number, self._command(workdir, number), self._environment(number))
                return pool.work()
            finally:
                pool.close()

    def _command(self, workdir: str, number: int) -> list[str]:
        cores = shares(available_cores(), self.workers)[number] if self._platform == "cpu" else []
        # A worker that takes a dead one's place after the code was edited would be recorded as of the code before.
        return [sys.executable, "-m", "purelm.ablation.worker", f"--workdir={workdir}", "--tasks",
                f"--code={code_fingerprint()}", *([f"--cores={','.join(map(str, cores))}"] if cores else [])]

    def _environment(self, number: int) -> dict[str, str]:
        path = os.pathsep.join([_SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**os.environ, "PYTHONPATH": path,
                **worker_environment(self._platform, self._devices, number, self.workers)}


class _Worker:
    """A process, its log, and the task it has."""

    def __init__(self, number: int, command: list[str], environment: dict[str, str], log: pathlib.Path):
        self.number, self.command, self.environment, self.log = number, command, environment, log
        self.task: Task | None = None
        self.ready = False
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            # A session of its own, so that ctrl-C reaches the runner alone, which then tells the workers.
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=file, start_new_session=True)

    def give(self, task: Task, together: bool) -> None:
        self.task = task
        line = json.dumps({"cells": task.keys, "together": together}) + "\n"
        try:
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except BrokenPipeError:  # It died; the end of its answers says so too.
            pass

    def reason(self) -> str:
        """Why it ended."""
        code = self.process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def last_line(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"


class _Pool:
    """Workers and the tasks that wait."""

    def __init__(self, workdir: str, together: bool, queue: Queue, retries: int, on_change: Callable[[], None]):
        self.workdir, self.together, self.queue, self.retries = workdir, together, queue, retries
        self.on_change = on_change
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()
        self.signal: int | None = None
        self.never_ready = 0

    def ask(self, number: int) -> None:
        """A signal asks to stop."""
        self.signal = number

    def start(self, number: int, command: list[str], environment: dict[str, str]) -> None:
        log = pathlib.Path(self.workdir) / "logs" / f"worker{number}.log"
        worker = _Worker(number, command, environment, log)
        self.workers.append(worker)
        self.selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        self.give_next(worker)

    def give_next(self, worker: _Worker) -> None:
        if self.queue.waiting and self.signal is None:
            worker.give(self.queue.waiting.popleft(), self.together)

    def work(self) -> list[TaskFailure]:
        """Until every task is done or failed."""
        while any(worker.task for worker in self.workers):
            for key, _ in self.selector.select(_TICK_SECONDS):
                self.heard(key.data)
            self.on_change()
            if self.signal is not None:
                self.stop()
        return self.queue.failures

    def heard(self, worker: _Worker) -> None:
        said = os.read(worker.process.stdout.fileno(), 65536)
        if not said:
            self.died(worker)
            return
        worker.ready, self.never_ready = True, 0
        if b"done" in said:
            worker.task = None
            self.give_next(worker)

    def died(self, worker: _Worker) -> None:
        """Its task goes back to those that wait, less what it had done, and a new worker takes its place."""
        self.selector.unregister(worker.process.stdout)
        self.workers.remove(worker)
        reason = worker.reason()
        if not worker.ready:
            self.never_ready += 1
            if self.never_ready > self.retries:
                raise UserError(f"workers cannot start ({worker.last_line()}); see {worker.log}")
        if self.signal is not None:
            return
        if worker.task is not None:
            self.queue.put_back(worker.task, reason)
        for other in self.workers:
            if other.task is None:
                self.give_next(other)
        if self.queue.waiting:
            self.start(worker.number, worker.command, worker.environment)

    def stop(self) -> None:
        """Asks the workers to save and end, and waits for them.

        Raises:
          Stopped: always.
        """
        asked = self.signal
        for worker in self.workers:
            worker.process.terminate()
        self.signal = None  # A second signal does not wait.
        until = time.monotonic() + _SECONDS_TO_SAVE
        while (any(worker.process.poll() is None for worker in self.workers) and self.signal is None
               and time.monotonic() < until):
            time.sleep(0.05)
        raise Stopped(asked)

    def close(self) -> None:
        """Ends the workers; one that is idle ends with its input."""
        for worker in self.workers:
            if worker.task is None:
                worker.process.stdin.close()
            else:
                worker.process.kill()
        for worker in self.workers:
            worker.process.wait()
        self.selector.close()
