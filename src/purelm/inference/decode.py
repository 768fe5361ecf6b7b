"""Generation: prefill and the whole token loop in one compiled program.

Every token is drawn from the model's own window: with context_length C, the token at position t of a text sees the
tokens from `window_start(t, C)` to t - 1, all of them while they fit in C, and else the last C/2 to C, for every
position scheme, so that no model reads positions that it was not trained on. A window that is full starts again with
its last half (the cache is filled anew), which costs one prefill every C/2 tokens. What a token is drawn from so
depends on the text before it alone, not on where the prompt ended.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference.sampling import Sampler, mask_vocabulary, sample
from purelm.models import Cache, Transformer, init_cache, unstack_layers

# Stands in the ids for a token whose logits were not numbers.
_NOT_A_NUMBER = -1

# (tokens_BT, cache) -> (logits_BV of the last token, cache)
Step = Callable[[jax.Array, Cache], tuple[jax.Array, Cache]]
# (logits_BV, position) -> ids_B
Draw = Callable[[jax.Array, jax.Array], jax.Array]


class Generated(NamedTuple):
    """What `generate` answers.

    ids_BT: int32 [B, max_new_tokens], the new ids alone; after a row's stop_id, stop_id again.
    lengths_B: int32, how many of a row's ids were generated, its stop_id included.
    stopped_B: bool, whether the row ended with stop_id.
    """

    ids_BT: np.ndarray
    lengths_B: np.ndarray
    stopped_B: np.ndarray


class _State(NamedTuple):
    """The loop's carry: ids_BX are known up to `position`, the cache up to the token before the last of them."""

    ids_BX: jax.Array
    position: jax.Array
    lengths_B: jax.Array
    stopped_B: jax.Array
    cache: Cache


class _Sizes(NamedTuple):
    """The shapes a program is compiled for: columns of ids, tokens of a prefill, rows of the cache."""

    buffer: int
    prefill: int
    cache: int


def window_start(position: Any, context_length: int) -> Any:
    """Position of the first token seen by the token at `position` (an int or an integer array).

    0 up to context_length, then multiples of half of it: never more than context_length tokens are seen.
    """
    stride = context_length - context_length // 2
    over = position - context_length
    return (over + stride - 1) // stride * stride * (over > 0)


def generate(
    config: ModelConfig,
    params: Any,
    prompt_ids_BT: Any,
    *,
    max_new_tokens: int,
    sampler: Sampler,
    key: jax.Array,
    stop_id: int | None = None,
    vocabulary_size: int | None = None,
) -> Generated:
    """Continues prompts by `max_new_tokens` tokens, or until every row has produced `stop_id`.

    Args:
      config: the model's, with vocabulary_size set.
      params: its parameters; `unstack_layers(params)` spares repeated calls a copy of the layers each.
      prompt_ids_BT: integers [B, T], rows of the same length, at least one token; may be longer than the context.
      max_new_tokens: at most so many a row, also past the context (see the module's docstring).
      sampler: how tokens are drawn.
      key: one random key, of which row r uses fold_in(key, r), or an array of B typed keys, one a row. The token at
        position t is drawn with fold_in(row's key, t): a row does not depend on the others, nor a token on the
        prompt's length.
      stop_id: ends a row.
      vocabulary_size: the tokenizer's, where the model's is padded: ids from it on are never drawn.

    Raises UserError for an empty prompt, prompt ids or a stop_id outside of the vocabulary, max_new_tokens < 0, or
    logits that are not finite.
    One program is compiled for each config, sampler, batch size and bucket of lengths (see `_sizes`).
    """
    vocabulary_size = config.vocabulary_size if vocabulary_size is None else vocabulary_size
    prompt_BT = _checked_prompt(prompt_ids_BT, vocabulary_size)
    if max_new_tokens < 0:
        raise UserError(f"max_new_tokens is {max_new_tokens}; it must be 0 or more")
    if stop_id is not None and not 0 <= stop_id < vocabulary_size:
        raise UserError(f"stop_id {stop_id} is outside of the vocabulary (0 to {vocabulary_size - 1})")
    # The tokens before the first window are never seen; window_start commutes with cropping them.
    origin = window_start(prompt_BT.shape[1], config.context_length)
    prompt_BT = prompt_BT[:, origin:]
    batch_size, prompt_length = prompt_BT.shape
    end = prompt_length + max_new_tokens
    sizes = _sizes(prompt_length, end, config.context_length)
    ids_BX = np.zeros((batch_size, sizes.buffer), np.int32)
    ids_BX[:, :prompt_length] = prompt_BT
    state = _run(
        config, sampler, sizes, vocabulary_size, params, ids_BX,
        np.int32(prompt_length), np.int32(end), np.int32(origin), _row_keys(key, batch_size),
        np.int32(-1 if stop_id is None else stop_id),
    )
    ids_BX, lengths_B, stopped_B = jax.device_get(state)
    new_BT = ids_BX[:, prompt_length: prompt_length + int(np.max(lengths_B))]
    if (new_BT == _NOT_A_NUMBER).any():
        raise UserError("the model's logits are not finite: its parameters are damaged, or its training diverged; "
                        "take an earlier checkpoint")
    new_BT = ids_BX[:, prompt_length:end]
    if stop_id is not None:
        new_BT = np.where(np.arange(max_new_tokens) < lengths_B[:, None], new_BT, stop_id)
    return Generated(new_BT, lengths_B, stopped_B)


