"""The sandbox's own side: reads a job from stdin, runs its program with hands tied, writes a verdict.

Started by sandbox.py as `python -I -S -B sandbox_runner.py FD`, never imported by a program of ours. Two processes: the
watcher, which measures time and writes the verdict to file descriptor FD, and its child, which runs the program.
"""

import json
import os
import sys

_FILE_BYTES = 1 << 20
_OPEN_FILES = 64
# linux/sched.h: a user namespace (which allows the others), and in it no network, no IPC and processes of its own.
_NEWUSER, _NEWNET, _NEWIPC, _NEWPID = 0x10000000, 0x40000000, 0x08000000, 0x20000000
_PARENT_DEATH_SIGNAL, _SIGKILL = 1, 9

_REFUSED_EVENTS = ("socket.", "subprocess.", "ctypes.", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn",
                   "os.spawn", "os.system", "os.kill", "os.killpg", "pty.", "signal.pthread_kill", "resource.", "gc.",
                   "_thread.start_new_thread", "os.chown", "os.chmod", "os.link", "os.symlink", "os.setxattr",
                   "os.putenv", "os.unsetenv", "syslog.", "ftplib.", "http.", "urllib.", "smtplib.", "webbrowser.",
                   "sys._current_frames", "sqlite3.", "winreg.", "msvcrt.")
_REFUSED_MODULES = ("ctypes", "_ctypes", "_posixsubprocess", "multiprocessing", "_multiprocessing", "_testcapi",
                    "_testinternalcapi", "_xxsubinterpreters", "resource", "fcntl")
# Events whose arguments begin with so many paths that are written.
_WRITTEN_PATHS = {"os.mkdir": 1, "os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.truncate": 1, "os.utime": 1,
                  "shutil.move": 2, "shutil.rmtree": 1, "tempfile.mkstemp": 1, "tempfile.mkdtemp": 1}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main():
    verdict_fd = int(sys.argv[1])
    job = json.loads(sys.stdin.buffer.read())
    isolated = _isolate()
    token = os.urandom(16).hex()
    answer_fd, child_fd = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(answer_fd)
        os.close(verdict_fd)
        _run(job, child_fd, token)
        os._exit(1)
    os.close(child_fd)
    timed_out, status = _wait(child, job["seconds"])
    answer = _answer(answer_fd)
    verdict = {"outcome": "error", "message": "", "parsed": answer.get("parsed", True)}
    if timed_out:
        verdict |= {"outcome": "timed_out", "message": f"no end within {job['seconds']} s"}
    elif "outcome" in answer and answer["outcome"] != "passed":
        verdict |= {"outcome": answer["outcome"], "message": answer["message"]}
    elif answer.get("token") == token and os.waitstatus_to_exitcode(status) == 0:
        verdict |= {"outcome": "passed"}
    else:
        code = os.waitstatus_to_exitcode(status)
        said = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        verdict |= {"message": f"the program left before its end ({said})"}
    os.write(verdict_fd, json.dumps(verdict | {"isolated": isolated}).encode())


def _wait(child, seconds):
    """(whether the time was up, exit status); the child is dead afterwards, and so is its process namespace."""
    import time

    deadline = time.monotonic() + seconds
    pause = 0.001
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return False, status
        if time.monotonic() > deadline:
            os.kill(child, _SIGKILL)
            return True, os.waitpid(child, 0)[1]
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def _answer(fd):
    """What the child said last, or {}. A process that it left behind may hold the pipe open: nothing waits for it."""
    os.set_blocking(fd, False)
    try:
        lines = os.read(fd, 1 << 16).splitlines()
        found = json.loads(lines[-1]) if lines else {}
    except (BlockingIOError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _isolate():
    """New namespaces for network, IPC and processes, where this kernel allows them; whether it did."""
    if not sys.platform.startswith("linux"):
        return False
    flags = _NEWUSER | _NEWNET | _NEWIPC | _NEWPID
    if hasattr(os, "unshare"):
        try:
            os.unshare(flags)
        except OSError:
            return False
        return True
    import ctypes

    return ctypes.CDLL(None, use_errno=True).unshare(flags) == 0


def _die_with_parent():
    """The kernel kills this process when the watcher is gone."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, _SIGKILL, 0, 0, 0)


def _run(job, answer_fd, token):
    """Runs the program and says how it ended; does not return."""
    _die_with_parent()
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    _limit(job["seconds"], job["memory_bytes"])
    for name in [name for name in sys.modules if name.split(".")[0] in _REFUSED_MODULES]:
        del sys.modules[name]
    answer, names = {"parsed": True}, {"__name__": "__main__", "__builtins__": __builtins__}
    sys.addaudithook(_hook(os.getcwd(), os.path.dirname(os.path.realpath(os.__file__))))
    try:
        try:
            code = compile(job["program"], "program.py", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            answer["parsed"] = False
            raise
        exec(code, names)
        answer |= {"outcome": "passed", "token": token}
    except AssertionError as error:
        answer |= {"outcome": "failed", "message": _last_line(error)}
    except BaseException as error:  # Whatever a program may raise, SystemExit too: it is told, never passed on.
        names.clear()  # What it filled the memory with; telling needs some.
        answer |= {"outcome": "error", "message": _last_line(error)}
    os.write(answer_fd, b"\n" + json.dumps(answer).encode())
    os._exit(0)


def _last_line(error):
    try:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
    except BaseException:  # Even str() of a program's exception may raise anything.
        return type(error).__name__


def _limit(seconds, memory_bytes):
    import resource

    limits = {"RLIMIT_CPU": int(seconds) + 2, "RLIMIT_AS": memory_bytes, "RLIMIT_FSIZE": _FILE_BYTES,
              "RLIMIT_NOFILE": _OPEN_FILES, "RLIMIT_NPROC": 0, "RLIMIT_CORE": 0}
    for name, limit in limits.items():
        if hasattr(resource, name):
            hard = resource.getrlimit(getattr(resource, name))[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(getattr(resource, name), (limit, limit))


def _hook(folder, library):
    """Refuses processes, threads, sockets and foreign code, writing outside of `folder`, and reading outside of it and
    of Python's own `library`. An audit hook cannot be taken away once it is there (PEP 578)."""
    realpath, fsdecode, separator = os.path.realpath, os.fsdecode, os.sep
    # Of its own: the program can import this module as __main__ and empty the tables there.
    refused_events, refused_modules, written_paths, writing = (
        _REFUSED_EVENTS, frozenset(_REFUSED_MODULES), dict(_WRITTEN_PATHS), _WRITING)
    folder = realpath(folder) + separator
    readable = (folder, library + separator, os.devnull, "/dev/urandom")

    def inside(path, roots):
        # Numbers are open files; None is the working folder.
        return path is None or isinstance(path, int) or (realpath(fsdecode(path)) + separator).startswith(roots)

    def hook(event, arguments):
        if event == "open":
            path, _, flags = arguments
            if not inside(path, (folder, os.devnull) if (flags or 0) & writing else readable):
                raise PermissionError(f"the sandbox refuses to open {path!r}")
        elif event == "import":
            if arguments[0].split(".")[0] in refused_modules:
                raise PermissionError(f"the sandbox refuses to import {arguments[0]}")
        elif event in written_paths:
            if not all(inside(path, folder) for path in arguments[:written_paths[event]]):
                raise PermissionError(f"the sandbox refuses {event} outside of its folder")
        elif event.startswith(refused_events):
            raise PermissionError(f"the sandbox refuses {event}")

    return hook


if __name__ == "__main__":
    main()
