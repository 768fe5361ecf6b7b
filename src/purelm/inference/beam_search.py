"""Beam search with a length penalty, the whole loop in one compiled program.

The loop knows of a model only `start`, `step` and `take_rows` (models/decoding.py). Each step extends the K hypotheses
of a row by every token and keeps the best. Those that end among the K best extensions are finished, and the best
finished one is remembered; the K best that do not end go on. A row is done when K hypotheses have finished, or when
none that goes on can beat the best finished one; so with K = 1 this is greedy decoding. Hypotheses are compared by

    log p(y) / ((5 + |y|) / 6)^alpha,    |y| with the end     (Wu et al. 2016, arXiv 1609.08144, eq. 14)

What a row answers does not depend on the rows beside it.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.inference.sampling import mask_vocabulary
from purelm.models import decoding


class Found(NamedTuple):
    """The best hypothesis of each row.

    ids_BT: int32, its tokens, the end among them; padded with the end. lengths_B: how many of them are its own.
    log_probability_B: float32, nats, of the tokens together. finished_B: whether it ended. finite: bool scalar, False
    where logits were not numbers.
    """

    ids_BT: jax.Array
    lengths_B: jax.Array
    log_probability_B: jax.Array
    finished_B: jax.Array
    finite: jax.Array


class _Best(NamedTuple):
    """The best finished hypothesis of each row, and how many have finished."""

    ids_BT: jax.Array
    length_B: jax.Array
    log_probability_B: jax.Array
    score_B: jax.Array
    count_B: jax.Array


class _Beams(NamedTuple):
    """The loop's carry: `position` tokens of each hypothesis are chosen, and the decoder's state is before the last."""

    position: jax.Array
    ids_BKT: jax.Array
    log_probability_BK: jax.Array
    best: _Best
    done_B: jax.Array
    finite: jax.Array
    state: Any


@functools.partial(jax.jit, static_argnames=("config", "beam_size", "max_new_tokens", "vocabulary_size"))
def search(config: ModelConfig, params: Any, source_BS: jax.Array, source_segments_BS: jax.Array, *, beam_size: int,
           max_new_tokens: int, length_penalty: float, end_id: int, vocabulary_size: int) -> Found:
    """The likeliest target of each source that a beam of `beam_size` finds.

    Args:
      config: of an encoder-decoder, with vocabulary_size set.
      params: its parameters.
      source_BS, source_segments_BS: ids, and 1 (0 is padding).
      beam_size: K, hypotheses a row; 1 is greedy.
      max_new_tokens: at most so many tokens, the end among them. A row in which none has finished by then answers
        with the likeliest that has not.
      length_penalty: alpha, from 0.
      end_id: the token that a target starts after and ends with.
      vocabulary_size: ids from it on are never drawn.
    """
    rows = source_BS.shape[0]
    state = decoding.start(config, params, source_BS, source_segments_BS, max_new_tokens)
    if beam_size > 1:
        state = decoding.take_rows(state, jnp.repeat(jnp.arange(rows), beam_size))

    def step(tokens_B1: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        logits_BV, state = decoding.step(config, params, tokens_B1, state)
        return mask_vocabulary(logits_BV.astype(jnp.float32), vocabulary_size), state

    def penalty(length: Any) -> jax.Array:
        return ((5 + jnp.asarray(length, jnp.float32)) / 6) ** length_penalty

    beams = _first(rows, beam_size, max_new_tokens, end_id, state)
    beams = jax.lax.while_loop(
        lambda beams: (beams.position < max_new_tokens) & ~jnp.all(beams.done_B),
        lambda beams: _extend(beams, step, penalty, end_id), beams)
    return _answer(beams)


def _first(rows: int, beam_size: int, max_new_tokens: int, end_id: int, state: Any) -> _Beams:
    """One hypothesis a row, the empty one; the other K - 1 have probability 0."""
    ends_BKT = jnp.full((rows, beam_size, max_new_tokens), end_id, jnp.int32)
    impossible_B = jnp.full(rows, -jnp.inf)
    none_B = jnp.zeros(rows, jnp.int32)
    log_probability_BK = jnp.where(jnp.arange(beam_size) == 0, 0.0, jnp.full((rows, beam_size), -jnp.inf))
    return _Beams(
        position=jnp.zeros((), jnp.int32), ids_BKT=ends_BKT, log_probability_BK=log_probability_BK,
        best=_Best(ends_BKT[:, 0], none_B, impossible_B, impossible_B, none_B), done_B=jnp.zeros(rows, bool),
        finite=jnp.ones((), bool), state=state)


def _extend(beams: _Beams, step: Any, penalty: Any, end_id: int) -> _Beams:
    rows, beam_size, max_new_tokens = beams.ids_BKT.shape
    # The token before the first is the end too: it is what the ids are filled with.
    last_BK = jax.lax.dynamic_index_in_dim(beams.ids_BKT, jnp.maximum(beams.position - 1, 0), 2, keepdims=False)
    logits_XV, state = step(last_BK.reshape(-1, 1), beams.state)
    total_X1 = jax.nn.logsumexp(logits_XV, axis=-1, keepdims=True)
    chances_BKV = (logits_XV - total_X1).reshape(rows, beam_size, -1) + beams.log_probability_BK[..., None]

    # At most K of the 2K best extensions end, so K are left that go on.
    size = chances_BKV.shape[-1]
    chance_BC, index_BC = jax.lax.top_k(chances_BKV.reshape(rows, -1), min(2 * beam_size, beam_size * size))
    parent_BC, token_BC = index_BC // size, (index_BC % size).astype(jnp.int32)
    ids_BCT = jnp.take_along_axis(beams.ids_BKT, parent_BC[..., None], axis=1)
    ids_BCT = jax.lax.dynamic_update_slice_in_dim(ids_BCT, token_BC[..., None], beams.position, axis=2)

    ends_BC = token_BC == end_id
    length = beams.position + 1
    finished_BK = jnp.where(ends_BC & (jnp.arange(ends_BC.shape[1]) < beam_size), chance_BC, -jnp.inf)
    best = _better(beams.best, ids_BCT, finished_BK, finished_BK / penalty(length), length, beams.done_B)

    # Stable: those that do not end first, in the order of their chances.
    chosen_BK = jnp.argsort(ends_BC, axis=1, stable=True)[:, :beam_size]
    pick = functools.partial(jnp.take_along_axis, indices=chosen_BK, axis=1)
    alive_BK = jnp.where(pick(ends_BC), -jnp.inf, pick(chance_BC))
    if beam_size > 1:
        rows_X = (jnp.arange(rows)[:, None] * beam_size + pick(parent_BC)).reshape(-1)
        state = decoding.take_rows(state, rows_X, same_source=True)
    # Log probabilities only fall, so dividing by the largest penalty bounds what a hypothesis can come to.
    bound_B = jnp.max(alive_BK, axis=1) / penalty(max_new_tokens)
    return _Beams(
        position=length, ids_BKT=jnp.take_along_axis(ids_BCT, chosen_BK[..., None], axis=1),
        log_probability_BK=alive_BK, best=best,
        done_B=beams.done_B | (best.count_B >= beam_size) | (bound_B <= best.score_B),
        finite=beams.finite & jnp.all(jnp.isfinite(total_X1)), state=state)


def _better(best: _Best, ids_BCT: jax.Array, log_probability_BC: jax.Array, score_BC: jax.Array, length: jax.Array,
            done_B: jax.Array) -> _Best:
    """`best`, or what finished in this step where that scores higher and the row is not done."""
    column_B1 = jnp.argmax(score_BC, axis=1)[:, None]
    score_B = jnp.take_along_axis(score_BC, column_B1, axis=1)[:, 0]
    wins_B = (score_B > best.score_B) & ~done_B
    return _Best(
        jnp.where(wins_B[:, None], jnp.take_along_axis(ids_BCT, column_B1[..., None], axis=1)[:, 0], best.ids_BT),
        jnp.where(wins_B, length, best.length_B),
        jnp.where(wins_B, jnp.take_along_axis(log_probability_BC, column_B1, axis=1)[:, 0], best.log_probability_B),
        jnp.where(wins_B, score_B, best.score_B),
        best.count_B + jnp.sum(score_BC > -jnp.inf, axis=1, dtype=jnp.int32))


def _answer(beams: _Beams) -> Found:
    finished_B = beams.best.score_B > -jnp.inf
    return Found(
        ids_BT=jnp.where(finished_B[:, None], beams.best.ids_BT, beams.ids_BKT[:, 0]),
        lengths_B=jnp.where(finished_B, beams.best.length_B, beams.position),
        log_probability_B=jnp.where(finished_B, beams.best.log_probability_B, beams.log_probability_BK[:, 0]),
        finished_B=finished_B, finite=beams.finite)
