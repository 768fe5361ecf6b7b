"""An engine on a thread of its own."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import storm

from purelm.inference.engine import Busy, EngineThread, Request
from purelm.inference.sampling import Sampler

GREEDY = Sampler(temperature=0.0)


class Waiter(storm.Answer):
    """An answer that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.done = threading.Event()
        self.begun = threading.Event()

    def __call__(self, event) -> None:
        super().__call__(event)
        self.begun.set()
        if self.finished:
            self.done.set()


@pytest.fixture
def thread():
    thread = EngineThread(storm.make_engine())
    thread.start()
    yield thread
    thread.stop(0)
    assert not thread.alive


def test_many_threads_submit_and_each_gets_its_own(thread):
    """It sleeps between, and is woken by a request."""
    rng = np.random.default_rng(3)
    requests = [storm.random_request(rng) for _ in range(24)]
    answers = [Waiter() for _ in requests]

    def client(number: int) -> None:
        for request, answer in list(zip(requests, answers))[number::4]:
            thread.submit(request, answer)
            assert answer.done.wait(30)
            time.sleep(0.01)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    for request, answer in zip(requests, answers):
        assert answer.tokens == storm.alone(storm.DECODER, request).tokens


def test_cancelling_from_another_thread(thread):
    answer = Waiter()
    ticket = thread.submit(Request((1, 2), 94, GREEDY), answer)
    thread.cancel(ticket)
    assert answer.done.wait(30) and answer.reason == "cancelled"


def test_stopping_finishes_what_runs():
    thread, answers = EngineThread(storm.make_engine()), [Waiter() for _ in range(8)]
    thread.start()
    for answer in answers:
        thread.submit(Request((1, 2), 20, GREEDY), answer)
    thread.stop(60)
    assert {answer.reason for answer in answers} == {"length"}
    with pytest.raises(Busy):
        thread.submit(Request((1, 2), 20, GREEDY), Waiter())


def test_stopping_ends_the_rest():
    thread, answers = EngineThread(storm.make_engine(slots=1)), [Waiter() for _ in range(60)]
    for answer in answers:
        thread.submit(Request((1, 2), 94, GREEDY), answer)
    thread.start()
    assert answers[0].begun.wait(30)
    thread.stop(0)
    assert answers[-1].reason == "shutdown"
    assert all(answer.finished for answer in answers)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_breaks_leaves_nobody_waiting():
    engine = storm.make_engine()
    thread, answer = EngineThread(engine), Waiter()
    engine._run_decode = None
    thread.start()
    thread.submit(Request((1, 2), 20, GREEDY), answer)
    assert answer.done.wait(30) and answer.reason == "error"
    with pytest.raises(RuntimeError, match="broke"):
        thread.submit(Request((1, 2), 20, GREEDY), Waiter())
    assert not thread.alive
    thread.stop(0)
