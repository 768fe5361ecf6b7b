"""Parameters, floating-point operations and memory of a model."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import feed_forward_width, head_size, is_gated, num_kv_heads, vocabulary_size
from purelm.models.dtypes import compute_dtype
from purelm.models.make import make_model

# Subtrees that hold the vocabulary or positions: what scaling laws leave out (Kaplan et al. 2020, arXiv 2001.08361).
EMBEDDINGS = ("embedding", "positions", "head")


def parameter_shapes(config: ModelConfig) -> Any:
    """The parameters' shapes and types, without computing any."""
    tokens_BT = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return jax.eval_shape(make_model(config).init, jax.random.key(0), tokens_BT)["params"]


def count_parameters(params: Any, *, embeddings: bool = True) -> int:
    """Numbers in `params` (arrays or shapes); embeddings=False leaves out token and position embeddings and head."""
    if not embeddings:
        params = {name: subtree for name, subtree in params.items() if name not in EMBEDDINGS}
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def matmul_parameters(config: ModelConfig) -> int:
    """Weights that one token is multiplied by: every layer's matrices (shared ones once a layer) and the head."""
    heads = config.num_heads * head_size(config)
    kv_heads = num_kv_heads(config) * head_size(config)
    matrices = 3 if is_gated(config) else 2
    layer = config.width * (2 * heads + 2 * kv_heads + matrices * feed_forward_width(config))
    return config.num_layers * layer + config.width * vocabulary_size(config)


def flops_per_token(config: ModelConfig, context_length: int) -> int:
    """Floating-point operations a trained token costs, forward and backward: 6 M + 12 L N H S.

    The rule of PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B). M: matmul_parameters (the head counts, tied
    or not; embedding look-ups, norms and biases do not). S: keys a query is multiplied by, context_length or the
    window if that is less; the causal half is not taken off. Recomputation (remat) does not count.
    """
    window = config.attention_window
    keys = context_length if window is None else min(window, context_length)
    return 6 * matmul_parameters(config) + 12 * config.num_layers * config.num_heads * head_size(config) * keys


def forward_flops_per_token(config: ModelConfig, context_length: int) -> int:
    """Floating-point operations of the forward pass alone: a third of flops_per_token."""
    return flops_per_token(config, context_length) // 3


def cache_bytes(config: ModelConfig, batch_size: int, length: int, dtype: jnp.dtype | None = None) -> int:
    """Bytes of the keys and values that init_cache(config, batch_size, length, dtype) holds."""
    itemsize = jnp.dtype(compute_dtype(config) if dtype is None else dtype).itemsize
    return 2 * config.num_layers * batch_size * length * num_kv_heads(config) * head_size(config) * itemsize
