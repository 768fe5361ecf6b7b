"""How speculative decoding draws tokens and judges guesses, each position by its own key."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.inference.decode_loop import window_start
from purelm.inference.penalties import History
from purelm.inference.sampling import Sampler, draw, filter_logits, mask_vocabulary
from purelm.inference.speculative_drafts import LookUp

# What a key of a position is for, where tokens are rejected; fold_in(key, purpose).
_DRAFT, _ACCEPT, _INSTEAD = 1, 2, 3


class Plan(NamedTuple):
    """All that a program is compiled for. draft: a LookUp, or the draft model's config."""

    config: ModelConfig
    draft: ModelConfig | LookUp
    num_drafted: int
    sampler: Sampler
    rejects: bool
    vocabulary_size: int
    prefill: int
    draft_prefill: int
    end: int


class Inputs(NamedTuple):
    """starts_B, ends_B: positions of each answer's first token and after its last at the latest. stop_ids_S: -1 is
    none."""

    ids_BX: jax.Array
    starts_B: jax.Array
    ends_B: jax.Array
    keys_B: jax.Array
    stop_ids_S: jax.Array


def _keys(inputs: Inputs, positions_B: jax.Array, number: int) -> jax.Array:
    """Typed keys [B, T] of the tokens at positions_B + (0 ... number - 1)."""
    positions_BT = positions_B[:, None] + jnp.arange(number)
    return jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))(inputs.keys_B, positions_BT)


def draw_tokens(plan: Plan, inputs: Inputs, logits_BTV: jax.Array, ids_BX: jax.Array, positions_B: jax.Array
                ) -> jax.Array:
    """ids_BT: the token at positions_B + t of each row, drawn as `generate` draws it after ids_BX up to there."""
    B, T, V = logits_BTV.shape
    history = None
    if not plan.sampler.plain:
        lengths_BT = positions_B[:, None] + jnp.arange(T)
        history = History(jnp.repeat(ids_BX, T, axis=0), lengths_BT.reshape(-1), jnp.repeat(inputs.starts_B, T),
                          window_start(lengths_BT, plan.config.context_length).reshape(-1))
    ids_X = draw(plan.sampler, logits_BTV.reshape(B * T, V), _keys(inputs, positions_B, T).reshape(-1), history,
                 stop_id=inputs.stop_ids_S[None])
    return ids_X.reshape(B, T)


def draw_guess(plan: Plan, inputs: Inputs, logits_B1V: jax.Array, ids_BX: jax.Array, positions_B: jax.Array
           ) -> tuple[jax.Array, jax.Array | None]:
    """A draft model's token, and where tokens are rejected, the logits that it was drawn from."""
    logits_B1V = mask_vocabulary(logits_B1V.astype(jnp.float32), plan.vocabulary_size)
    if not plan.rejects:
        return draw_tokens(plan, inputs, logits_B1V, ids_BX, positions_B), None
    logits_BV = filter_logits(plan.sampler, logits_B1V[:, 0])
    keys_B = _fold(_keys(inputs, positions_B, 1)[:, 0], _DRAFT)
    return draw(Sampler(), logits_BV, keys_B, None)[:, None], logits_BV[:, None]


def reject(plan: Plan, inputs: Inputs, logits_BTV: jax.Array, drafted_logits_BGV: jax.Array, guesses_BG: jax.Array,
            positions_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(ids_BT: the guesses that are kept, and a token of the model's own after them; how many are kept)."""
    B, T, V = logits_BTV.shape
    p_BTV = jax.nn.softmax(filter_logits(plan.sampler, logits_BTV.reshape(B * T, V)), axis=-1).reshape(B, T, V)
    # After the last guess q is 0, and all of p is left.
    q_BTV = jnp.pad(jax.nn.softmax(drafted_logits_BGV, axis=-1), ((0, 0), (0, 1), (0, 0)))
    keys_BT = _keys(inputs, positions_B, T)
    uniform_BG = jax.vmap(jax.vmap(jax.random.uniform))(_fold(keys_BT[:, :-1], _ACCEPT))
    p_BG, q_BG = (jnp.take_along_axis(array_BTV[:, :-1], guesses_BG[..., None], axis=-1)[..., 0]
                  for array_BTV in (p_BTV, q_BTV))
    right_B = jnp.sum(jnp.cumprod(uniform_BG * q_BG < p_BG, axis=1), axis=1)
    p_BV, q_BV = (jnp.take_along_axis(array_BTV, right_B[:, None, None], axis=1)[:, 0] for array_BTV in (p_BTV, q_BTV))
    left_BV = jnp.maximum(p_BV - q_BV, 0)
    # Rounding may leave nothing where p and q are equal.
    left_BV = jnp.where(jnp.sum(left_BV, axis=-1, keepdims=True) > 0, left_BV, p_BV)
    instead_keys_B = jnp.take_along_axis(_fold(keys_BT, _INSTEAD), right_B[:, None], axis=1)[:, 0]
    instead_B = draw(Sampler(), jnp.log(left_BV), instead_keys_B, None)
    padded_BT = jnp.pad(guesses_BG, ((0, 0), (0, 1)))
    return jnp.where(jnp.arange(T) < right_B[:, None], padded_BT, instead_B[:, None]), right_B


def _fold(keys_X: jax.Array, purpose: int) -> jax.Array:
    keys = jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys_X.reshape(-1))
    return keys.reshape(keys_X.shape)
