"""A random second-order Markov model in place of a network, for tests of beam search."""

import types

import jax
import jax.numpy as jnp
import numpy as np

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


FUNCTIONS = types.SimpleNamespace(start_sources=start_sources, step=step, follow=follow)


def table(seed=0, size=VOCABULARY):
    """Logits of each kind of text, after each pair of tokens."""
    return np.random.default_rng(seed).normal(size=(KINDS, size, size, size)).astype(np.float32) * 1.5


def search(logits, kinds=range(KINDS), **options):
    source_BS = np.array([[kind, 1] for kind in kinds], np.int32)  # the second column is padding
    segments_BS = np.array([[1, 0]] * len(source_BS), np.int32)
    options = {"beam_size": 1, "max_new_tokens": LENGTH, "length_penalty": 0.6, "target_start": (END,), "stop_id": END,
               "vocabulary_size": VOCABULARY} | options
    return jax.device_get(beam_search.search(None, logits, source_BS, segments_BS, **options))


def answers(found):
    """The best hypothesis of each row."""
    return [tuple(ids[:length]) for ids, length in zip(found.ids_BT.tolist(), found.lengths_B)]


def next_log_probabilities(logits, kind, ids):
    before, last = (END, END, *ids)[-2:]
    row = logits[kind, before, last].astype(np.float64)
    return row - np.log(np.exp(row).sum())


def log_probability(logits, kind, ids):
    return sum(next_log_probabilities(logits, kind, ids[:number])[token] for number, token in enumerate(ids))
