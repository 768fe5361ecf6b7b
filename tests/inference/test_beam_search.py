"""Beam search against greedy and exhaustive search, on a random second-order Markov model in place of a network."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.inference import beam_search

VOCABULARY, END, LENGTH, KINDS = 4, 3, 5, 6


def start_sources(config, params, source_BS, source_segments_BS, *, beam_size, length):
    del config, params, length
    ends_BK = jnp.full((source_BS.shape[0], beam_size), END)
    return {"kind_B1": jnp.sum(source_BS * source_segments_BS, axis=1, keepdims=True), "before_BK": ends_BK}


def step(config, params, tokens_BK, state):
    del config
    logits_BKV = params[state["kind_B1"], state["before_BK"], tokens_BK]
    return logits_BKV, state | {"before_BK": tokens_BK}


def follow(state, parents_BK):
    return state | {"before_BK": jnp.take_along_axis(state["before_BK"], parents_BK, axis=1)}


@pytest.fixture(autouse=True)
def markov(monkeypatch):
    functions = types.SimpleNamespace(start_sources=start_sources, step=step, follow=follow)
    monkeypatch.setattr(beam_search, "hypotheses", functions)


def table(seed=0, size=VOCABULARY):
    return np.random.default_rng(seed).normal(size=(KINDS, size, size, size)).astype(np.float32) * 1.5


def search(logits, kinds=range(KINDS), **options):
    source_BS = np.array([[kind, 1] for kind in kinds], np.int32)  # the second column is padding
    segments_BS = np.array([[1, 0]] * len(source_BS), np.int32)
    options = {"beam_size": 1, "max_new_tokens": LENGTH, "length_penalty": 0.6, "end_id": END,
               "vocabulary_size": VOCABULARY} | options
    return jax.device_get(beam_search.search(None, logits, source_BS, segments_BS, **options))


def answers(found):
    return [tuple(ids[:length]) for ids, length in zip(found.ids_BT.tolist(), found.lengths_B)]


def log_probability(logits, kind, ids):
    before, last, total = END, END, 0.0
    for token in ids:
        row = logits[kind, before, last].astype(np.float64)
        total += row[token] - np.log(np.exp(row).sum())
        before, last = last, token
    return total


def every_ended():
    for length in range(LENGTH):
        for ids in itertools.product(range(END), repeat=length):
            yield (*ids, END)


def test_a_beam_of_one_is_greedy():
    # Reddens where the state or the last token is one step off, or where the search goes on after the best ends.
    logits = table()
    for kind, found in enumerate(answers(search(logits))):
        ids, before, last = [], END, END
        while len(ids) < LENGTH and (not ids or ids[-1] != END):
            ids.append(int(logits[kind, before, last].argmax()))
            before, last = last, ids[-1]
        assert found == tuple(ids)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
def test_a_wide_beam_is_exhaustive_search(alpha):
    # Reddens for a wrong length, a penalty of the wrong sign, beams mixed between rows, or a stop that is too early.
    logits = table(1)
    found = search(logits, beam_size=400, length_penalty=alpha)
    for kind, ids in enumerate(answers(found)):
        best = max(every_ended(), key=lambda ids: log_probability(logits, kind, ids) / ((5 + len(ids)) / 6) ** alpha)
        assert ids == best
    expected = [log_probability(logits, kind, ids) for kind, ids in enumerate(answers(found))]
    np.testing.assert_allclose(found.log_probability_B, expected, rtol=1e-5)
    assert found.finished_B.all() and found.finite


def test_a_larger_penalty_prefers_longer_answers():
    # Reddens where alpha is not read. The ends are made likely, so that the best short answers win without it.
    logits = table(2)
    logits[..., END] += 1
    short, long = (search(logits, beam_size=400, length_penalty=alpha) for alpha in (0.0, 3.0))
    assert short.lengths_B.mean() < long.lengths_B.mean()


def test_wider_beams_find_likelier_answers():
    logits = table(3)
    means = [search(logits, beam_size=beams, length_penalty=0.0).log_probability_B.mean() for beams in (1, 2, 8)]
    assert means[0] < means[1] <= means[2]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_row_does_not_depend_on_the_others(beam_size):
    # Reddens where a row that is done goes on improving while others run.
    logits = table(4)
    together = search(logits, beam_size=beam_size)
    for kind in range(KINDS):
        alone = search(logits, [kind], beam_size=beam_size)
        assert answers(alone)[0] == answers(together)[kind]
        np.testing.assert_allclose(alone.log_probability_B[0], together.log_probability_B[kind], rtol=1e-6)


def test_ids_beyond_the_vocabulary_are_never_drawn():
    padded = np.concatenate([np.pad(table(5), ((0, 0), (0, 0), (0, 0), (0, 0))),
                             np.full((KINDS, VOCABULARY, VOCABULARY, 2), 50, np.float32)], axis=-1)
    for beam_size in (1, 3):
        found, plain = search(padded, beam_size=beam_size), search(table(5), beam_size=beam_size)
        assert (found.ids_BT < VOCABULARY).all()
        np.testing.assert_allclose(found.log_probability_B, plain.log_probability_B, rtol=1e-6)


def test_without_an_end_the_likeliest_is_given_at_full_length():
    logits = table(6)
    logits[..., END] = -1e9
    found = search(logits, beam_size=3)
    assert not found.finished_B.any() and (found.lengths_B == LENGTH).all()
    expected = [log_probability(logits, kind, ids) for kind, ids in enumerate(answers(found))]
    np.testing.assert_allclose(found.log_probability_B, expected, rtol=1e-5)


def test_logits_that_are_not_numbers_are_told():
    logits = table(7)
    logits[0, END, END] = np.nan
    assert not search(logits).finite
