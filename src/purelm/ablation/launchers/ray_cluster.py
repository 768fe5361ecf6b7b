"""Cells over the nodes of a Ray cluster. Ray is an optional extra: pip install -e '.[ray]'.

Every node needs the same environment (this version of purelm can be imported there) and a file system on which the
work folder lies at the same path; both are looked at before the first cell.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib.util
import os
import pathlib
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import purelm
from purelm.ablation.launchers import TaskFailure, unfinished
from purelm.ablation.launchers.ray_resources import Resources, share_out
from purelm.ablation.worker import Stopped, run_cells
from purelm.errors import UserError

_TICK_SECONDS = 1.0
_SECONDS_TO_SAVE = 120.0
_SECONDS_TO_ANSWER = 180.0
_SOURCE = str(pathlib.Path(purelm.__file__).parents[1])  # Where this process has purelm from, however that came about.
# Settings of this process that its workers are to have too.
_PASSED_ON = ("JAX_", "XLA_", "LIBTPU_", "PURELM_", "HF_", "TOKENIZERS_", "TFDS_")


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
        self._ours = _connect(self.address)
        return share_out([node["Resources"] for node in _nodes()], **self._asked)

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
        _check_nodes([node for node in _nodes() if resources.fitting(node["Resources"])], workdir, resources)
        work = _Work(workdir, workers, resources, self.retries, together, on_change,
                     collections.deque(_Task(tuple(keys)) for keys in tasks))
        with _signals(work):
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


@dataclasses.dataclass(frozen=True)
class _Task:
    keys: tuple[str, ...]
    deaths: int = 0


@dataclasses.dataclass
class _Work:
    """Tasks that wait and tasks that Ray has."""

    workdir: str
    workers: int
    resources: Resources
    retries: int
    together: bool
    on_change: Callable[[], None]
    waiting: collections.deque[_Task]
    running: dict[Any, _Task] = dataclasses.field(default_factory=dict)
    failures: list[TaskFailure] = dataclasses.field(default_factory=list)
    signal: int | None = None

    def work(self) -> list[TaskFailure]:
        """Until every task is done or failed."""
        import ray

        remote = ray.remote(_work).options(
            num_cpus=self.resources.cpus, num_gpus=self.resources.gpus, scheduling_strategy="SPREAD", max_retries=0,
            resources={"TPU": self.resources.tpus} if self.resources.tpus else None,
            # A worker that has held an accelerator ends with its task, which lets go of the memory.
            max_calls=0 if self.resources.on_cpu else 1,
            runtime_env={"env_vars": worker_environment(self.resources)})
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.workers:
                task = self.waiting.popleft()
                self.running[remote.remote(self.workdir, task.keys, self.together, os.getcwd())] = task
            self.collect(_TICK_SECONDS)
            self.on_change()
            if self.signal is not None:
                self.stop()
        return self.failures

    def collect(self, seconds: float) -> None:
        """Waits so long for a task to end; what died goes back to those that wait."""
        import ray

        ended, _ = ray.wait(list(self.running), timeout=seconds)
        for reference in ended:
            task = self.running.pop(reference)
            try:
                problem = ray.get(reference)
            except ray.exceptions.RayError as error:
                problem = _one_line(error)
            if problem is not None and self.signal is None:
                self.put_back(task, problem)

    def put_back(self, task: _Task, reason: str) -> None:
        keys, deaths = tuple(unfinished(self.workdir, task.keys)), task.deaths + 1
        if not keys:
            return
        if deaths > self.retries:
            self.failures.append(TaskFailure(keys, f"worker died {deaths} times ({reason})"))
            return
        half = (len(keys) + 1) // 2
        self.waiting.extendleft(_Task(part, deaths) for part in (keys[half:], keys[:half]) if part)
        if not any(self.resources.fitting(node["Resources"]) for node in _nodes()):
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


def _work(workdir: str, keys: Sequence[str], together: bool, folder: str) -> str | None:
    """What a worker does: a task, in the folder that relative paths start from. Returns why it could not, or None."""
    os.chdir(folder)
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


def worker_environment(resources: Resources) -> dict[str, str]:
    """Environment variables of a worker: purelm from where this process has it, this process's settings of JAX, and
    its part of a device that is shared."""
    path = os.pathsep.join([_SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    if variables.get("PURELM_CACHE"):
        variables["PURELM_CACHE"] = os.path.abspath(variables["PURELM_CACHE"])
    if resources.on_cpu:
        variables["NPROC"] = str(max(int(resources.cpus), 1))  # The threads that XLA's CPU client takes.
    elif 0 < resources.gpus < 1:
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * resources.gpus:.3f}"
    return {**variables, "PYTHONPATH": path}


def _connect(address: str | None) -> bool:
    """Connects this process to the cluster; False where it was connected already.

    Raises:
      UserError: none answers, or it is of another version of Ray or Python.
    """
    import ray

    if ray.is_initialized():
        return False
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    here = {"include_dashboard": False} if where == "local" else {}
    with _handlers_kept():
        try:
            ray.init(address=where, log_to_driver=False, logging_level="error", **here)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"--address={where}: no Ray cluster of this version answers there ({_one_line(error)}); "
                            "`ray start --head` on its first node prints the address") from error
    return True


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it starts."""
    if threading.current_thread() is not threading.main_thread():  # Which alone has handlers.
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _nodes() -> list[Mapping[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _check_nodes(nodes: Sequence[Mapping[str, Any]], workdir: str, resources: Resources) -> None:
    """Has every node look for a file that was just written to the work folder, and for this code.

    Raises:
      UserError: names the first node that lacks something.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from purelm.ablation.fingerprints import EVALUATION_ROOMS, code_fingerprint

    marker = pathlib.Path(workdir) / f".ray-{uuid.uuid4().hex}"
    marker.touch()
    try:
        look = ray.remote(_make_look())
        environment = {"env_vars": worker_environment(resources)}
        answers = [look.options(num_cpus=0, runtime_env=environment, scheduling_strategy=NodeAffinitySchedulingStrategy(
            node["NodeID"], soft=False)).remote(str(marker), os.getcwd(), EVALUATION_ROOMS) for node in nodes]
        for node, answer in zip(nodes, answers):
            name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            try:
                seen, folder_there, code = ray.get(answer, timeout=_SECONDS_TO_ANSWER)
            except ray.exceptions.RayError as error:
                raise UserError(f"--launcher=ray: {name} cannot work ({_one_line(error)})") from error
            problem = _problem(seen, folder_there, code, code_fingerprint(EVALUATION_ROOMS), workdir)
            if problem:
                raise UserError(f"--launcher=ray: {name} {problem}")
    finally:
        marker.unlink()


def _problem(seen: bool, folder_there: bool, code: str, own_code: str, workdir: str) -> str | None:
    """What a node lacks."""
    if not seen:
        return f"does not see {workdir}; give a --workdir on a file system that all nodes share"
    if not folder_there:
        return f"has no folder {os.getcwd()}, where relative paths start; start from one that all nodes have"
    if code.startswith("error: "):
        return f"cannot import purelm ({code.removeprefix('error: ')}); install the same environment on every node"
    if code != own_code:
        return "has another version of purelm; bring the same commit to every node"
    return None


def _make_look() -> Callable[..., tuple[bool, bool, str]]:
    """A function that needs no purelm to be read on a node: Ray sends one that is made in a function as it is."""
    def look(marker: str, folder: str, rooms: tuple[str, ...]) -> tuple[bool, bool, str]:
        import os

        try:
            from purelm.ablation.fingerprints import code_fingerprint

            code = code_fingerprint(rooms)
        except ImportError as error:
            code = f"error: {error}"
        return os.path.exists(marker), os.path.isdir(folder), code

    return look


def _one_line(error: BaseException) -> str:
    """The part of one of Ray's long messages that says what happened: a task's own error last, its own news first."""
    import ray

    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0]


@contextlib.contextmanager
def _signals(work: _Work) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask the work to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _: object) -> None:
        work.signal = number

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
