"""The token embedding and the output layer."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import embedding_width, vocabulary_size
from purelm.models.dtypes import compute_dtype, param_dtype
from purelm.models.initialization import embedding_initializer, kernel_initializer
from purelm.models.quantization import Quantized, parameter, take_rows


class Embedding(nn.Module):
    """tokens_BT -> x_BTE: a row of the table [V, E] each, times sqrt(D) with embedding_scale=sqrt_width.

    Vaswani et al. 2017 (arXiv 1706.03762, section 3.4). E is D unless config.embedding_width says otherwise.
    """

    config: ModelConfig

    def setup(self) -> None:
        config = self.config
        shape = (vocabulary_size(config), embedding_width(config))
        self.embedding = parameter(self, "embedding", embedding_initializer(config), shape, param_dtype(config))

    def table(self) -> jax.Array | Quantized:
        """[V, E], in the parameters' type."""
        return self.embedding

    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        if isinstance(self.embedding, Quantized):
            x_BTE = take_rows(self.embedding, tokens_BT).astype(compute_dtype(self.config))
        else:
            x_BTE = jnp.take(self.embedding, tokens_BT, axis=0, mode="clip").astype(compute_dtype(self.config))
        return x_BTE if self.config.embedding_scale == "one" else x_BTE * self.config.width ** 0.5


class TokenTypes(nn.Module):
    """types_BT (none is all 0) -> [B, T, D], a row of a table [token_types, D] each (BERT: Devlin et al. 2019, arXiv
    1810.04805)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, types_BT: jax.Array | None) -> jax.Array:
        config = self.config
        shape = (config.token_types, config.width)
        table = self.param("embedding", embedding_initializer(config), shape, param_dtype(config))
        types_BT = jnp.zeros((1, 1), jnp.int32) if types_BT is None else types_BT
        return jnp.take(table, types_BT, axis=0, mode="clip").astype(compute_dtype(config))


class Head(nn.Module):
    """The matrix [D, V] of an output layer of its own, and with head_bias its bias [V] (a tied one's too)."""

    config: ModelConfig

    def setup(self) -> None:
        config = self.config
        size = vocabulary_size(config)
        if not config.tied_embeddings:
            self.kernel = parameter(self, "kernel", kernel_initializer(config, "head"), (config.width, size),
                                    param_dtype(config))
        if config.head_bias:
            self.bias = self.param("bias", nn.initializers.zeros, (size,), param_dtype(config))

    def matrix(self) -> jax.Array | Quantized:
        """[D, V]."""
        return self.kernel

    def offset(self) -> jax.Array:
        """[V]."""
        return self.bias
