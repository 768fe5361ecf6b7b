"""Decoding of models that read a source first: the source once, then one target token a step, over rows that move.

The same three functions for Transformers and recurrent networks (models/recurrent/decoding.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.models.cache import Cache, init_cache, take_cache_rows, take_rows_of
from purelm.models.transformer import Encoded, Transformer

Params = Any


class State(NamedTuple):
    """A Transformer's memory between steps: fit as the carry of a lax.while_loop.

    cache: of the target tokens read. encoded: of the source, its keys and values computed, without its features.
    """

    cache: Cache
    encoded: Encoded


def start(
    config: ModelConfig, params: Params, source_BS: jax.Array, source_segments_BS: jax.Array | None, length: int
) -> Any:
    """The state before the first target token, with room for `length` of them a row.

    source_segments_BS: 0 is padding; None has none. Raises UserError for an architecture that reads no source, or a
    length that learned positions do not have.
    """
    if config.architecture == "recurrent_encoder_decoder":
        from purelm.models.recurrent import decoding as recurrent_decoding

        return recurrent_decoding.start(config, params, source_BS, source_segments_BS, length)
    if config.architecture != "encoder_decoder":
        raise UserError(f"config.model.architecture={config.architecture} reads no source: "
                        "choose encoder_decoder or recurrent_encoder_decoder")
    cache = init_cache(config, source_BS.shape[0], length)
    model, variables = Transformer(config), {"params": params}
    if source_segments_BS is None:
        source_segments_BS = jnp.ones(source_BS.shape, jnp.int32)
    encoded = model.apply(variables, source_BS, source_segments_BS=source_segments_BS, method="encode")
    encoded = model.apply(variables, encoded, method="precompute")
    return State(cache, encoded._replace(features_BSD=None))


def step(config: ModelConfig, params: Params, tokens_B1: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    """(float32 logits_BV of the token after tokens_B1, the state after them).

    Steps of a Transformer are quicker with unstack_layers(params), as made once before the loop.
    """
    if not isinstance(state, State):
        from purelm.models.recurrent import decoding as recurrent_decoding

        return recurrent_decoding.step(config, params, tokens_B1, state)
    output = Transformer(config).apply({"params": params}, tokens_B1, encoded=state.encoded, cache=state.cache)
    return output.logits_BTV[:, -1], state._replace(cache=output.cache)


def take_rows(state: Any, rows_B: jax.Array, *, same_source: bool = False) -> Any:
    """The state whose row i is the given one's row rows_B[i]; rows may be repeated, left out, more or fewer.

    same_source: each row goes where one of the same source was, as in a beam, so that a Transformer's keys and values
    of the source can stay.
    """
    if not isinstance(state, State):
        from purelm.models.recurrent import decoding as recurrent_decoding

        return recurrent_decoding.take_rows(state, rows_B, same_source=same_source)
    cache, encoded = take_cache_rows(state.cache, rows_B), state.encoded
    if not same_source:
        segments_BS = jnp.take(encoded.segments_BS, rows_B, axis=0)
        cross = jax.tree.map(lambda rows: take_rows_of(rows, rows_B, state.cache.num_kv_heads), encoded.cross)
        encoded = Encoded(None, segments_BS, cross)
    return State(cache, encoded)
