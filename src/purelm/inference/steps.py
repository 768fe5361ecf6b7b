"""What generation asks of a model: to read the text so far (prefill), and one token after another (step)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.models import Cache, Transformer, decoding, init_cache, make_model, unstack_layers
from purelm.models.cache import take_cache_rows

# How keys and values are kept: all of them, those of config.attention_window alone, or as 8-bit integers.
CacheKind = Literal["full", "rolling", "int8"]

SOURCE_READERS = ("encoder_decoder", "recurrent_encoder_decoder")


class Source(NamedTuple):
    """What an encoder-decoder reads first: ids_BS, int32, and segments_BS, 1 or 0 for padding."""

    ids_BS: jax.Array
    segments_BS: jax.Array


class Steps(NamedTuple):
    """A model with its parameters, as functions; `memory` is whatever it remembers of the tokens read.

    memory: before any token. step: (tokens_B1, memory) -> (logits_BV of the next token, memory). prefill: (ids_BX,
    start, position, memory) -> the memory of tokens start to position - 2: the last one before `position` is left to
    the first step; None of a model that reads its target token by token alone. take_rows: (memory, rows_B) -> the
    memory whose row i was row rows_B[i].
    """

    memory: Any
    step: Callable[[jax.Array, Any], tuple[jax.Array, Any]]
    prefill: Callable[[jax.Array, jax.Array, jax.Array, Any], Any] | None
    take_rows: Callable[[Any, jax.Array], Any]


def make_steps(config: ModelConfig, params: Any, *, rows: int, cache: int, prefill: int, prompt_end: jax.Array,
               kind: CacheKind, source: Source | None) -> Steps:
    """The steps of any model that writes, over `rows` rows.

    cache, prefill: tokens that a cache has room for, and that are read at once. prompt_end: see `transformer_steps`.
    kind: of the cache, of a decoder. source: of an encoder-decoder.
    """
    if source is not None:
        return source_steps(config, params, source, length=cache)
    if config.architecture == "recurrent":
        return recurrent_steps(config, params, rows=rows, prefill=prefill)
    return transformer_steps(config, params, rows=rows, cache=cache, prefill=prefill, prompt_end=prompt_end, kind=kind)


def transformer_steps(config: ModelConfig, params: Any, *, rows: int, cache: int, prefill: int,
                      prompt_end: jax.Array, kind: CacheKind = "full") -> Steps:
    """A decoder's: a cache of `cache` rows, or of attention_window where that is less and it rolls, filled `prefill`
    tokens at once.

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
        known, inputs = position - 1 - start, {}
        if config.prefix_attention:
            inputs = {"prefix_BT": jnp.broadcast_to(start + jnp.arange(prefill) < prompt_end, tokens_BT.shape)}
        if cache.rolling:  # In a ring, what is past the end would overwrite what is seen.
            inputs = {"new_lengths": known}
        cache = cache._replace(length=jnp.zeros((), jnp.int32))
        cache = model.apply({"params": params}, tokens_BT, cache=cache, **inputs).cache
        return cache._replace(length=known)

    rolling = kind == "rolling" and config.attention_window < cache
    memory = init_cache(config, rows, config.attention_window if rolling else cache, rolling=rolling,
                        int8=kind == "int8")
    return Steps(memory, step, fill, take_cache_rows)


def recurrent_steps(config: ModelConfig, params: Any, *, rows: int, prefill: int) -> Steps:
    """A recurrent network's: its state, which has no capacity; `prefill` tokens are read at once."""
    from purelm.models.recurrent import Carry, init_carry
    from purelm.models.recurrent.decoding import take_rows

    model = make_model(config)

    def step(tokens_B1: jax.Array, carry: Carry) -> tuple[jax.Array, Carry]:
        output = model.apply({"params": params}, tokens_B1, carry=carry)
        return output.logits_BTV[:, -1], output.cache

    def fill(ids_BX: jax.Array, start: jax.Array, position: jax.Array, carry: Carry) -> Carry:
        # What comes after is padding, which changes no state.
        tokens_BT = jax.lax.dynamic_slice_in_dim(ids_BX, start, prefill, axis=1)
        segments_BT = jnp.broadcast_to(start + jnp.arange(prefill) < position - 1, tokens_BT.shape).astype(jnp.int32)
        return model.apply({"params": params}, tokens_BT, carry=carry, segments_BT=segments_BT, method="hidden").cache

    return Steps(init_carry(config, rows), step, fill, take_rows)


def source_steps(config: ModelConfig, params: Any, source: Source, *, length: int) -> Steps:
    """An encoder-decoder's: the source is read here, once; then there is room for `length` tokens of the target."""
    if config.architecture == "encoder_decoder":
        params = unstack_layers(params)

    def step(tokens_B1: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        return decoding.step(config, params, tokens_B1, state)

    state = decoding.start(config, params, source.ids_BS, source.segments_BS, length)
    return Steps(state, step, None, decoding.take_rows)
