"""Generation: prefill and the whole token loop in one compiled program.

Every token is drawn from the model's own window: with context_length C, the token at position t of a text sees the
tokens from `window_start(t, C)` to t - 1, all of them while they fit in C, and else the last C/2 to C, for every
position scheme, so that no model reads positions that it was not trained on. A window that is full starts again with
its last half (the cache is filled anew), which costs one prefill every C/2 tokens. What a token is drawn from so
depends on the text before it alone, not on where the prompt ended. A recurrent network's state has no such end: it
sees the whole text.

Prompts of different lengths run in lock step from the end of the shortest: where a row's own prompt goes on, its next
token is taken in place of the drawn one. So every row is what it would be alone.
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
from purelm.inference.steps import Steps, recurrent_steps, transformer_steps

# Stands in the ids for a token whose logits were not numbers.
_NOT_A_NUMBER = -1
# More tokens than any text has: the window of a recurrent network.
_ENDLESS = 1 << 30

# (logits_BV, position) -> (ids_B, their log-probabilities)
Draw = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class Generated(NamedTuple):
    """What `generate` answers.

    ids_BT: int32 [B, max_new_tokens], the new ids alone; after a row's stop_id, stop_id again.
    lengths_B: int32, how many of a row's ids were generated, its stop_id included.
    stopped_B: bool, whether the row ended with stop_id.
    log_probabilities_B: float32, nats: of those ids, summed, under the model itself (temperature 1, nothing dropped).
    """

    ids_BT: np.ndarray
    lengths_B: np.ndarray
    stopped_B: np.ndarray
    log_probabilities_B: np.ndarray


class _State(NamedTuple):
    """The loop's carry: ids_BX are known up to `position`, the memory up to the token before the last of them."""

    ids_BX: jax.Array
    position: jax.Array
    lengths_B: jax.Array
    stopped_B: jax.Array
    log_probabilities_B: jax.Array
    memory: Any


class _Rows(NamedTuple):
    """Where each row's own prompt ends, and where its answer ends at the latest: positions, int32 [B]."""

    starts_B: jax.Array
    ends_B: jax.Array


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
    prompt_lengths_B: Any = None,
    stop_id: int | None = None,
    vocabulary_size: int | None = None,
) -> Generated:
    """Continues prompts by `max_new_tokens` tokens, or until every row has produced `stop_id`.

    Args:
      config: the model's, with vocabulary_size set.
      params: its parameters; `unstack_layers(params)` spares repeated calls a copy of the layers each.
      prompt_ids_BT: integers [B, T], at least one token a row; may be longer than the context.
      max_new_tokens: at most so many a row, also past the context (see the module's docstring).
      sampler: how tokens are drawn.
      key: one random key, of which row r uses fold_in(key, r), or an array of B typed keys, one a row. The token at
        position t is drawn with fold_in(row's key, t): a row does not depend on the others, nor a token on the
        prompt's length.
      prompt_lengths_B: tokens of each row's prompt, where they differ; what follows them in prompt_ids_BT is not
        read. Rows wait for the longest prompt, so give prompts of like length together.
      stop_id: ends a row.
      vocabulary_size: the tokenizer's, where the model's is padded: ids from it on are never drawn.

    Raises UserError for an empty prompt, prompt ids or a stop_id outside of the vocabulary, max_new_tokens < 0, or
    logits that are not finite.
    One program is compiled for each config, sampler, batch size and bucket of lengths (see `_sizes`).
    """
    vocabulary_size = config.vocabulary_size if vocabulary_size is None else vocabulary_size
    prompt_BT, prompt_lengths_B = _checked_prompt(prompt_ids_BT, prompt_lengths_B, vocabulary_size)
    if max_new_tokens < 0:
        raise UserError(f"max_new_tokens is {max_new_tokens}; it must be 0 or more")
    if stop_id is not None and not 0 <= stop_id < vocabulary_size:
        raise UserError(f"stop_id {stop_id} is outside of the vocabulary (0 to {vocabulary_size - 1})")
    options = {"max_new_tokens": max_new_tokens, "sampler": sampler, "stop_id": stop_id,
               "vocabulary_size": vocabulary_size}
    keys_B = _row_keys(key, len(prompt_BT))
    if not config.prefix_attention or len(set(prompt_lengths_B.tolist())) == 1:
        return _generate(config, params, prompt_BT, prompt_lengths_B, keys_B, **options)
    # A prompt that is read both ways is read at once: rows of one length at a time.
    parts, order = [], []
    for length in sorted(set(prompt_lengths_B.tolist())):
        rows = np.flatnonzero(prompt_lengths_B == length)
        order.append(rows)
        parts.append(_generate(config, params, prompt_BT[rows, :length], prompt_lengths_B[rows], keys_B[rows],
                               **options))
    back = np.argsort(np.concatenate(order))
    return Generated(*(np.concatenate(leaves)[back] for leaves in zip(*parts)))


