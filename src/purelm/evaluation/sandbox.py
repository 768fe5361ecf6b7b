"""Runs a program that nobody has read, as a model wrote it, and tells whether it ran to its end.

What holds it, from the outside in:
- this process kills the runner's whole process group when time is up, and gives it an empty environment and an empty
  folder that is removed afterwards;
- where the kernel allows it (Linux, user namespaces), it has no network at all, and its processes are killed with it
  whatever they do: `Verdict.isolated` says so. Elsewhere the next two layers stand alone;
- resource limits (setrlimit): CPU time, address space, file size, open files; and processes, which the kernel does not
  count for root;
- an audit hook inside of the interpreter refuses sockets, processes, ctypes, writing outside of the folder,
  and reading outside of it and Python's library.
These stop accidents and what a model is likely to write. The hook and the token that tells that the end was reached
live in the program's own interpreter: a program written to attack them may get by, and would then act with this user's
rights (without a network, where isolated). Run programs of an enemy in a virtual machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Literal

from purelm.errors import UserError

_RUNNER = pathlib.Path(__file__).with_name("sandbox_runner.py")
# What an interpreter may need to start and to end on a busy machine, beyond the program's own time.
_GRACE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a program ended.

    outcome: "passed" (it ran to its end), "failed" (an assertion did not hold), "timed_out", or "error" (any other
    exception, sys.exit included, or a violent end). message: the last line of what went wrong. parsed: whether it is
    Python at all. isolated: whether it ran without a network and in a process namespace of its own.
    """

    outcome: Literal["passed", "failed", "timed_out", "error"]
    message: str
    parsed: bool
    isolated: bool


def run_program(program: str, *, seconds: float, memory_bytes: int) -> Verdict:
    """Runs Python source to its end or its limits; the module says what holds it.

    Args:
      program: the source, UTF-8.
      seconds: of wall time, from when it starts; about as many of CPU time.
      memory_bytes: of address space, the interpreter's own 30 MB included.

    Raises UserError on a system without processes as Unix has them.
    """
    if os.name != "posix":
        raise UserError("programs can only be run on Linux and macOS: there is no sandbox here")
    job = json.dumps({"program": program, "seconds": seconds, "memory_bytes": memory_bytes}).encode()
    reading, writing = os.pipe()
    try:
        with tempfile.TemporaryDirectory(prefix="purelm-sandbox-", ignore_cleanup_errors=True) as folder:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(_RUNNER), str(writing)], cwd=folder, env={},
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(writing,),
                start_new_session=True)
            try:
                process.communicate(job, timeout=seconds + _GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            return _verdict(reading)
    finally:
        os.close(reading)
        os.close(writing)


def _verdict(fd: int) -> Verdict:
    os.set_blocking(fd, False)
    try:
        return Verdict(**json.loads(os.read(fd, 1 << 16)))
    except (BlockingIOError, ValueError):
        return Verdict("error", "the sandbox itself was ended", parsed=True, isolated=False)


def run_programs(programs: Sequence[str], *, seconds: float, memory_bytes: int, workers: int | None = None,
                 progress: Callable[[str], None] | None = None) -> list[Verdict]:
    """The verdicts of all programs, `workers` at once (None is the cores that this process may use)."""
    from concurrent.futures import ThreadPoolExecutor

    workers = workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    found, tenth = [], max(len(programs) // 10, 1)
    with ThreadPoolExecutor(workers) as pool:
        verdicts = pool.map(lambda one: run_program(one, seconds=seconds, memory_bytes=memory_bytes), programs)
        for number, verdict in enumerate(verdicts, 1):
            found.append(verdict)
            if progress is not None and number % tenth == 0:
                progress(f"ran {number:,} of {len(programs):,} programs")
    return found
