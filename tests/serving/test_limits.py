"""What keeps one client from taking the server away from the others."""

import concurrent.futures
import dataclasses
import json
import socket
import threading
import time

import httpx
import openai
import pytest
from running import LIMITS, running

ENDLESS = {"prompt": "x", "max_tokens": 100_000, "logit_bias": {"256": -100}}


@pytest.fixture(scope="module")
def small(language_run):
    """One slot, one that waits."""
    limits = dataclasses.replace(LIMITS, new_tokens=100_000, waiting=1, seconds=20.0, buffered_tokens=500)
    with running(language_run, limits=limits, slots=1) as found:
        yield found


@pytest.fixture
def ask(small):
    with httpx.Client(base_url=small.url, timeout=30) as client:
        yield client


def wait_until(check, seconds=10.0):
    ends = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends, "too late"
        time.sleep(0.01)


def idle(small):
    numbers = small.served.engine.stats()
    return not numbers.running and not numbers.waiting


def send(small, body):
    """A socket that has sent a completion's request."""
    host, port = small.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    content = json.dumps(body).encode()
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                       b"Content-Length: %d\r\n\r\n" % len(content) + content)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_slot(small, stream):
    """Reddens when nobody watches for the end of the connection."""
    connection = send(small, {**ENDLESS, "stream": stream})
    wait_until(lambda: small.served.engine.stats().running == 1)
    connection.close()
    wait_until(lambda: idle(small), 2.0)


def test_a_full_queue_is_told_and_others_are_not_disturbed(small, ask):
    """Reddens when requests wait without bound, or a refused request's other choices run on."""
    running_one = send(small, {**ENDLESS, "stream": True})
    wait_until(lambda: small.served.engine.stats().running == 1)
    waiting_one = send(small, ENDLESS)
    wait_until(lambda: small.served.engine.stats().waiting == 1)
    answer = ask.post("/v1/completions", json={"prompt": "x", "n": 2})
    assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["type"] == "rate_limit_error"
    with openai.OpenAI(base_url=f"{small.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError):
            client.completions.create(model="tiny", prompt="x")
    running_one.close()
    waiting_one.close()
    wait_until(lambda: idle(small), 3.0)
    assert ask.post("/v1/completions", json={"prompt": "x"}).status_code == 200


def test_one_choice_too_many_ends_those_that_were_taken(small, ask):
    assert ask.post("/v1/completions", json={**ENDLESS, "n": 8}).status_code == 429
    wait_until(lambda: idle(small), 3.0)


def test_a_request_has_its_time(small, ask):
    """Reddens when the time that a request may take does not reach the engine."""
    small.served.limits = dataclasses.replace(small.served.limits, seconds=0.3)
    try:
        answer = ask.post("/v1/completions", json=ENDLESS)
        assert answer.status_code == 504 and answer.json()["error"]["code"] == "deadline"
        streamed = ask.post("/v1/completions", json={**ENDLESS, "stream": True}).text
        lines = [line for line in streamed.splitlines() if line]
        assert json.loads(lines[-3].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "deadline"
        assert lines[-1] == "data: [DONE]"
    finally:
        small.served.limits = dataclasses.replace(small.served.limits, seconds=20.0)
    wait_until(lambda: idle(small), 2.0)


def test_a_client_that_does_not_read_is_ended(small):
    """Reddens when what is written and not read grows without bound."""
    connection = send(small, {**ENDLESS, "stream": True, "logprobs": 20})
    wait_until(lambda: small.served.engine.stats().running == 1)
    wait_until(lambda: idle(small), 15.0)
    connection.settimeout(5)
    content = b""
    while b"[DONE]" not in content[-100:]:
        part = connection.recv(1 << 20)
        assert part
        content = (content + part)[-4000:]
    assert b'"code":"slow_reader"' in content
    connection.close()


def test_a_body_that_does_not_come_is_not_waited_for(small):
    small.served.limits = dataclasses.replace(small.served.limits, seconds=0.2)
    try:
        host, port = small.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                               b"Content-Length: 100\r\n\r\n{")
            connection.settimeout(5)
            assert b" 408 " in connection.recv(4096).splitlines()[0]
    finally:
        small.served.limits = dataclasses.replace(small.served.limits, seconds=20.0)


def test_many_at_once_get_what_each_gets_alone(client, server):
    """Reddens when an answer depends on who else asks."""
    def once(number):
        return client.completions.create(model="tiny", prompt=f"User: {number}", seed=number, max_tokens=20 + number,
                                         temperature=0.5 * (number % 3)).choices[0].text

    alone = [once(number) for number in range(12)]
    found = [None] * 12

    def work(number):
        found[number] = once(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_slow_constraints_keep_nobody_else_waiting(http, server, monkeypatch):
    """Reddens when they are compiled by the threads that others need: as many wait here as there can be of those."""
    automata, released = server.served.automata, threading.Event()
    compile_now = automata._compile

    def compile_later(kind, wanted):
        assert kind != "regex" or released.wait(30)
        return compile_now(kind, wanted)

    monkeypatch.setattr(automata, "_compile", compile_later)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        asked = [pool.submit(http.post, "/v1/completions", json={"prompt": "x", "max_tokens": 8, "regex": f"a{number}"})
                 for number in range(32)]
        try:
            wait_until(lambda: server.served.waiting == 32)
            others = http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1, "stop": "other"}, timeout=10)
            assert others.status_code == 200
        finally:
            released.set()
        assert [one.result().json()["choices"][0]["text"] for one in asked] == [f"a{number}" for number in range(32)]
    wait_until(lambda: not server.served.waiting)
