"""What generation asks of a model: to read the text so far (prefill), and one token after another (step)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.models import Cache, Transformer, init_cache, make_model, unstack_layers


class Steps(NamedTuple):
    """A model with its parameters, as functions; `memory` is whatever it remembers of the tokens read.

    memory: before any token. step: (tokens_B1, memory) -> (logits_BV of the next token, memory). prefill: (ids_BX,
    start, position, memory) -> the memory of tokens start to position - 2: the last one before `position` is left to
    the first step.
    """

    memory: Any
    step: Callable[[jax.Array, Any], tuple[jax.Array, Any]]
    prefill: Callable[[jax.Array, jax.Array, jax.Array, Any], Any]


def transformer_steps(config: ModelConfig, params: Any, *, rows: int, cache: int, prefill: int,
                      prompt_end: jax.Array) -> Steps:
    """A decoder's: a cache of `cache` rows, filled `prefill` tokens at once.

    prompt_end: position where the prompt ends, for a prefix language model, whose prompt is read both ways.
    """
    # Once, before the loop: a step that sliced the stack would copy every layer for every token.
    params = params if isinstance(params["layers"], tuple) else unstack_layers(params)
    model = Transformer(config)

    def step(tokens_B1: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        output = model.apply({"params": params}, tokens_B1, cache=cache)
        return output.logits_BTV[:, -1], output.cache

    def fill(ids_BX: jax.Array, start: jax.Array, position: jax.Array, cache: Cache) -> Cache:
        # `prefill` tokens are read; those past the window's end write rows that `length` hides and later tokens
        # overwrite. The last token is among them where the prompt must see it; the first step writes it again. The
        # logits go unused, so that XLA leaves them out.
        tokens_BT = jax.lax.dynamic_slice_in_dim(ids_BX, start, prefill, axis=1)
        prefix = {}
        if config.prefix_attention:
            prefix = {"prefix_BT": jnp.broadcast_to(start + jnp.arange(prefill) < prompt_end, tokens_BT.shape)}
        cache = cache._replace(length=jnp.zeros((), jnp.int32))
        cache = model.apply({"params": params}, tokens_BT, cache=cache, **prefix).cache
        return cache._replace(length=position - 1 - start)

    return Steps(init_cache(config, rows, cache), step, fill)


def recurrent_steps(config: ModelConfig, params: Any, *, rows: int, prefill: int) -> Steps:
    """A recurrent network's: its state, which has no capacity; `prefill` tokens are read at once."""
    from purelm.models.recurrent import Carry, init_carry

    model = make_model(config)

    def step(tokens_B1: jax.Array, carry: Carry) -> tuple[jax.Array, Carry]:
        output = model.apply({"params": params}, tokens_B1, carry=carry)
        return output.logits_BTV[:, -1], output.cache

    def fill(ids_BX: jax.Array, start: jax.Array, position: jax.Array, carry: Carry) -> Carry:
        # What comes after is padding, which changes no state.
        tokens_BT = jax.lax.dynamic_slice_in_dim(ids_BX, start, prefill, axis=1)
        segments_BT = jnp.broadcast_to(start + jnp.arange(prefill) < position - 1, tokens_BT.shape).astype(jnp.int32)
        return model.apply({"params": params}, tokens_BT, carry=carry, segments_BT=segments_BT, method="hidden").cache

    return Steps(init_carry(config, rows), step, fill)
