"""Models as speculative decoding reads with them: several tokens at once, each row at its own position.

A token that turns out wrong need not be unread: a cache's rows past a row's position are hidden, and are written again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.inference.decode_loop import window_start
from purelm.models import Cache, Transformer, init_cache, make_model, unstack_layers


class Reader(NamedTuple):
    """A model with its parameters, as functions of `memory`, what it remembers of each row's window.

    positions_B: of each row's next token; its last known one is at positions_B - 1.
    stale: (positions_B, memory) -> bool [B], rows whose window has ended, or never began.
    fill: (ids_BX, positions_B, memory) -> the memory of each row's window up to the token before its last known one.
    read: (tokens_BT, positions_B of their first, memory) -> (logits_BTV, memory).
    rewinds: whether reading at an earlier position is all that it takes to forget what came later.
    """

    memory: Any
    stale: Callable[[jax.Array, Any], jax.Array]
    fill: Callable[[jax.Array, jax.Array, Any], Any]
    read: Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]
    rewinds: bool


class Window(NamedTuple):
    """A decoder's memory: the keys and values of the tokens from positions starts_B on; -1 is none yet. How many of
    them there are, the positions of a call say, not the cache's length."""

    cache: Cache
    starts_B: jax.Array


class ReadState(NamedTuple):
    """A recurrent network's: its state, and whether each row's text was read."""

    carry: Any
    begun_B: jax.Array


def decoder_reader(
    config: ModelConfig, params: Any, *, capacity: int, prefill: int, ahead: int, prompt_ends_B: jax.Array
) -> Reader:
    """A decoder's.

    capacity: rows of the cache, also for the tokens that are read past the window's end and dropped. prefill: tokens
    read at once where a window begins. ahead: a window must have room for so many tokens after the next one, too; 0 is
    the rule of `generate`. prompt_ends_B: positions, for a prefix language model, whose prompt is read both ways.
    """
    params, model = unstack_layers(params), Transformer(config)
    rows, context_length = prompt_ends_B.shape[0], config.context_length

    def first(positions_B: jax.Array) -> jax.Array:
        return window_start(positions_B + ahead, context_length)

    def stale(positions_B: jax.Array, window: Window) -> jax.Array:
        return window.starts_B != first(positions_B)

    def fill(ids_BX: jax.Array, positions_B: jax.Array, window: Window) -> Window:
        # Tokens past the row's text are read with it: `read` hides what they write, and overwrites it.
        starts_B = first(positions_B)
        tokens_BT = jax.vmap(lambda ids_X, start: jax.lax.dynamic_slice(ids_X, (start,), (prefill,)))(ids_BX, starts_B)
        prefix = {}
        if config.prefix_attention:
            prefix = {"prefix_BT": starts_B[:, None] + jnp.arange(prefill) < prompt_ends_B[:, None]}
        cache = model.apply({"params": params}, tokens_BT, cache=window.cache, **prefix).cache
        if rows > 1:
            changed_B = jnp.repeat(starts_B != window.starts_B, cache.num_kv_heads)
            keys, values = jax.tree.map(lambda new, old: jnp.where(changed_B[:, None, None], new, old),
                                        (cache.keys, cache.values), (window.cache.keys, window.cache.values))
            cache = cache._replace(keys=keys, values=values)
        return Window(cache._replace(length=window.cache.length), starts_B)

    def read(tokens_BT: jax.Array, positions_B: jax.Array, window: Window) -> tuple[jax.Array, Window]:
        lengths_B = positions_B - window.starts_B
        # The last ones may be past the window's end, and are dropped then; past the last learned position, too.
        positions_BT = jnp.minimum(lengths_B[:, None] + jnp.arange(tokens_BT.shape[1]), context_length - 1)
        # One row has the quick path of rows that are all alike.
        cache = window.cache._replace(length=lengths_B[0] if rows == 1 else lengths_B)
        output = model.apply({"params": params}, tokens_BT, cache=cache, positions_BT=positions_BT)
        return output.logits_BTV, window._replace(cache=output.cache._replace(length=window.cache.length))

    # The check of learned positions is about tokens that count.
    empty = init_cache(dataclasses.replace(config, context_length=capacity), rows, capacity)
    return Reader(Window(empty, jnp.full(rows, -1, jnp.int32)), stale, fill, read, rewinds=True)


def recurrent_reader(config: ModelConfig, params: Any, *, rows: int, prefill: int) -> Reader:
    """A recurrent network's, which reads the whole text: `prefill` tokens at once, at the start."""
    from purelm.models.recurrent import init_carry

    model = make_model(config)

    def stale(positions_B: jax.Array, state: ReadState) -> jax.Array:
        return ~state.begun_B

    def fill(ids_BX: jax.Array, positions_B: jax.Array, state: ReadState) -> ReadState:
        segments_BT = (jnp.arange(prefill) < positions_B[:, None] - 1).astype(jnp.int32)
        carry = init_carry(config, rows)
        output = model.apply({"params": params}, ids_BX[:, :prefill], carry=carry, segments_BT=segments_BT,
                             method="hidden")
        return ReadState(output.cache, jnp.ones_like(state.begun_B))

    def read(tokens_BT: jax.Array, positions_B: jax.Array, state: ReadState) -> tuple[jax.Array, ReadState]:
        output = model.apply({"params": params}, tokens_BT, carry=state.carry)
        return output.logits_BTV, state._replace(carry=output.cache)

    return Reader(ReadState(init_carry(config, rows), jnp.zeros(rows, bool)), stale, fill, read, rewinds=False)
