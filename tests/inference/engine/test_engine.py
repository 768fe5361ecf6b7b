"""What an engine does beside answering: nothing compiled, nobody disturbed, nothing kept."""

from __future__ import annotations

import dataclasses
import gc
import time
import tracemalloc

import jax
import numpy as np
import pytest
import storm

from purelm.errors import UserError
from purelm.inference.engine import Busy, Request
from purelm.inference.sampling import Sampler

GREEDY = Sampler(temperature=0.0)
COMPILED = []


def count_compilation(event: str, seconds: float, **_) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(seconds)


jax.monitoring.register_event_duration_secs_listener(count_compilation)


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, storm.VOCABULARY, length).tolist())


def test_nothing_is_compiled_after_warm_up():
    """Reddens where a shape, a type or a static argument depends on a request. Sizes of its own, so that no other test
    has compiled its programs."""
    config = dataclasses.replace(storm.DECODER, num_layers=1, width=8)
    engine, rng = storm.make_engine(config, slots=3, chunk=16, num_pages=30), np.random.default_rng(0)
    engine.warm_up()
    before = len(COMPILED)
    assert before > 0
    answers = [storm.Answer() for _ in range(40)]
    for answer in answers:
        engine.submit(storm.random_request(rng), answer)
    storm.finish(engine)
    assert all(answer.finished for answer in answers)
    assert len(COMPILED) == before


def test_samples_of_one_prompt_read_it_once():
    engine, answers = storm.make_engine(), [storm.Answer() for _ in range(4)]
    for index, answer in enumerate(answers):
        engine.submit(Request(prompt(17), 4, Sampler(), index=index), answer)
    storm.finish(engine)
    assert [answer.finished.cached_tokens for answer in answers] == [0, 16, 16, 16]
    # Three chunks of the first, and the last chunk of the others.
    assert engine.stats().prefills == 6
    assert len({tuple(answer.ids) for answer in answers}) > 1


def test_prompts_that_begin_alike_share_whole_chunks_alone():
    """Reddens where part of a chunk is shared, or the prompt's last token is not read."""
    engine, answers = storm.make_engine(), []
    for length in (17, 16, 15, 24):
        answers.append(storm.Answer())
        engine.submit(Request(prompt(24)[:length], 2, GREEDY), answers[-1])
        storm.finish(engine)
    assert [answer.finished.cached_tokens for answer in answers] == [0, 8, 8, 16]


def test_cancelled_while_waiting_and_while_running():
    engine, answers = storm.make_engine(slots=1), [storm.Answer() for _ in range(3)]
    tickets = [engine.submit(Request(prompt(5), 30, GREEDY), answer) for answer in answers]
    while not answers[0].tokens:
        engine.step()
    for ticket in tickets[:2]:
        engine.cancel(ticket)
    storm.finish(engine)
    assert [answer.reason for answer in answers] == ["cancelled", "cancelled", "length"]
    assert 0 < len(answers[0].ids) < 30 and answers[1].ids == [] and len(answers[2].ids) == 30
    engine.cancel(tickets[2])
    assert not engine.step()
    assert engine.stats().finished["cancelled"] == 2


def test_deadlines_count_from_submission():
    engine, late, waiting, quick = storm.make_engine(slots=1), storm.Answer(), storm.Answer(), storm.Answer()
    engine.submit(Request(prompt(5), 30, GREEDY, seconds=0.05), late)
    engine.submit(Request(prompt(5), 3, GREEDY, seconds=0.05), waiting)
    engine.submit(Request(prompt(5), 3, GREEDY, seconds=60), quick)
    engine.step()
    time.sleep(0.06)
    storm.finish(engine)
    assert (late.reason, waiting.reason, quick.reason) == ("deadline", "deadline", "length")
    assert len(late.ids) < 30


def test_a_full_queue_is_busy():
    engine = storm.make_engine(slots=1, max_waiting=2)
    answers = [storm.Answer() for _ in range(3)]
    for answer in answers[:2]:
        engine.submit(Request(prompt(3), 2, GREEDY), answer)
    with pytest.raises(Busy, match="2 requests are waiting"):
        engine.submit(Request(prompt(3), 2, GREEDY), answers[2])
    engine.step()
    engine.submit(Request(prompt(3), 2, GREEDY), answers[2])
    storm.finish(engine)
    assert {answer.reason for answer in answers} == {"length"}


