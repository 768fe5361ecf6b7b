"""What a call of the Transformer refuses."""

from __future__ import annotations

from typing import Any

import jax

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.models.cache import Cache
from purelm.models.paged_cache import PagedCache
from purelm.models.stack import AnyCache


def check_call(
    config: ModelConfig, num_tokens: int, segments_BT: jax.Array | None, cache: AnyCache | None,
    new_lengths: jax.Array | None, collect: bool,
) -> None:
    """Raises UserError for lengths, caches and segments that do not go together."""
    if cache is None and config.positions == "learned" and num_tokens > config.context_length:
        raise UserError(f"{num_tokens} tokens do not fit config.model.context_length={config.context_length} "
                        "learned positions: give fewer tokens")
    if cache is not None and config.architecture == "encoder":
        raise UserError("an encoder has no cache, since each token sees the ones after it: leave cache out")
    if cache is not None and segments_BT is not None:
        raise UserError("segments_BT cannot be given with a cache, which holds one segment a row: give one of them")
    if cache is None and new_lengths is not None:
        raise UserError("new_lengths says what a cache keeps, and there is none: give cache, or segments_BT")
    if isinstance(cache, PagedCache) and collect:
        raise UserError("attention weights over pages are not collected: give a cache of init_cache")
    rolls = isinstance(cache, Cache) and cache.rolling
    if cache is not None and not rolls and num_tokens > cache.capacity:
        raise UserError(f"{num_tokens} tokens do not fit a cache of {cache.capacity}: make it longer")


def check_inputs(
    config: ModelConfig, token_types_BT: jax.Array | None, prefix_BT: jax.Array | None, encoded: Any | None
) -> None:
    """Raises UserError for inputs that the config does not read, and for one that is missing."""
    if token_types_BT is not None and not config.token_types:
        raise UserError("token_types_BT is given, but config.model.token_types is 0: set how many there are")
    if prefix_BT is not None and not config.prefix_attention:
        raise UserError("prefix_BT is given, but config.model.prefix_attention is off: set it")
    if encoded is not None and config.architecture != "encoder_decoder":
        raise UserError(f"encoded is given to config.model.architecture={config.architecture}, which reads none: "
                        "choose encoder_decoder")
    if encoded is None and config.architecture == "encoder_decoder":
        raise UserError("an encoder-decoder reads a source: give encoded=, the result of method 'encode'")
