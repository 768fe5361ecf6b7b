"""Parameters, floating-point operations and memory of a model."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import (
    TRANSFORMERS,
    embedding_width,
    encoder_layers,
    feed_forward_width,
    head_size,
    is_gated,
    layer_config,
    layer_kinds,
    num_kv_heads,
    vocabulary_size,
)
from purelm.models.dtypes import compute_dtype
from purelm.models.make import make_model

# Subtrees that hold the vocabulary or positions: what scaling laws leave out (Kaplan et al. 2020, arXiv 2001.08361).
EMBEDDINGS = ("embedding", "embedding_projection", "positions", "token_types", "head", "head_projection")


def parameter_shapes(config: ModelConfig) -> Any:
    """The parameters' shapes and types, without computing any."""
    tokens_BT = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return jax.eval_shape(make_model(config).init, jax.random.key(0), tokens_BT)["params"]


def count_parameters(params: Any, *, embeddings: bool = True) -> int:
    """Numbers in `params` (arrays or shapes); embeddings=False leaves out embeddings of tokens, their types and
    positions, and the head, those of an encoder too."""
    if not embeddings:
        params = {name: subtree for name, subtree in params.items() if name not in EMBEDDINGS}
        if "encoder" in params:
            encoder = {name: subtree for name, subtree in params["encoder"].items() if name not in EMBEDDINGS}
            params = {**params, "encoder": encoder}
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def matmul_parameters(config: ModelConfig) -> int:
    """Weights that one token is multiplied by: every layer's matrices (shared ones once a layer), the head, and what
    leads to and from a table of embedding_width.

    Of an encoder-decoder, those of both stacks: a token is one of the source and one of the target. Of other networks,
    every matrix but embeddings, and a tied head.
    """
    if config.architecture not in TRANSFORMERS:
        return _other_matmul_parameters(config)
    heads = config.num_heads * head_size(config)
    kv_heads = num_kv_heads(config) * head_size(config)
    attention = config.width * (2 * heads + 2 * kv_heads)
    feed_forward = config.width * (3 if is_gated(config) else 2) * feed_forward_width(config)
    count = config.num_layers * (attention + feed_forward) + _head_matmul_parameters(config)
    if config.architecture == "encoder_decoder":
        count += config.num_layers * attention + encoder_layers(config) * (attention + feed_forward)
        count += _projection(config)
    return count + _projection(config) + (config.width ** 2 if config.head_transform else 0)


def _head_matmul_parameters(config: ModelConfig) -> int:
    if not config.tied_embeddings:
        return config.width * vocabulary_size(config)
    return embedding_width(config) * vocabulary_size(config) + _projection(config)


def _projection(config: ModelConfig) -> int:
    """Of the matrix between the table of embeddings and the stream."""
    return 0 if config.embedding_width is None else config.embedding_width * config.width


def _other_matmul_parameters(config: ModelConfig) -> int:
    """Numbers in arrays of two axes or more that are no embedding (layers are not stacked there), and a tied head."""
    if config.architecture == "word_vectors":
        return 2 * config.width
    leaves = jax.tree_util.tree_leaves_with_path(parameter_shapes(config))
    matrices = [leaf for path, leaf in leaves if len(leaf.shape) > 1 and "embedding" not in jax.tree_util.keystr(path)]
    tied = config.width * vocabulary_size(config) if config.tied_embeddings else 0
    return sum(math.prod(leaf.shape) for leaf in matrices) + tied


def flops_per_token(config: ModelConfig, context_length: int) -> int:
    """Floating-point operations a trained token costs, forward and backward: 6 M + 12 L N H S.

    The rule of PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B). M: matmul_parameters (the head counts, tied
    or not; embedding look-ups, norms and biases do not). S: keys a query is multiplied by, context_length or the
    layer's window if that is less; the causal half is not taken off. L: layers of self-attention and, over
    context_length, of cross-attention; a token of an encoder-decoder is one of the source and one of the target, as a
    row of a batch counts for context_length tokens there. Recomputation (remat) does not count. Networks other than
    Transformers: 6 M.
    """
    matrices = 6 * matmul_parameters(config)
    if config.architecture not in TRANSFORMERS:
        return matrices
    keys = _keys_seen(config, config.num_layers, context_length)
    if config.architecture == "encoder_decoder":
        keys += _keys_seen(config, encoder_layers(config), context_length) + context_length * config.num_layers
    return matrices + 12 * config.num_heads * head_size(config) * keys


def _keys_seen(config: ModelConfig, num_layers: int, context_length: int) -> int:
    """Keys that a query is multiplied by in all layers of self-attention together, the causal half not taken off."""
    windows = [layer_config(config, kind).attention_window for kind in layer_kinds(config, num_layers)]
    return sum(context_length if window is None else min(window, context_length) for window in windows)


def forward_flops_per_token(config: ModelConfig, context_length: int) -> int:
    """Floating-point operations of the forward pass alone: a third of flops_per_token."""
    return flops_per_token(config, context_length) // 3


def cache_bytes(
    config: ModelConfig, batch_size: int, length: int, dtype: jnp.dtype | None = None, *, int8: bool = False
) -> int:
    """Bytes of the keys and values that init_cache(config, batch_size, length, dtype, int8=int8) holds; 0 where there
    is no cache. A ring's `length` is its capacity; init_pages holds as much as one row of num_pages * page_size tokens.

    An encoder-decoder holds as many again for a source of the same length, in the compute type.
    """
    if config.architecture not in ("decoder", "encoder_decoder"):
        return 0
    itemsize = jnp.dtype(compute_dtype(config) if dtype is None else dtype).itemsize
    # With int8, a float32 scale a token and head.
    row_bytes = head_size(config) + 4 if int8 else head_size(config) * itemsize
    return 2 * config.num_layers * batch_size * length * num_kv_heads(config) * row_bytes