def test_pages_are_waited_for():
    """Room for three requests past the context at a time, though there are four slots."""
    engine, answers = storm.make_engine(), [storm.Answer() for _ in range(7)]
    for seed, answer in enumerate(answers):
        engine.submit(Request(prompt(9, seed), 24, GREEDY), answer)
    most = 0
    while engine.step():
        most = max(most, engine.stats().running)
    assert most == 3
    assert {answer.reason for answer in answers} == {"length"}


def test_an_exception_of_on_event_ends_that_request_alone(caplog):
    engine, good, calls = storm.make_engine(), storm.Answer(), []

    def bad(event) -> None:
        calls.append(event)
        raise ValueError("the reader has gone")

    engine.submit(Request(prompt(5), 30, GREEDY), bad)
    engine.submit(Request(prompt(6), 30, GREEDY), good)
    storm.finish(engine)
    assert len(calls) == 1 and "the reader has gone" in caplog.text
    assert good.ids == storm.alone(storm.DECODER, Request(prompt(6), 30, GREEDY)).ids
    stats = engine.stats()
    assert (stats.finished["cancelled"], stats.finished["length"], stats.pages_used) == (1, 1, 0)


def test_logits_that_are_no_numbers_end_that_request_alone():
    """The embedding of id 11 is damaged: who has it in the prompt fails, at once and when its pages are used again."""
    params = jax.tree.map(np.array, storm.make_params(storm.DECODER))
    params["embedding"]["embedding"][11] = np.nan
    engine = storm.make_engine(params=params)
    good = Request(tuple(i % 7 for i in range(12)), 20, Sampler(banned=(11,)), seed=3)
    bad = Request((*good.prompt_ids[:8], 11, 2), 20, GREEDY)
    answers = [(request, storm.Answer()) for request in [good, bad, good, bad, bad, good] * 3]
    for request, answer in answers:
        engine.submit(request, answer)
    storm.finish(engine)
    for request, answer in answers:
        assert answer.reason == ("error" if request is bad else "length")
        assert len(answer.ids) == (0 if request is bad else 20)
    assert len({tuple(answer.ids) for request, answer in answers if request is good}) == 1


def test_a_request_that_can_never_run_is_refused():
    engine = storm.make_engine(num_pages=5)
    for fields, message in [
        ({"prompt_ids": ()}, "prompt is empty"), ({"prompt_ids": (13,)}, "prompt id 13 is outside"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"), ({"stop_id": (1, 13)}, "stop_id 13"),
        ({"stop_id": tuple(range(9))}, "at most 8"),
        ({"alternatives": 21}, "alternatives is 21"), ({"seed": 2 ** 63}, "a seed has 64 bits"),
        ({"max_new_tokens": 90}, "are more than 96"), ({"max_new_tokens": 20}, "needs 6 pages of 4 tokens"),
        ({"sampler": Sampler(banned=tuple(range(1000)))}, "banned"),
    ]:
        with pytest.raises(UserError, match=message):
            engine.submit(Request(**{"prompt_ids": prompt(8), "max_new_tokens": 5, "sampler": GREEDY, **fields}), print)
    assert not engine.step()


def test_who_has_gone_costs_nothing():
    """Reddens where a free row still asks for what costs much: every rule of its sampler, log-probabilities."""
    engine, rng = storm.make_engine(), np.random.default_rng(2)
    before = jax.tree.map(np.copy, engine._slots._rows)
    for _ in range(8):
        engine.submit(storm.random_request(rng), storm.Answer())
    storm.finish(engine)
    jax.tree.map(np.testing.assert_array_equal, engine._slots._rows, before)


def test_int8_pages_answer_nearly_the_same():
    """Reddens where the option does not reach the pages, or their scales are not written beside them."""
    request = Request(prompt(20), 6, GREEDY, alternatives=0)
    whole, rounded = storm.alone(storm.DECODER, request), storm.alone(storm.DECODER, request, int8=True)
    assert whole.tokens != rounded.tokens
    np.testing.assert_allclose(rounded.tokens[0].log_probability, whole.tokens[0].log_probability, atol=0.1)


def test_memory_stays_flat():
    """Reddens where a ticket, a callback, an event or a chunk is kept after its time."""
    engine, rng = storm.make_engine(), np.random.default_rng(5)

    def run(requests: int) -> None:
        for _ in range(requests):
            engine.submit(storm.random_request(rng, max_new_tokens=4), storm.Answer())
            storm.finish(engine)

    run(40)
    gc.collect()
    tracemalloc.start()
    run(10)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    run(120)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 60_000
    stats = engine.stats()
    assert stats.pages_used == 0 and stats.pages_cached + stats.pages_free == 23
    assert sum(stats.finished.values()) == 170
