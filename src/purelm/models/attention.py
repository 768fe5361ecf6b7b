"""The attention sublayer: projections, rotation, cache, and one of attention_forms."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import head_size, num_kv_heads
from purelm.models import cache as kv_cache
from purelm.models.attention_forms import library_attention, naive_attention, splash_attention
from purelm.models.context import AttentionContext
from purelm.models.dtypes import param_dtype
from purelm.models.linear import Linear
from purelm.models.norms import HeadNorm
from purelm.models.positions import rotate


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2); MQA and GQA by num_kv_heads."""

    config: ModelConfig

    def _projected(self, x_BTD: jax.Array, name: str, num_heads: int) -> jax.Array:
        size = head_size(self.config)
        y = Linear(self.config, num_heads * size, "hidden", name=name)(x_BTD)
        return y.reshape(*x_BTD.shape[:-1], num_heads, size)

    @nn.compact
    def __call__(
        self, x_BTD: jax.Array, context: AttentionContext, cached: tuple[jax.Array, jax.Array] | None, *,
        deterministic: bool,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None, jax.Array | None]:
        """(y_BTD, this layer's cache with the new keys and values, weights_BNTS of the naive form or None)."""
        config = self.config
        query_BTNH = self._projected(x_BTD, "query", config.num_heads)
        key_BSKH = self._projected(x_BTD, "key", num_kv_heads(config))
        value_BSKH = self._projected(x_BTD, "value", num_kv_heads(config))
        if config.qk_norm:
            query_BTNH = HeadNorm(config, name="query_norm")(query_BTNH)
            key_BSKH = HeadNorm(config, name="key_norm")(key_BSKH)
        if context.rotation is not None:
            query_BTNH, key_BSKH = rotate(query_BTNH, *context.rotation), rotate(key_BSKH, *context.rotation)
        key_BKSH, value_BKSH = jnp.swapaxes(key_BSKH, 1, 2), jnp.swapaxes(value_BSKH, 1, 2)
        if cached is not None:
            cached = tuple(kv_cache.write(old, new, context.start) for old, new in zip(cached, (key_BKSH, value_BKSH)))
            key_BKSH, value_BKSH = (rows.astype(query_BTNH.dtype) for rows in cached)
        sink_N = None
        if config.attention_sink:
            sink_N = self.param("sink", nn.initializers.zeros, (config.num_heads,), param_dtype(config))
        weights_BNTS = None
        if context.implementation == "naive":
            key = self.make_rng("dropout") if config.attention_dropout and not deterministic else None
            y_BTNH, weights_BNTS = naive_attention(config, query_BTNH, key_BKSH, value_BKSH, context, sink_N, key)
        elif context.implementation == "splash":
            y_BTNH = splash_attention(config, query_BTNH, key_BKSH, value_BKSH, context)
        else:
            y_BTNH = library_attention(config, query_BTNH, key_BKSH, value_BKSH, context)
        y_BTD = Linear(config, config.width, "output", name="output")(y_BTNH.reshape(*x_BTD.shape[:-1], -1))
        return y_BTD, cached, weights_BNTS
