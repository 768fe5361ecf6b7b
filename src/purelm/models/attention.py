"""The attention sublayer: projections, rotation, cache, and one of attention_forms."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.numbers import is_zero
from purelm.config.shapes import has_bias, head_size, num_kv_heads
from purelm.models import cache as kv_cache
from purelm.models.attention_forms import library_attention, naive_attention, paged_attention, splash_attention
from purelm.models.context import AttentionContext
from purelm.models.dtypes import param_dtype
from purelm.models.linear import Linear
from purelm.models.norms import HeadNorm
from purelm.models.paged_cache import write_pages
from purelm.models.positions import rotate


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2); MQA and GQA by num_kv_heads.

    Queries come from x_BTD, keys and values from x_BTD too, or in cross-attention from context.source_BSD.
    """

    config: ModelConfig

    def setup(self) -> None:
        config = self.config
        size = head_size(config)
        bias = has_bias(config, config.query_key_value_bias)
        self.query = Linear(config, config.num_heads * size, "hidden", bias)
        self.key = Linear(config, num_kv_heads(config) * size, "hidden", bias)
        self.value = Linear(config, num_kv_heads(config) * size, "hidden", bias)
        self.output = Linear(config, config.width, "output", has_bias(config, config.attention_output_bias))
        if config.qk_norm:
            self.query_norm = HeadNorm(config)
            self.key_norm = HeadNorm(config)
        if config.attention_sink:
            self.sink = self.param("sink", nn.initializers.zeros, (config.num_heads,), param_dtype(config))

    def _in_heads(self, y: jax.Array) -> jax.Array:
        return y.reshape(*y.shape[:-1], -1, head_size(self.config))

    def _normalized(self, y: jax.Array, norm: HeadNorm | None) -> jax.Array:
        """Queries or keys cut into heads; with qk_norm_over=all_heads normalized before that (OLMo 2)."""
        if norm is None:
            return self._in_heads(y)
        return norm(self._in_heads(y)) if self.config.qk_norm_over == "head" else self._in_heads(norm(y))

    def keys_values(
        self, x_BSD: jax.Array, rotation: tuple[jax.Array, jax.Array] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """(key_BKSH, value_BKSH) of what is attended to."""
        key_BSX, value_BSKH = self.key(x_BSD), self._in_heads(self.value(x_BSD))
        key_BSKH = self._normalized(key_BSX, self.key_norm if self.config.qk_norm else None)
        if rotation is not None:
            key_BSKH = rotate(key_BSKH, *rotation)
        return jnp.swapaxes(key_BSKH, 1, 2), jnp.swapaxes(value_BSKH, 1, 2)

    def __call__(
        self, x_BTD: jax.Array, context: AttentionContext, cached: tuple[kv_cache.Rows, kv_cache.Rows] | None, *,
        deterministic: bool,
    ) -> tuple[jax.Array, tuple[kv_cache.Rows, kv_cache.Rows] | None, jax.Array | None]:
        """(y_BTD, this layer's cache with the new keys and values, weights_BNTS of the naive form or None).

        In cross-attention `cached` is the source's keys and values (cache.flat), and nothing is written.
        """
        config = self.config
        query_BTNH = self._normalized(self.query(x_BTD), self.query_norm if config.qk_norm else None)
        if context.rotation is not None:
            query_BTNH = rotate(query_BTNH, *context.rotation)
        if not context.is_cross:
            key_BKSH, value_BKSH = self.keys_values(x_BTD, context.rotation)
            if context.implementation == "paged":
                new = (key_BKSH, value_BKSH)
                cached = tuple(write_pages(pages, rows, context.access) for pages, rows in zip(cached, new))
            elif cached is not None:
                (key_BKSH, value_BKSH), cached = kv_cache.update(
                    cached, (key_BKSH, value_BKSH), context.access, query_BTNH.dtype)
        else:
            key_BKSH, value_BKSH = self.keys_values(context.source_BSD) if cached is None else cached
        sink_N = self.sink if config.attention_sink else None
        weights_BNTS = None
        if context.implementation == "naive":
            key = self.make_rng("dropout") if not (deterministic or is_zero(config.attention_dropout)) else None
            y_BTNH, weights_BNTS = naive_attention(config, query_BTNH, key_BKSH, value_BKSH, context, sink_N, key)
        elif context.implementation == "paged":
            y_BTNH = paged_attention(config, query_BTNH, *cached, context.access, sink_N)
        elif context.implementation == "splash":
            y_BTNH = splash_attention(config, query_BTNH, key_BKSH, value_BKSH, context)
        else:
            y_BTNH = library_attention(config, query_BTNH, key_BKSH, value_BKSH, context)
        y_BTD = self.output(y_BTNH.reshape(*x_BTD.shape[:-1], -1))
        return y_BTD, cached, weights_BNTS
