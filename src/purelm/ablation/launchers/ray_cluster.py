"""Cells over the nodes of a Ray cluster. Ray is an optional extra: pip install -e '.[ray]'.

Every node needs the same environment (this version of purelm can be imported there) and a file system on which the
work folder lies at the same path; both are looked at before the first cell.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import os
import pathlib
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from purelm.ablation.launchers import TaskFailure
from purelm.ablation.launchers.ray_nodes import alive_nodes, check_nodes, connect, one_line, sent, worker_environment
from purelm.ablation.launchers.ray_resources import Resources, share_out
from purelm.ablation.launchers.retries import Queue, Task, signals_to
from purelm.ablation.worker import Stopped, run_cells
from purelm.errors import UserError
from purelm.runtime import keep_memory

_TICK_SECONDS = 1.0
_SECONDS_TO_SAVE = 120.0


class RayLauncher:
    """Tasks over a Ray cluster, a worker each, as many at once as there are devices (on CPU: nodes).

    Attributes:
      workers: how many tasks are done at once. Asking for it, or running, connects to the cluster.
      retries: further attempts at a task whose worker died; a task of several cells is halved then, as it may have
        been too large.
    """

    def __init__(self, address: str | None = None, workers: int | None = None, retries: int = 2, *,
                 cpus_per_worker: int | None = None, gpus_per_worker: float | None = None):
        """
        Args:
          address: host:port of the cluster's head, or "auto" on one of its nodes; None takes $RAY_ADDRESS, and starts
            a cluster of this machine alone where there is none.
          workers: None is one for each GPU or TPU chip, and on CPU as many as the smallest node's cores allow.
          cpus_per_worker, gpus_per_worker: None shares out what there is.

        Raises:
          UserError: Ray is not installed.
        """
        if importlib.util.find_spec("ray") is None:
            raise UserError("--launcher=ray: Ray is not installed; pip install -e '.[ray]' here and on every node")
        self.address, self.retries = address, retries
        self._asked = {"workers": workers, "cpus": cpus_per_worker, "gpus": gpus_per_worker}
        self._ours = False

    @property
    def workers(self) -> int:
        """How many tasks are done at once."""
        return self._shares[0]

    @functools.cached_property
    def _shares(self) -> tuple[int, Resources]:
        self._ours = connect(self.address)
        return share_out([node["Resources"] for node in alive_nodes()], **self._asked)

    def run(self, workdir: str, tasks: Sequence[Sequence[str]], *, together: bool,
            on_change: Callable[[], None]) -> list[TaskFailure]:
        """See launchers.Launcher.

        Raises:
          UserError: no cluster, or one whose nodes lack the work folder, purelm or the devices asked for.
        """
        if not tasks:
            return []
        workers, resources = self._shares
        workdir = os.path.abspath(workdir)
        check_nodes([node for node in alive_nodes() if resources.fitting(node["Resources"])], workdir, resources)
        work = _Work(workdir, workers, resources, Queue(workdir, tasks, self.retries), together, on_change)
        with signals_to(work.ask):
            try:
                return work.work()
            finally:
                work.close()

    def close(self) -> None:
        """Leaves the cluster, and ends it if it was started here; the end of the process does so too."""
        if self._ours:
            import ray

            ray.shutdown()
            self._ours = False
        self.__dict__.pop("_shares", None)


@dataclasses.dataclass
class _Work:
    """Tasks that wait and tasks that Ray has."""

    workdir: str
    workers: int
    resources: Resources
    queue: Queue
    together: bool
    on_change: Callable[[], None]
    running: dict[Any, Task] = dataclasses.field(default_factory=dict)
    signal: int | None = None

    def ask(self, number: int) -> None:
        """A signal asks to stop."""
        self.signal = number

    def work(self) -> list[TaskFailure]:
        """Until every task is done or failed."""
        import ray

        remote = ray.remote(
            num_cpus=self.resources.cpus, num_gpus=self.resources.gpus, scheduling_strategy="SPREAD", max_retries=0,
            resources={"TPU": self.resources.tpus} if self.resources.tpus else None,
            # A worker that has held an accelerator ends with its task, which lets go of the memory.
            max_calls=0 if self.resources.on_cpu else 1)(sent(do_task))
        environment = worker_environment(self.resources)
        while self.queue.waiting or self.running:
            while self.queue.waiting and len(self.running) < self.workers:
                task = self.queue.waiting.popleft()
                self.running[remote.remote(environment, self.workdir, task.keys, self.together, os.getcwd())] = task
            self.collect(_TICK_SECONDS)
            self.on_change()
            if self.signal is not None:
                self.stop()
        return self.queue.failures

    def collect(self, seconds: float) -> None:
        """Waits so long for a task to end; what died goes back to those that wait."""
        import ray

        ended, _ = ray.wait(list(self.running), timeout=seconds)
        for reference in ended:
            task = self.running.pop(reference)
            try:
                problem = ray.get(reference)
            except ray.exceptions.RayError as error:
                problem = one_line(error)
            if problem is not None and self.signal is None:
                self.put_back(task, problem)

    def put_back(self, task: Task, reason: str) -> None:
        self.queue.put_back(task, reason)
        if self.queue.waiting and not any(self.resources.fitting(node["Resources"]) for node in alive_nodes()):
            print(f"note: no node of the cluster has {self.resources} any more; waiting for one", file=sys.stderr)

    def stop(self) -> None:
        """Asks the workers to save and end, and waits for them.

        Raises:
          Stopped: always.
        """
        import ray

        asked = self.signal
        for reference in self.running:
            ray.cancel(reference)  # In a training this is ctrl-C, on which it saves.
        until = time.monotonic() + _SECONDS_TO_SAVE
        self.signal = None
        while self.running and time.monotonic() < until:
            ended, _ = ray.wait(list(self.running), timeout=0.2)
            for reference in ended:
                del self.running[reference]
            if self.signal is not None:  # A second signal does not wait.
                break
        raise Stopped(asked)

    def close(self) -> None:
        """Ends what still runs."""
        import ray

        for reference in self.running:
            ray.cancel(reference, force=True)


def do_task(workdir: str, keys: Sequence[str], together: bool, folder: str) -> str | None:
    """What a worker does: a task, in the folder that relative paths start from. Returns why it could not, or None."""
    os.chdir(folder)
    if "jax" not in sys.modules:  # The process's first task: JAX's threads are still to come.
        keep_memory()
    with _output_to(pathlib.Path(workdir) / "logs" / f"ray-{socket.gethostname()}-{os.getpid()}.log"):
        try:
            run_cells(workdir, keys, together=together, quiet=False)
        except (Stopped, UserError) as error:
            return " ".join(str(error).split())
    return None


@contextlib.contextmanager
def _output_to(path: pathlib.Path) -> Iterator[None]:
    """Appends what is printed to a file."""
    path.parent.mkdir(exist_ok=True)
    sys.stdout.flush()
    before = [os.dup(1), os.dup(2)]
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        for number, descriptor in enumerate(before, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
