"""Every request gets what it gets alone, bit for bit, in any crowd; and what `generate` gives."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import storm

from purelm.inference import generate
from purelm.inference.engine.request import Request
from purelm.inference.sampling import Sampler


@pytest.mark.parametrize("architecture, prefix_reuse, seed", [
    ("decoder", True, 0), ("decoder", True, 1), ("decoder", False, 2), ("recurrent", True, 3)])
def test_a_storm_changes_nobody(architecture, prefix_reuse, seed):
    """Reddens where a row reads another's page, key, rule or text; where a chunk's cut depends on reuse; where a log-
    probability is computed in another program. Requests come, and some go, at random moments."""
    rng, config = np.random.default_rng(seed), storm.CONFIGS[architecture]
    engine = storm.make_engine(config, prefix_reuse=prefix_reuse)
    waiting, answers, cancelled = [storm.random_request(rng) for _ in range(36)], [], {}
    while waiting or engine.step():
        for _ in range(rng.integers(4)):
            if waiting:
                answers.append((waiting.pop(), storm.Answer()))
                ticket = engine.submit(*answers[-1])
                if rng.random() < 0.15:
                    cancelled[ticket.number] = (ticket, int(rng.integers(1, 12)))
        for number, (ticket, rounds) in list(cancelled.items()):
            cancelled[number] = (ticket, rounds - 1)
            if rounds == 0:
                engine.cancel(ticket)
        engine.step()
    reasons = set()
    for number, (request, answer) in enumerate(answers):
        expected = storm.alone(config, request)
        reasons.add(answer.reason)
        if answer.reason == "cancelled":
            assert number in cancelled
            assert answer.tokens == expected.tokens[:len(answer.tokens)]
        else:
            assert answer.tokens == expected.tokens  # Ids, and floats without any tolerance.
            assert answer.reason == expected.reason
    assert reasons == {"stop", "length", "cancelled"}
    stats = engine.stats()
    assert stats.running == stats.waiting == stats.pages_used == 0
    assert (stats.reused_tokens > 0) == (prefix_reuse and architecture == "decoder")


GREEDY, MIXED = storm.SAMPLERS[0], Sampler(temperature=0.9, top_k=6, repetition_penalty=1.2, frequency_penalty=0.3)


@pytest.mark.parametrize("architecture", list(storm.CONFIGS))
@pytest.mark.parametrize("sampler", [GREEDY, MIXED])
def test_the_answer_is_generates(architecture, sampler):
    """Past the context too. In float32, where nothing is so near that rounding decides."""
    config, rng = storm.CONFIGS[architecture], np.random.default_rng(7)
    engine, answers = storm.make_engine(config), []
    for length in (9, 26, 50):
        request = Request(tuple(rng.integers(0, storm.VOCABULARY, length).tolist()), 40, sampler, seed=length, index=2,
                          alternatives=3)
        answers.append((request, storm.Answer()))
        engine.submit(*answers[-1])
    storm.finish(engine)
    for request, answer in answers:
        key = jax.random.fold_in(jax.random.key(request.seed), request.index)
        expected = generate(config, storm.make_params(config), np.array([request.prompt_ids]), max_new_tokens=40,
                            sampler=sampler, key=key[None], vocabulary_size=storm.VOCABULARY, log_probabilities=3)
        assert answer.ids == expected.ids_BT[0].tolist()
        np.testing.assert_allclose([token.log_probability for token in answer.tokens],
                                   expected.log_probabilities_BT[0], atol=1e-4)
        np.testing.assert_array_equal([[i for i, _ in token.alternatives] for token in answer.tokens],
                                      expected.alternative_ids_BTJ[0])


@pytest.mark.parametrize("architecture", list(storm.CONFIGS))
def test_stop_strings_and_constraints_are_generates(architecture):
    config = storm.CONFIGS[architecture]
    for name, automaton in (("stop", storm.stop_string()), ("constraint", storm.constraint())):
        request = Request((3, 5), 20, Sampler(), seed=4, stop_id=(6, 0), **{name: automaton})
        answer = storm.alone(config, request)
        expected = generate(config, storm.make_params(config), np.array([[3, 5]]), max_new_tokens=20, sampler=Sampler(),
                            key=jax.random.key(4), vocabulary_size=storm.VOCABULARY, stop_id=(6, 0),
                            **{name: automaton})
        assert answer.ids == expected.ids_BT[0, :expected.lengths_B[0]].tolist()
        assert len(answer.ids) > 1
