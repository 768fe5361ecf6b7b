"""A Ray cluster's nodes: how they are reached, what they must have, and what a worker there is told."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import purelm
from purelm.ablation.fingerprints import EVALUATION_ROOMS, code_fingerprint
from purelm.ablation.launchers.ray_resources import Resources
from purelm.errors import UserError

_SECONDS_TO_ANSWER = 180.0
_SECONDS_TO_CONNECT = 20.0
_SOURCE = str(pathlib.Path(purelm.__file__).parents[1])  # Where this process has purelm from, however that came about.
# Settings of this process that its workers are to have too.
_PASSED_ON = ("JAX_", "XLA_", "LIBTPU_", "PURELM_", "HF_", "TOKENIZERS_", "TFDS_")


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


def connect(address: str | None) -> bool:
    """Connects this process to the cluster; False where it was connected already.

    Raises:
      UserError: none answers, or it is of another version of Ray or Python.
    """
    import ray

    if ray.is_initialized():
        return False
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_reachable(where)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    here = {"include_dashboard": False} if where == "local" else {}
    with _handlers_kept():
        try:
            ray.init(address=where, log_to_driver=False, logging_level="error", **here)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"--address={where}: no Ray cluster of this version answers there ({one_line(error)}); "
                            "`ray start --head` on its first node prints the address") from error
    return True


def _check_reachable(where: str) -> None:
    """Ray would try for two minutes."""
    host, _, port = where.rpartition(":")
    if not port.isdecimal() or not host:
        if where not in ("auto", "local"):
            raise UserError(f"--address={where}: wants host:port of a Ray cluster's head, such as 10.0.0.1:6379, or "
                            "auto")
        return
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address={where}: nothing answers there ({error}); `ray start --head` on the cluster's "
                        "first node prints its address") from error


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


def alive_nodes() -> list[Mapping[str, Any]]:
    """As ray.nodes() describes them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def check_nodes(nodes: Sequence[Mapping[str, Any]], workdir: str, resources: Resources) -> None:
    """Has every node look for a file that was just written to the work folder, and for this code.

    Raises:
      UserError: names the first node that lacks something.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    marker = pathlib.Path(workdir) / f".ray-{uuid.uuid4().hex}"
    marker.touch()
    try:
        remote, environment = ray.remote(sent(look)), worker_environment(resources)
        answers = [remote.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(
            node["NodeID"], soft=False)).remote(environment, str(marker), os.getcwd()) for node in nodes]
        for node, answer in zip(nodes, answers):
            name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            try:
                problem = problem_of(*ray.get(answer, timeout=_SECONDS_TO_ANSWER), workdir)
            except ray.exceptions.RayError as error:
                raise UserError(f"--launcher=ray: {name} cannot work ({one_line(error)}); install the same environment "
                                "on every node") from error
            if problem:
                raise UserError(f"--launcher=ray: {name} {problem}")
    finally:
        marker.unlink()


def look(marker: str, folder: str) -> tuple[bool, bool, str]:
    """What a node is asked: whether it sees the file and the folder, and its code's fingerprint."""
    return os.path.exists(marker), os.path.isdir(folder), code_fingerprint(EVALUATION_ROOMS)


def problem_of(seen: bool, folder_there: bool, code: str, workdir: str) -> str | None:
    """What a node lacks by its answer, or None."""
    if not seen:
        return f"does not see {workdir}; give a --workdir on a file system that all nodes share"
    if not folder_there:
        return f"has no folder {os.getcwd()}, where relative paths start; start from one that all nodes have"
    if code != code_fingerprint(EVALUATION_ROOMS):
        return "has another version of purelm; bring the same commit to every node"
    return None


def sent(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of ours, to be given to ray.remote: it takes the worker's environment first, and has it set before
    anything of ours, and so JAX, is imported."""
    module, name, source = function.__module__, function.__name__, _SOURCE

    def run(environment: Mapping[str, str], *arguments: Any) -> Any:  # Ray sends a local function as it is.
        import importlib
        import os
        import sys

        os.environ.update(environment)
        if source not in sys.path:
            sys.path.insert(0, source)
        return getattr(importlib.import_module(module), name)(*arguments)

    return run


def one_line(error: BaseException) -> str:
    """The part of one of Ray's long messages that says what happened: a task's own error last, its own news first."""
    import ray

    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0]
