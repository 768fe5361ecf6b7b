"""The program: what it says, and how it ends."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVE = [sys.executable, str(ROOT / "experiments" / "serve.py")]


def started(workdir, *arguments):
    """(process, url), once it serves."""
    process = subprocess.Popen([*SERVE, f"--workdir={workdir}", "--port=0", *arguments], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PURELM_API_KEY": ""})
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return process, re.search(r"http://[\d.]+:\d+", line)[0]


def ended(process):
    try:
        return process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def test_sigterm_ends_a_stream_clearly_and_the_program_well(language_run):
    """Reddens when what runs is cut off without a word, or the exit code is not 0."""
    # The programs are those of test_limits.py, compiled once for both.
    process, url = started(language_run, "--drain_seconds=0.3", "--max_new_tokens=100000",
                           "--max_prompt_tokens=256", "--slots=1")
    body = {"prompt": "x", "max_tokens": 100_000, "stream": True, "logit_bias": {"256": -100}}
    lines = []
    try:
        with httpx.Client(timeout=30) as client:
            with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
                assert answer.status_code == 200, answer.read()
                for line in answer.iter_lines():
                    lines += [line] if line else []
                    if len(lines) == 3:
                        process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
    finally:
        output, errors = ended(process)
    assert process.returncode == 0, errors
    assert json.loads(lines[-3].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "server_stopping"
    assert lines[-1] == "data: [DONE]"
    assert [line.split()[0] for line in errors.splitlines()] == ["loading", "warm-up", "stopped"]


@pytest.mark.slow
def test_what_runs_is_finished_within_the_drain_seconds(language_run):
    process, url = started(language_run, "--drain_seconds=30", "--host=0.0.0.0")
    found = []
    asking = threading.Thread(target=lambda: found.append(httpx.post(
        f"{url}/v1/completions", timeout=30, json={"prompt": "x", "max_tokens": 3000, "logit_bias": {"256": -100}})))
    asking.start()
    while httpx.get(f"{url}/health").json()["running"] == 0:
        pass
    process.send_signal(signal.SIGINT)
    asking.join()
    output, errors = ended(process)
    assert found[0].status_code == 200 and found[0].json()["usage"]["completion_tokens"] == 3000
    assert process.returncode == 0 and "warning: --host=0.0.0.0 without an API key" in errors


def test_mistakes_are_one_line(language_run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, said in [([f"--port={port}"], f"error: --port={port} on 127.0.0.1: Address already in use"),
                                (["--host=nowhere.invalid"], "error: --host=nowhere.invalid: "),
                                (["--port=65536"], "error: --port=65536")]:
            done = subprocess.run([*SERVE, f"--workdir={language_run}", *arguments], text=True, capture_output=True,
                                  timeout=60)
            assert done.returncode == 2 and done.stderr.startswith(said) and done.stderr.count("\n") == 1, done.stderr
