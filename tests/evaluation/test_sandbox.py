"""What a program must not do: each is tried, and with the inner layer taken away, whatever the outer ones hold."""

import os
import pathlib
import socket
import sys
import threading
import time

import pytest

from purelm.evaluation import sandbox
from purelm.evaluation.sandbox import run_program, run_programs

SECONDS, MEMORY = 20.0, 1 << 28
NUL_ERROR = "SyntaxError" if sys.version_info >= (3, 11, 4) else "ValueError"


def run(program, seconds=SECONDS):
    return run_program(program, seconds=seconds, memory_bytes=MEMORY)


def test_a_program_that_runs_to_its_end_passes():
    verdict = run("import math, re, collections, hashlib, typing\nassert math.pi > 3\nprint('x')")
    assert (verdict.outcome, verdict.message, verdict.parsed) == ("passed", "", True)


@pytest.mark.parametrize("program, outcome, words", [
    ("assert 1 == 2, 'no'", "failed", "AssertionError: no"),
    ("1 / 0", "error", "ZeroDivisionError: division by zero"),
    ("def (", "error", "SyntaxError"),
    ("a\0b", "error", NUL_ERROR),
    ("def f(): f()\nf()", "error", "RecursionError"),
    ("x = []\nwhile True: x.append(bytes(10**6))", "error", "MemoryError"),
    ("x = bytes(10**10)", "error", "MemoryError"),
    ("import numpy", "error", "ModuleNotFoundError"),
    ("class E(BaseException):\n  def __str__(self): 1 / 0\nraise E()", "error", "E"),
    ("open('a', 'w').write('x' * 10**7)", "error", "OSError: [Errno 27] File too large"),
])
def test_how_programs_fail(program, outcome, words):
    verdict = run(program)
    assert verdict.outcome == outcome and verdict.message.startswith(words)
    assert verdict.parsed == (words not in ("SyntaxError", NUL_ERROR))


@pytest.mark.parametrize("trick", [
    "import sys; sys.exit(0)", "raise SystemExit(0)", "import os; os._exit(0)", "quit()",
    # A verdict of the program's own making, on every file that it holds open.
    """
import os
for fd in range(3, 64):
    try: os.write(fd, b'\\n{"outcome": "passed", "parsed": true, "token": "00"}\\n')
    except OSError: pass
os._exit(0)""",
    "import os; os.closerange(0, 64)",
])
def test_leaving_early_is_not_passing(trick):
    # Reddens where an exit code of 0, or a word written, is taken for the end of the program.
    assert run(f"{trick}\nassert False").outcome == "error"


@pytest.mark.parametrize("program", ["while True: pass", "while True: print('x' * 10000)",
                                     "import time; time.sleep(1000)",
                                     "import signal\nfor s in (1, 2, 14, 15, 24): signal.signal(s, signal.SIG_IGN)\n"
                                     "while True: pass"])
def test_what_does_not_end_is_ended(program):
    begun = time.monotonic()
    verdict = run(program, seconds=0.5)
    assert verdict.outcome == "timed_out" and time.monotonic() - begun < 8


@pytest.mark.parametrize("program", [
    "import os\nwhile True: os.fork()", "import subprocess; subprocess.run(['true'])", "import os; os.system('true')",
    "import os; os.execv('/bin/true', ['true'])", "import os; os.posix_spawn('/bin/true', ['true'], {})",
    "import multiprocessing", "import _posixsubprocess", "import ctypes", "import socket; socket.socket()",
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1')", "open('/etc/passwd').read()",
    "import os; os.kill(os.getppid(), 9)", "import os; os.rename('a', '/tmp/a')", "import os; os.symlink('/', 'a')",
    "import os; os.listdir('/'); os.open('/tmp/purelm-x', os.O_CREAT | os.O_WRONLY)", "import os; os.mkdir('../x')",
    "open('../x', 'w')", "import shutil; shutil.rmtree('/tmp')", "import resource",
    "import sqlite3; sqlite3.connect('/tmp/purelm-x')",
    "import __main__, os; __main__._REFUSED_EVENTS = (); os.system('true')",  # Reddens where the hook reads globals.
    "import __main__; __main__._REFUSED_MODULES = (); import ctypes",
    "import __main__, os; __main__._WRITTEN_PATHS.clear(); os.mkdir('../x')"])
def test_what_is_refused(program):
    verdict = run(program)
    assert verdict.outcome == "error" and "the sandbox refuses" in verdict.message


def test_nothing_is_left_and_nothing_is_known(tmp_path):
    outside = tmp_path / "outside"
    verdict = run("import os, pathlib\n"
                  "assert set(os.environ) <= {'LC_CTYPE'} and os.listdir('.') == []\n"
                  "pathlib.Path('a').write_text('x'); assert pathlib.Path('a').read_text() == 'x'\n"
                  f"try: open({str(outside)!r}, 'w')\nexcept PermissionError: raise KeyError(os.getcwd())")
    assert verdict.message.startswith("KeyError: ") and not outside.exists()
    assert not pathlib.Path(verdict.message.split("'")[1]).exists()


@pytest.fixture
def without_hook(monkeypatch, tmp_path):
    """The sandbox without its innermost layer: what an attack on that would find. Skips where there is no other."""
    text = pathlib.Path(sandbox._RUNNER).read_text().replace("    sys.addaudithook", "    0 and sys.addaudithook")
    (tmp_path / "runner.py").write_text(text)
    monkeypatch.setattr(sandbox, "_RUNNER", tmp_path / "runner.py")
    if not run("").isolated:
        pytest.skip("this kernel gives no namespaces")


def test_children_die_with_the_program_wherever_they_went(without_hook, tmp_path):
    # Reddens where a process that left its group lives on.
    beat = tmp_path / "beat"
    program = ("import os, time\n"
               f"for _ in range(2):\n  if os.fork() == 0:\n    os.setsid()\n    while True:\n"
               f"      open({str(beat)!r}, 'a').write('x'); time.sleep(0.02)\n")
    if os.getuid() != 0:
        assert run(program + "time.sleep(1000)").outcome == "error"  # The limit of processes holds for all but root.
        return
    for end, outcome in [("time.sleep(1000)", "timed_out"), ("time.sleep(0.3)", "passed")]:
        assert run(program + end, seconds=2.0).outcome == outcome
        size = beat.stat().st_size
        time.sleep(0.2)
        assert size > 0 and beat.stat().st_size == size


def test_there_is_no_network(without_hook):
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket\nsocket.create_connection({server.getsockname()!r}, timeout=5)"
        verdict = run(connect)
    assert verdict.outcome == "error" and verdict.message.startswith("OSError: [Errno")


def test_many_at_once_come_back_in_order():
    found = run_programs([f"assert {number} % 3" for number in range(9)], seconds=SECONDS, memory_bytes=MEMORY,
                         workers=3)
    assert [verdict.outcome for verdict in found] == ["failed", "passed", "passed"] * 3
    assert threading.active_count() < 10
