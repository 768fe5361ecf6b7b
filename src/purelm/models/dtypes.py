"""The two types of a model: of its parameters and of its activations."""

from __future__ import annotations

import jax.numpy as jnp

from purelm.config import ModelConfig


def param_dtype(config: ModelConfig) -> jnp.dtype:
    """Type that parameters are kept in."""
    return jnp.dtype(config.param_dtype)


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """Type of activations and matrix products (norms, softmax and logits are float32)."""
    return jnp.dtype(config.compute_dtype)