def _checked_prompt(prompt_ids_BT: Any, vocabulary_size: int) -> np.ndarray:
    prompt_BT = np.asarray(prompt_ids_BT)
    if prompt_BT.ndim != 2 or prompt_BT.size == 0:
        raise UserError(f"the prompt has shape {prompt_BT.shape}; it must be [rows, tokens] with one token or more")
    outside = prompt_BT[(prompt_BT < 0) | (prompt_BT >= vocabulary_size)]
    if outside.size:
        raise UserError(f"prompt id {outside[0]} is outside of the vocabulary (0 to {vocabulary_size - 1})")
    return prompt_BT.astype(np.int32)


def _row_keys(key: jax.Array, batch_size: int) -> jax.Array:
    """One typed key a row."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim == 1:
        return key
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch_size))


def _sizes(prompt_length: int, end: int, context_length: int) -> _Sizes:
    """Shapes for positions up to `end`, rounded up so that near lengths share a program.

    The prefill (all but the last token of a window) is rounded to a power of two, the cache, which every step reads
    whole, to a multiple of 64; neither beyond the context, and both padded on the right, where no query looks.
    """
    slides = end > context_length + 1
    prefill = prompt_length - 1 if not slides else max(prompt_length - 1, context_length // 2)
    prefill = min(_power_of_two(prefill), context_length)
    cache = min(max(-(-end // 64) * 64, prefill), context_length)
    return _Sizes(buffer=_power_of_two(end + prefill), prefill=prefill, cache=cache)


def _power_of_two(size: int) -> int:
    return max(16, 1 << max(size - 1, 0).bit_length())


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(config, sampler, sizes, vocabulary_size, params, ids_BX, prompt_length, end, origin, keys_B, stop_id):
    """The compiled program: `_decode` with the model as its step."""
    # Once, before the loop: a step that sliced the stack would copy every layer for every token.
    params = params if isinstance(params["layers"], tuple) else unstack_layers(params)
    model = Transformer(config)

    def step(tokens_BT: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        output = model.apply({"params": params}, tokens_BT, cache=cache)
        return output.logits_BTV[:, -1], output.cache

    def draw(logits_BV: jax.Array, position: jax.Array) -> jax.Array:
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, origin + position)
        ids_B = sample(sampler, mask_vocabulary(logits_BV, vocabulary_size), keys)
        return jnp.where(jnp.isfinite(jnp.max(logits_BV, axis=-1)), ids_B, _NOT_A_NUMBER)

    state = _State(
        ids_BX=ids_BX,
        position=prompt_length,
        lengths_B=jnp.zeros(ids_BX.shape[0], jnp.int32),
        stopped_B=jnp.zeros(ids_BX.shape[0], bool),
        cache=init_cache(config, ids_BX.shape[0], sizes.cache),
    )
    state = _decode(step, draw, state, end, stop_id, context_length=config.context_length, prefill=sizes.prefill)
    return state.ids_BX, state.lengths_B, state.stopped_B


def _decode(
    step: Step, draw: Draw, state: _State, end: jax.Array, stop_id: jax.Array, *, context_length: int, prefill: int
) -> _State:
    """Draws tokens from state.position to `end`, or until all rows have stopped; window after window."""

    def next_window(state: _State) -> _State:
        start = window_start(state.position, context_length)
        state = state._replace(cache=_prefill(step, state, start, prefill))
        last = jnp.minimum(end, start + context_length + 1)
        return jax.lax.while_loop(functools.partial(_unfinished, last), next_token, state)

    def next_token(state: _State) -> _State:
        tokens_B1 = jax.lax.dynamic_slice_in_dim(state.ids_BX, state.position - 1, 1, axis=1)
        logits_BV, cache = step(tokens_B1, state.cache)
        ids_B = draw(logits_BV, state.position)
        return _State(
            ids_BX=jax.lax.dynamic_update_slice_in_dim(state.ids_BX, ids_B[:, None], state.position, axis=1),
            position=state.position + 1,
            lengths_B=state.lengths_B + ~state.stopped_B,
            stopped_B=state.stopped_B | (ids_B == stop_id),
            cache=cache,
        )

    return jax.lax.while_loop(functools.partial(_unfinished, end), next_window, state)


def _unfinished(end: jax.Array, state: _State) -> jax.Array:
    return (state.position < end) & ~jnp.all(state.stopped_B)


def _prefill(step: Step, state: _State, start: jax.Array, size: int) -> Cache:
    """The cache of a window's tokens from `start` on, but for the last, which the loop's first step reads.

    `size` tokens are read; those past the window's end write rows that `length` hides and later tokens overwrite. The
    logits go unused, so that XLA leaves them out.
    """
    tokens_BT = jax.lax.dynamic_slice_in_dim(state.ids_BX, start, size, axis=1)
    _, cache = step(tokens_BT, state.cache._replace(length=jnp.zeros((), jnp.int32)))
    return cache._replace(length=state.position - 1 - start)