def _generate(config, params, prompt_BT, prompt_lengths_B, keys_B, *, max_new_tokens, sampler, stop_id,
              vocabulary_size) -> Generated:
    """`generate` of checked prompts, of one length each where the model has prefix_attention."""
    shortest, longest = int(prompt_lengths_B.min()), int(prompt_lengths_B.max())
    # The tokens before the first window are never seen; window_start commutes with cropping them.
    origin = window_start(shortest, _window(config))
    starts_B, end = (prompt_lengths_B - origin).astype(np.int32), longest - origin + max_new_tokens
    sizes = _sizes(config, shortest - origin, end)
    ids_BX = np.zeros((len(prompt_BT), sizes.buffer), np.int32)
    ids_BX[:, :longest - origin] = prompt_BT[:, origin:longest]
    state = _run(
        config, sampler, sizes, vocabulary_size, params, ids_BX,
        _Rows(starts_B, starts_B + np.int32(max_new_tokens)), np.int32(origin), keys_B,
        np.int32(-1 if stop_id is None else stop_id),
    )
    ids_BX, lengths_B, stopped_B, log_probabilities_B = jax.device_get(state)
    number_T = np.arange(max_new_tokens)
    new_BT = np.take_along_axis(ids_BX, starts_B[:, None] + number_T, axis=1)
    written_BT = number_T < lengths_B[:, None]
    if (written_BT & (new_BT == _NOT_A_NUMBER)).any():
        raise UserError("the model's logits are not finite: its parameters are damaged, or its training diverged; "
                        "take an earlier checkpoint")
    if stop_id is not None:
        new_BT = np.where(written_BT, new_BT, stop_id)
    return Generated(new_BT, lengths_B, stopped_B, log_probabilities_B)


