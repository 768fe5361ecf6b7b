"""Attention of a recurrent decoder over its source: additive (Bahdanau) and multiplicative (Luong)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.models.attention_forms import MASKED
from purelm.models.dtypes import compute_dtype, param_dtype
from purelm.models.recurrent.layers import Dense, hidden_size


class AttentionParameters(NamedTuple):
    """Of the decoder's side, in the compute type: the query's matrix [H, A] and the vector [A]; Luong's has neither."""

    query_HA: jax.Array | None
    vector_A: jax.Array | None


class SourceAttention(nn.Module):
    """What a step reads of the source by the hidden state h, with keys made once a source; A is H.

    bahdanau: score_s = v . tanh(W h + U x_s) (Bahdanau et al. 2015, arXiv 1409.0473, appendix A.1.2).
    luong: score_s = h . W x_s, the form "general" (Luong et al. 2015, arXiv 1508.04025, equation 8).
    """

    config: ModelConfig

    def setup(self) -> None:
        config = self.config
        self.key = Dense(config, hidden_size(config), bias=False)
        if config.recurrent_attention == "bahdanau":
            self.query = Dense(config, hidden_size(config), bias=False)
            self.vector = self.param("vector", _vector, (hidden_size(config),), param_dtype(config))

    def keys(self, features_BSD: jax.Array) -> jax.Array:
        """keys_BSA."""
        return self.key(features_BSD)

    def parameters(self) -> AttentionParameters:
        """What `attend` needs besides."""
        config = self.config
        if config.recurrent_attention == "luong":
            return AttentionParameters(None, None)
        return AttentionParameters(self.query.matrix(hidden_size(config))[0], self.vector.astype(compute_dtype(config)))


def _vector(key: jax.Array, shape: tuple[int], dtype: jnp.dtype) -> jax.Array:
    return nn.initializers.xavier_uniform()(key, (*shape, 1), dtype)[:, 0]


# Recomputed in the backward pass: kept for each step, hidden_BSA would be [T, B, S, A]. Inside of a scan, nothing would
# merge the recomputation with the first one.
@partial(jax.checkpoint, prevent_cse=False)
def attend(parameters: AttentionParameters, h_BH: jax.Array, keys_BSA: jax.Array, features_BSD: jax.Array,
           real_BS: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """(context_BD in the features' type, weights_BS in float32); padding is not read."""
    h_BH = h_BH.astype(keys_BSA.dtype)
    if parameters.vector_A is None:
        scores_BS = jnp.einsum("BA,BSA->BS", h_BH, keys_BSA, preferred_element_type=jnp.float32)
    else:
        hidden_BSA = jnp.tanh(keys_BSA + (h_BH @ parameters.query_HA)[:, None])
        scores_BS = jnp.einsum("BSA,A->BS", hidden_BSA, parameters.vector_A, preferred_element_type=jnp.float32)
    if real_BS is not None:
        scores_BS = jnp.where(real_BS, scores_BS, MASKED)
    weights_BS = jax.nn.softmax(scores_BS, axis=-1)
    return jnp.einsum("BS,BSD->BD", weights_BS.astype(features_BSD.dtype), features_BSD), weights_BS