def _checked_prompt(prompt_ids_BT: Any, prompt_lengths_B: Any, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32 [B, T], 0 past each row's prompt; int32 [B] lengths)."""
    prompt_BT = np.asarray(prompt_ids_BT)
    if prompt_BT.ndim != 2 or prompt_BT.size == 0:
        raise UserError(f"the prompt has shape {prompt_BT.shape}; it must be [rows, tokens] with one token or more")
    rows, longest = prompt_BT.shape
    lengths_B = np.full(rows, longest) if prompt_lengths_B is None else np.asarray(prompt_lengths_B)
    if lengths_B.shape != (rows,) or lengths_B.min() < 1 or lengths_B.max() > longest:
        raise UserError(f"prompt_lengths_B is {lengths_B.tolist()}; it must be {rows} numbers from 1 to {longest}")
    prompt_BT = np.where(np.arange(longest) < lengths_B[:, None], prompt_BT, 0)
    outside = prompt_BT[(prompt_BT < 0) | (prompt_BT >= vocabulary_size)]
    if outside.size:
        raise UserError(f"prompt id {outside[0]} is outside of the vocabulary (0 to {vocabulary_size - 1})")
    return prompt_BT.astype(np.int32), lengths_B.astype(np.int32)


def _row_keys(key: jax.Array, batch_size: int) -> jax.Array:
    """One typed key a row."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim == 1:
        return key
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch_size))


def _window(config: ModelConfig) -> int:
    """The most tokens that one is drawn from."""
    return _ENDLESS if config.architecture == "recurrent" else config.context_length


def _sizes(config: ModelConfig, prompt_length: int, end: int) -> _Sizes:
    """Shapes for positions up to `end`, rounded up so that near lengths share a program.

    The prefill (all but the last token of a window; all where the prompt is read both ways) is rounded to a power of
    two, the cache, which every step reads whole, to a multiple of 64; neither beyond the context, and both padded on
    the right, where no query looks.
    """
    context_length = _window(config)
    slides = end > context_length + 1
    prefill = prompt_length - 1 if not slides else max(prompt_length - 1, context_length // 2)
    prefill = min(_power_of_two(prefill + config.prefix_attention), context_length)
    cache = min(max(-(-end // 64) * 64, prefill), context_length)
    return _Sizes(buffer=_power_of_two(end + prefill), prefill=prefill, cache=cache)


def _power_of_two(size: int) -> int:
    return max(16, 1 << max(size - 1, 0).bit_length())


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(config, sampler, sizes, vocabulary_size, params, ids_BX, rows, origin, keys_B, stop_id):
    """The compiled program: `_decode` with the model's steps."""
    batch_size, shortest = ids_BX.shape[0], jnp.min(rows.starts_B)
    if config.architecture == "recurrent":
        steps = recurrent_steps(config, params, rows=batch_size, prefill=sizes.prefill)
    else:
        steps = transformer_steps(config, params, rows=batch_size, cache=sizes.cache, prefill=sizes.prefill,
                                  prompt_end=shortest)

    def draw(logits_BV: jax.Array, position: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, origin + position)
        logits_BV = mask_vocabulary(logits_BV.astype(jnp.float32), vocabulary_size)
        ids_B = sample(sampler, logits_BV, keys)
        chosen_B = jnp.take_along_axis(logits_BV, ids_B[:, None], axis=-1)[:, 0]
        log_probabilities_B = chosen_B - jax.nn.logsumexp(logits_BV, axis=-1)
        return jnp.where(jnp.isfinite(jnp.max(logits_BV, axis=-1)), ids_B, _NOT_A_NUMBER), log_probabilities_B

    state = _State(
        ids_BX=ids_BX,
        position=shortest,
        lengths_B=jnp.zeros(batch_size, jnp.int32),
        stopped_B=jnp.zeros(batch_size, bool),
        log_probabilities_B=jnp.zeros(batch_size, jnp.float32),
        memory=steps.memory,
    )
    state = _decode(steps, draw, rows, state, stop_id, window=_window(config))
    return state.ids_BX, state.lengths_B, state.stopped_B, state.log_probabilities_B


def _decode(steps: Steps, draw: Draw, rows: _Rows, state: _State, stop_id: jax.Array, *, window: int) -> _State:
    """Draws tokens from state.position until all rows have stopped or reached their ends; window after window."""

    def next_window(state: _State) -> _State:
        start = window_start(state.position, window)
        state = state._replace(memory=steps.prefill(state.ids_BX, start, state.position, state.memory))
        last = start + window + 1
        return jax.lax.while_loop(lambda state: unfinished(state) & (state.position < last), next_token, state)

    def next_token(state: _State) -> _State:
        tokens_B1 = jax.lax.dynamic_slice_in_dim(state.ids_BX, state.position - 1, 1, axis=1)
        logits_BV, memory = steps.step(tokens_B1, state.memory)
        ids_B, log_probabilities_B = draw(logits_BV, state.position)
        given_B = jax.lax.dynamic_slice_in_dim(state.ids_BX, state.position, 1, axis=1)[:, 0]
        in_prompt_B = state.position < rows.starts_B
        ids_B = jnp.where(in_prompt_B, given_B, ids_B)
        written_B = ~in_prompt_B & ~finished(state)
        return _State(
            ids_BX=jax.lax.dynamic_update_slice_in_dim(state.ids_BX, ids_B[:, None], state.position, axis=1),
            position=state.position + 1,
            lengths_B=state.lengths_B + written_B,
            stopped_B=state.stopped_B | (written_B & (ids_B == stop_id)),
            log_probabilities_B=state.log_probabilities_B + jnp.where(written_B, log_probabilities_B, 0),
            memory=memory,
        )

    def finished(state: _State) -> jax.Array:
        return state.stopped_B | (state.position >= rows.ends_B)

    def unfinished(state: _State) -> jax.Array:
        return ~jnp.all(finished(state))

    return jax.lax.while_loop(unfinished, next_window, state)
